"""Where snapshots go. A sink sees snapshots and nothing else, and imports no other sink."""
