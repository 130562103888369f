"""What eni53 costs: in the kernel per packet, in memory, in processor time, and at the start."""
