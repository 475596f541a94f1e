"""Drift of live traffic, counted into ClickHouse by a service of its own, so that scoring never waits.

`export` is what it is measured against, `counts` keeps a partition's counts exact over restarts, `store` is their
table, `scores` asks the tables of the sink, `look` measures all of it, `service` is the loop.
"""
