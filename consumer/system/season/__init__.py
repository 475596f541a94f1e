"""The season: six weeks of checkouts and their outcomes, played through the real parts under a simulated clock, from
the first transaction to a promotion that the running score process follows.

`play` moves the clock week by week, `flow` sends and waits, `champion` promotes and looks what the events say of it.
"""
