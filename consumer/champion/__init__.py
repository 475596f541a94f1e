"""From stored scores and outcomes to a champion: rows to evaluate, the evaluation, its dossier, and promotion.

`scope` says which rows, `rows` reads them as columns, `evaluate` judges them by `consumer/evaluation/`, `dossier` keeps
what was found in a form that can be verified, and `promotion` acts on it.
"""
