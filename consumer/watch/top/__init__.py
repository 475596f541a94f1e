"""Everything at one glance, for `bnpl-shadow top`."""
