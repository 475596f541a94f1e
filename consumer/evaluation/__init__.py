"""From outcomes to a verdict: statistics over columns of transactions that are old enough to be judged.

Everything here is pure: it takes a `Sample` and gives plain figures, so that the same call answers a command, a dossier
and a test. `evaluate` makes all of it; `verdict` says what the figures allow under the policy that was fixed before.
"""
