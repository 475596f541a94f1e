"""Fuzzing of the way from a message's bytes to columns: `make fuzz`.

`writers` makes schemas, `bodies` valid and broken values of them, `batches` both from a seed and a number. `checks`
reads a batch by every way there is and compares; `run` does so in processes that may crash or hang.
"""
