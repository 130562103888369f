"""Who and what is on this node: ENIs, resolvers, workloads; one outside source a file."""
