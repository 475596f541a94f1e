"""Faults on purpose, under traffic with a ledger: what each part does is said at the top of its file."""
