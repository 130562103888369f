"""Decoded JSON from anywhere, read strictly: each value is what it must be or a `SourceError`.

It knows nothing of snapshots, and needs only the standard library: the resident agent imports it.
An error names the place and the type found, never the text found, which may be hostile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from .errors import SourceError
from .text import MAX_NAME, clean

T = TypeVar("T")
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
_MAX_INTEGER = 2**64


class Reader:
    """One JSON object and its place in the document."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place, "an object", value)
        self.place = place
        self._values = value

    def has(self, key: str) -> bool:
        """Whether *key* is there at all: for fields added after version 1 was first spoken."""
        return key in self._values

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        """What *read* makes of *key*, or None where it is null."""
        return None if self._value(key) is None else read(key)

    def text(self, key: str, limit: int = MAX_NAME) -> str:
        """Text of one line, cleaned, at most *limit* characters."""
        return clean(self._text(key), limit)

    def lines(self, key: str, limit: int) -> str:
        """Text of several lines, each cleaned and at most *limit* characters."""
        return "\n".join(clean(line, limit) for line in self._text(key).split("\n")[:100])

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """One of *allowed*."""
        value = self._text(key)
        if value not in allowed:
            raise SourceError(f"{self.place}.{key}: must be one of {', '.join(allowed)}")
        return value

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._value(key)
        if not isinstance(value, bool):
            raise _wrong(f"{self.place}.{key}", "a boolean", value)
        return value

    def number(self, key: str) -> float:
        """A finite number, zero or more."""
        return _number(self._value(key), f"{self.place}.{key}")

    def integer(self, key: str, least: int = 0) -> int:
        """A whole number from *least* to 2^64."""
        return _count(self._value(key), f"{self.place}.{key}", least)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers, zero or more each."""
        items = enumerate(self._list(key))
        return tuple(_number(item, f"{self.place}.{key}[{at}]") for at, item in items)

    def texts(self, key: str, most: int, limit: int = MAX_NAME) -> tuple[str, ...]:
        """A list of lines of text, cleaned, of which the first *most* are taken."""
        found = []
        for at, item in enumerate(self._list(key)[:most]):
            if not isinstance(item, str):
                raise _wrong(f"{self.place}.{key}[{at}]", "text", item)
            found.append(clean(item, limit))
        return tuple(found)

    def counts(self, key: str) -> tuple[int | None, ...]:
        """A list of whole numbers from 0 to 2^64, or null where it is not known."""
        items = enumerate(self._list(key))
        return tuple(
            None if item is None else _count(item, f"{self.place}.{key}[{at}]")
            for at, item in items
        )

    def rows(self, key: str, width: int) -> list[tuple[int, ...]]:
        """A list of lists of *width* whole numbers from 0 to 2^64."""
        found = []
        for at, item in enumerate(self._list(key)):
            place = f"{self.place}.{key}[{at}]"
            if not isinstance(item, list):
                raise _wrong(place, "a list", item)
            if len(item) != width:
                raise SourceError(f"{place}: must have {width} numbers, not {len(item)}")
            found.append(tuple(_count(number, place) for number in item))
        return found

    def objects(self, key: str) -> Iterator[Reader]:
        """A list of objects."""
        for at, item in enumerate(self._list(key)):
            yield Reader(item, f"{self.place}.{key}[{at}]")

    def inner(self, key: str) -> Reader:
        """One object."""
        return Reader(self._value(key), f"{self.place}.{key}")

    def named(self, key: str) -> dict[str, Reader]:
        """An object whose values are objects, by cleaned key."""
        inner = self.inner(key)
        return {name: Reader(value, f"{inner.place}.{name}") for name, value in inner._cleaned()}

    def amounts(self, key: str) -> dict[str, float]:
        """An object whose values are finite numbers, zero or more, by cleaned key."""
        inner = Reader(self._value(key), f"{self.place}.{key}")
        return {name: _number(value, f"{inner.place}.{name}") for name, value in inner._cleaned()}

    def facts(self, key: str, limit: int) -> dict[str, float | int | str]:
        """An object whose values are finite numbers or text, by cleaned key."""
        inner = self.inner(key)
        found: dict[str, float | int | str] = {}
        for name, value in inner._cleaned():
            if isinstance(value, str):
                found[name] = clean(value, limit)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise _wrong(f"{inner.place}.{name}", "a number or text", value)
            else:
                _finite(value, f"{inner.place}.{name}")
                found[name] = value
        return found

    def _cleaned(self) -> Iterator[tuple[str, object]]:
        for name, value in self._values.items():
            if not isinstance(name, str):
                raise _wrong(f"{self.place}: a key", "text", name)
            yield clean(name), value

    def _value(self, key: str) -> object:
        if key not in self._values:
            raise SourceError(f"{self.place}.{key}: missing")
        return self._values[key]

    def _text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise _wrong(f"{self.place}.{key}", "text", value)
        return value

    def _list(self, key: str) -> list[object]:
        value = self._value(key)
        if not isinstance(value, list):
            raise _wrong(f"{self.place}.{key}", "a list", value)
        return value


def _count(value: object, place: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(place, "a whole number", value)
    if not least <= value <= _MAX_INTEGER:
        raise SourceError(f"{place}: must be from {least} to 2^64")
    return value


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(place, "a number", value)
    number = _finite(value, place)
    if number < 0:
        raise SourceError(f"{place}: must not be negative")
    return number


def _finite(value: float, place: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SourceError(f"{place}: must be a finite number")
    return number


def _wrong(place: str, wanted: str, found: object) -> SourceError:
    return SourceError(f"{place}: must be {wanted}, not {_NAMES.get(type(found), 'a number')}")
