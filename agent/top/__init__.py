"""The terminal top: a `Snapshot` drawn as text, once or live, wherever it came from."""
