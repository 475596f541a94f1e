"""A file for each kind of resource."""
