"""The fixtures of tests/kernel."""

from __future__ import annotations

from tests.kernel.conftest import (  # noqa: F401 - pytest looks fixtures up here
    kernel,
    make_attacher,
    make_namespace,
    pair,
    wired,
)
