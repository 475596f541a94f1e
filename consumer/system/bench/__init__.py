"""Benchmarks on a stack and a load of their own; what each part measures is said at the top of its file."""
