"""Names from outside, safe to show."""

import random
import sys
import unicodedata

import pytest
from eni53.text import clean


@pytest.mark.parametrize(
    "name", ["", "web", "grüße", "日本", "a b", "checkout:42/9b1f", 'say "hi"']
)
def test_honest_names_stay_as_they_are(name):
    """What can be shown is shown."""
    assert clean(name) == name


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("a\x1b[2Jb", "\x1b"), ("a\nb", "\n"), ("\x00", "\x00"), ("\x9b1m", "\x9b"),
     ("x\u202egnp", "\u202e"), ("\u2028", "\u2028"), ("\ud800", "\ud800"), ("\ue000", "\ue000")],
)  # fmt: skip
def test_what_moves_a_cursor_is_written_out(name, hidden):
    """Escapes, line ends, direction marks and half characters do not get through."""
    shown = clean(name)
    assert hidden not in shown
    assert f"{ord(hidden):02x}" in shown


def test_nothing_hidden_ever_gets_through():
    """Whatever the characters: the result is encodable, on one line, and not too long."""
    rng = random.Random(53)
    for _ in range(200):
        name = "".join(chr(rng.randrange(sys.maxunicode + 1)) for _ in range(rng.randrange(60)))
        shown = clean(name, 40)
        assert len(shown) <= 40
        assert not [c for c in shown if unicodedata.category(c).startswith("C")]
        assert len(shown.splitlines()) <= 1
        assert shown.encode().decode() == shown


def test_a_megabyte_of_name_is_cut():
    """The cut shows, and a name of exactly the allowed length is whole."""
    assert clean("x" * 10**6, 10) == "xxxxxxxxx…"
    assert clean("x" * 10, 10) == "x" * 10
    assert len(clean("\n" * 10**6, 10)) == 10
