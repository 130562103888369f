"""What a resolv.conf says, as glibc reads it. Pure; whoever wrote it may have meant harm.

Only what is an address, a domain name or a known option comes out: a file that is none, reached by
a link, tells nothing of itself.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from ..model import ResolvConf

MAX_BYTES = 4096
MAX_NAMESERVERS = 3  # glibc's MAXNS: further ones are never asked
MAX_SEARCH = 32  # of Kubernetes; old glibc takes six
NOBODY = "127.0.0.1"
"""Whom libc asks when the file names no server."""
_OTHERS = frozenset({"", "search", "domain", "options", "sortlist"})
_HIGHEST = {"ndots": 15, "timeout": 30, "attempts": 5}  # glibc's own caps
_FLAGS = frozenset({"rotate", "single-request", "single-request-reopen", "no-aaaa", "use-vc"})
_DOMAIN = re.compile(r"[0-9a-z_-]{1,63}(\.[0-9a-z_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse(data: bytes) -> ResolvConf | None:
    """What *data* says; None when it names no server and is not known to be a whole resolv.conf.

    What is beyond `MAX_BYTES` is not looked at, nor is a line that is cut there.
    """
    certain = len(data) <= MAX_BYTES
    if not certain:
        data = data[:MAX_BYTES].rpartition(b"\n")[0]
    servers: list[str] = []
    search: tuple[str, ...] = ()
    numbers: dict[str, int] = {}
    flags: set[str] = set()
    for line in data.decode("utf-8", "replace").split("\n"):
        keyword, *words = line.split() or ("",)
        if not line.startswith(keyword):  # libc wants it in the first column
            certain = False
            continue
        if keyword not in _OTHERS and keyword[0] not in "#;":
            certain = False
        if keyword == "nameserver" and words and len(servers) < MAX_NAMESERVERS:
            servers += _address(words[0])
        elif keyword in {"search", "domain"}:  # whichever comes last holds
            search = tuple(_domains(words if keyword == "search" else words[:1]))
        elif keyword == "options":
            for word in words:
                name, _, value = word.partition(":")
                if name in _HIGHEST and _NUMBER.fullmatch(value):
                    numbers[name] = min(int(value), _HIGHEST[name])
                elif word in _FLAGS:
                    flags.add(word)
    if not servers and not certain:
        return None
    return ResolvConf(
        nameservers=tuple(servers) or (NOBODY,),
        search=search,
        ndots=numbers.get("ndots"),
        timeout=numbers.get("timeout"),
        attempts=numbers.get("attempts"),
        flags=tuple(sorted(flags)),
    )


def _address(word: str) -> list[str]:
    """*word* as an address in its shortest form, without the link it is to be reached by."""
    try:
        return [str(ip_address(word.partition("%")[0]))]
    except ValueError:
        return []


def _domains(words: list[str]) -> list[str]:
    found = (word.lower().rstrip(".") for word in words)
    good = [name for name in found if len(name) <= 253 and _DOMAIN.fullmatch(name)]
    return good[:MAX_SEARCH]
