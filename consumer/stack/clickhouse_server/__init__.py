"""ClickHouse's engine (chDB) behind ClickHouse's HTTP interface, on loopback, in a process of its own.

`sql` splits what a request carries, `engine` runs it, `protocol` reads and writes HTTP, `__main__` serves.
It serves one trusted user of one machine: there are no passwords, no roles and no TLS.
"""
