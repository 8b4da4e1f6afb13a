"""Changes to a graph that has been exported: smaller, faster, in fewer bits. Each gives an equivalent graph."""
