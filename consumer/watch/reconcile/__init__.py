"""Proof by identity, on a running system: nothing lost, nothing twice, everything stored."""
