"""``python -m eni53`` is the ``eni53`` command."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
