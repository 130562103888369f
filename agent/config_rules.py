"""What a setting may be: its type, the values allowed, and the form it is kept in.

Pure. `config` says which key follows which rule; nothing here knows a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "text": (str, Path),
    "list": (list, tuple),
    "table": (dict,),
}
_KEEP: Mapping[str, Callable[[Any], object]] = {
    "number": float,
    "list": lambda value: tuple(dict.fromkeys(value)),
    "table": lambda value: MappingProxyType(dict(value)),
}


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the agent serves HTTP: an IP address, and a port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one key may be.

    Attributes:
        kind: integer, number, boolean, text, list or table.
        allowed: The allowed values, in words for a person.
        passes: Whether a value of that kind is allowed; a ValueError means no.
        keep: The form it is kept in; None for the usual one of its kind.
    """

    kind: str
    allowed: str
    passes: Callable[[Any], bool]
    keep: Callable[[Any], object] | None = None

    def take(self, value: object) -> object:
        """The form of *value* that is kept.

        Raises:
            ValueError: It is of another type, or not allowed.
        """
        if isinstance(value, bool) != (self.kind == "boolean"):  # True would pass for the integer 1
            raise ValueError(value)
        if not isinstance(value, _TYPES[self.kind]):
            raise ValueError(value)
        plain = str(value) if self.kind == "text" else value
        if not self.passes(plain):
            raise ValueError(value)
        return (self.keep or _KEEP.get(self.kind, lambda same: same))(plain)

    def take_text(self, text: str) -> object:
        """As `take`, for the text of a variable or a flag: lists by comma, tables as k=v by comma.

        Raises:
            ValueError: It does not read as this kind, or is not allowed.
        """
        return self.take(_READ[self.kind](text))


def _integer(text: str) -> int:
    # int() alone also takes 1_0 and other alphabets' digits, which TOML and people do not mean.
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _boolean(text: str) -> bool:
    if text not in {"true", "false", "1", "0"}:
        raise ValueError(text)
    return text in {"true", "1"}


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _table(text: str) -> dict[str, int]:
    pairs = [item.rpartition("=") for item in _items(text)]
    table = {key.strip(): _integer(value.strip()) for key, _, value in pairs}
    if len(table) != len(pairs):  # the same key twice: which one was meant?
        raise ValueError(text)
    return table


_MAX_NAMES = 50
_DNS_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*", re.ASCII)
_READ: Mapping[str, Callable[[str], object]] = {
    "integer": lambda text: _integer(text.strip()),
    "number": float,
    "boolean": lambda text: _boolean(text.strip().lower()),
    "text": str,
    "list": _items,
    "table": _table,
}


def _is_dns_name(value: str) -> bool:
    name = value.removesuffix(".")
    return len(name) <= 253 and bool(_DNS_NAME.fullmatch(name))


def _has_ip(value: str) -> bool:
    parts = urlsplit(value)
    try:
        return (
            parts.scheme == "http" and "%" not in value and bool(ip_address(parts.hostname or ""))
        )
    except ValueError:
        return False


def _is_url(value: str) -> bool:
    # urlsplit drops tabs and newlines in silence, so they are refused before it sees them.
    if not value.isascii() or not value.isprintable() or " " in value:
        return False
    parts = urlsplit(value)
    port = 80 if parts.port is None else parts.port  # ValueError above 65535
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port > 0


def _are_addresses(value: list[object]) -> bool:
    # A zone (fe80::1%eth0) means nothing to the kernel's table of plain addresses.
    texts = [item for item in value if isinstance(item, str) and "%" not in item]
    versions = [ip_address(item).version for item in texts]
    within = max(versions.count(4), versions.count(6)) <= 6
    return within and len(texts) == len(value)


def _is_interface(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[^\s/\0]{1,127}", name) is not None


def _is_limit(label: object, pps: object) -> bool:
    known = isinstance(label, str) and re.fullmatch(r"(eni-|mac:)\S{1,60}", label) is not None
    return known and type(pps) is int and 1 <= pps <= 1_000_000


def _is_path(value: str) -> bool:
    # The kernel's sockaddr_un holds 107 bytes: a longer path could never be connected to.
    return value.startswith("/") and "\0" not in value and len(value.encode()) <= 107


def _listen(value: str) -> Listen:
    match = re.fullmatch(r"([\d.]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", value, re.ASCII)
    if not match or int(match[2]) > 65535:
        raise ValueError(value)
    address = ip_address(match[1].strip("[]"))
    if (address.version == 6) != match[1].startswith("["):
        raise ValueError(value)
    return Listen(str(address), int(match[2]))


def whole(low: int, high: int) -> Rule:
    """An integer between *low* and *high*, both allowed."""
    return Rule("integer", f"an integer from {low} to {high}", lambda value: low <= value <= high)


def one_of(*choices: str) -> Rule:
    """One of a few words."""
    return Rule("text", " or ".join(f'"{choice}"' for choice in choices), choices.__contains__)


RATIO = Rule("number", "a number above 0 and at most 1", lambda value: 0 < value <= 1)
SECONDS = Rule("number", "a number of seconds from 0 to 3600", lambda value: 0 <= value <= 3600)
SWITCH = Rule("boolean", "true or false", lambda value: isinstance(value, bool))
URL = Rule("text", 'an http:// or https:// URL, or ""', lambda value: not value or _is_url(value))
# A host name would be looked up before each question, by the tool that watches such look-ups.
NODE_URL = Rule(
    "text",
    'an http:// URL with an IP address, or ""',
    lambda value: not value or (_is_url(value) and _has_ip(value)),
)
SOCKET = Rule(
    "text",
    'an absolute path of at most 107 bytes, or ""',
    lambda value: not value or _is_path(value),
)
DIRECTORY = Rule("text", "a path", lambda value: bool(value) and "\0" not in value, Path)
LISTEN = Rule(
    "text",
    "ADDR:PORT with an IP address, such as 127.0.0.1:9153 or [::1]:9153",
    lambda value: bool(_listen(value)),
    _listen,
)
INTERFACES = Rule(
    "list", "a list of interface names", lambda value: all(_is_interface(item) for item in value)
)
ADDRESSES = Rule(
    "list",
    "a list of IP addresses, at most 6 IPv4 and 6 IPv6",
    _are_addresses,
    lambda value: tuple(dict.fromkeys(str(ip_address(v)) for v in value)),
)
DNS_NAMES = Rule(
    "list",
    "a list of at most 50 names of letters, digits, hyphens and underscores by dots",
    lambda value: len(value) <= _MAX_NAMES and all(map(_is_dns_name, value)),
    lambda value: tuple(dict.fromkeys(name.lower().removesuffix(".") for name in value)),
)
PER_ENI = Rule(
    "table",
    "a table of eni-… or mac:… to an integer from 1 to 1000000",
    lambda value: all(_is_limit(*item) for item in value.items()),
)
