"""What `eni53 check` says, word by word."""

from __future__ import annotations

from eni53.check import led_away


def test_veths_are_told_of_in_their_number() -> None:
    """A report that cannot count to one is not believed."""
    assert led_away(0) == "0 lead into other network namespaces"
    assert led_away(1) == "1 leads into another network namespace"
    assert led_away(2) == "2 lead into other network namespaces"
