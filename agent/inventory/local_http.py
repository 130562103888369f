"""HTTP services of this node, at an address: the metadata service, the ECS agent, the VPC CNI.

An address, never a name: looking one up would put DNS packets on the ENI whose packets are counted,
and a lookup that fails would blame the service for what is wrong with the resolver.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Collection, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..errors import SourceError
from ..exchange import exchange
from ..text import clean

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_VALUES = 200_000
"""Of a JSON answer. Eight megabytes of empty lists would become two hundred in memory."""


def connect(
    service: str, base_url: str, timeout_s: float, schemes: Collection[str] = ("http",)
) -> http.client.HTTPConnection:
    """A connection that is opened by its first request, without any proxy.

    Raises:
        SourceError: *base_url* is none, of another scheme, or has a name for its host.
    """
    try:
        # urlsplit drops control characters; http.client sends the path, and takes ASCII only.
        if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
            raise ValueError(base_url)
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in schemes or not host:
            raise ValueError(base_url)
    except ValueError:
        usable = " or ".join(f"{scheme}://" for scheme in schemes)
        raise SourceError(f"{service}: not an {usable} URL: {clean(base_url)}") from None
    try:
        if "%" in host:  # a zone stays %25 here, and that the C library would take for a name
            raise ValueError(host)
        ip_address(host)
    except ValueError:
        raise SourceError(
            f"{service}: {clean(base_url)} has no IP address: a name would be asked of DNS"
        ) from None
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def prefix(base_url: str) -> str:
    """What every path at *base_url* begins with: ``/proxy``, mostly nothing."""
    return urlsplit(base_url).path.rstrip("/")


@contextlib.contextmanager
def asking(service: str, base_url: str, timeout_s: float) -> Iterator[Callable[[str], object]]:
    """Give a function from a path to the JSON that is there, all over one connection.

    Args:
        service: Begins the line of every error.
        base_url: ``http://``, an IP address, perhaps a port and a prefix.
        timeout_s: Seconds for connecting, and again for each whole answer.

    Raises:
        SourceError: Not such a URL. So does the function, when no answer comes, or not a good one.
    """
    connection = connect(service, base_url, timeout_s)
    who = f"{service} at {clean(base_url)}"

    def get(path: str) -> object:
        status, body = exchange(
            connection, "GET", prefix(base_url) + path, {}, who=who, max_bytes=MAX_BODY_BYTES
        )
        if status != http.client.OK:
            raise SourceError(f"{who}: status {status} for {path}")
        return _json(body, who)

    with contextlib.closing(connection):
        yield get


def _json(body: bytes, who: str) -> object:
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise SourceError(f"{who}: an answer of more than {MAX_VALUES} values")
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{who}: not JSON: {clean(str(error), 80)}") from None
    return found
