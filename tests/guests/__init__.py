"""eni53 under other kernels: Debian's own, each in a small emulated machine without a network."""
