"""The terminal top: a `Snapshot` drawn as text, once or live; where it came from is not known here."""
