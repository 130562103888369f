"""The kernel side: compile, load, attach, and read maps into plain values."""
