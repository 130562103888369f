"""What runs in a guest. Nothing here is for the machine that starts it."""
