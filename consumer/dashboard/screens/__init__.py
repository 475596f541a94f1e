"""The pages, in the order of the sidebar; each has one function `show`."""
