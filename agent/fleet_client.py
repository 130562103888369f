"""Instant queries to a Prometheus server, or to whatever speaks its HTTP API.

Whoever answers is not trusted: its answer is bounded in time and size and read strictly, its labels
are cleaned, and nothing it says can end a command in more than one line.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlencode, urlsplit

from .errors import NeedError, SourceError, UsageError
from .exchange import exchange
from .text import clean

TIMEOUT_S = 30.0
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_SAMPLES = 20_000
_MAX_NAME = 600  # as sinks.metrics has it
_MAX_VALUES = 400_000  # eight megabytes of empty lists would become two hundred in memory
_CREDENTIALS = re.compile(r"//[^/]*@")


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector.

    Attributes:
        labels: Cleaned; the metric's name is ``__name__``.
        value: None where it is not a finite number.
        time_s: When it was evaluated, seconds since the epoch.
    """

    labels: Mapping[str, str]
    value: float | None
    time_s: float


class Prometheus:
    """A server, asked over one connection.

    Args:
        url: ``http://`` or ``https://``, perhaps ``USER:PASSWORD@`` before the host, perhaps a path
            that the API stands under. Credentials never appear in an error.
        timeout_s: Seconds for connecting, and again for each whole answer.

    Raises:
        UsageError: *url* is not such a URL.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.shown = clean(_CREDENTIALS.sub("//", url))
        try:
            # http.client sends the path as it is, and urlsplit would drop control characters.
            if not url.isascii() or not url.isprintable() or " " in url:
                raise ValueError(url)
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
                raise ValueError(url)
            host.encode("idna")  # what getaddrinfo would raise UnicodeError for, much later
        except ValueError:
            raise UsageError(
                f"--prometheus: not an http:// or https:// URL: {self.shown}; for instance"
                " http://127.0.0.1:9090"
            ) from None
        make = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = make(host, port, timeout=timeout_s)
        self._path = parts.path.rstrip("/") + "/api/v1/query?"
        self._headers = {"Accept": "application/json"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"

    def __enter__(self) -> Self:
        """Nothing to open: the first question does."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.close()

    def query(self, expression: str, time_s: float | None = None) -> list[Sample]:
        """The instant vector that *expression* is at *time_s*, or now.

        Raises:
            NeedError: One line: the server is down, slow, refuses, or is no Prometheus.
        """
        asked = {"query": expression} | ({} if time_s is None else {"time": f"{time_s:.3f}"})
        who = f"Prometheus at {self.shown}"
        try:
            status, body = exchange(
                self._connection,
                "GET",
                self._path + urlencode(asked),
                self._headers,
                who=who,
                max_bytes=MAX_BODY_BYTES,
            )
        except SourceError as error:
            raise NeedError(f"{clean(str(error), 400)}; is --prometheus right?") from None
        if status in {401, 403}:
            raise NeedError(f"{who}: status {status}; give it as http://USER:PASSWORD@HOST")
        if 300 <= status < 400:
            raise NeedError(f"{who}: status {status}; give the address that it leads to")
        return _samples(status, body, who)


def _samples(status: int, body: bytes, who: str) -> list[Sample]:
    stranger = NeedError(
        f"{who}: what answers there (status {status}) is not Prometheus; give the address whose"
        " /api/v1/query is Prometheus'"
    )
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise NeedError(
            f"{who}: an answer of more than {_MAX_VALUES} values; use a smaller --limit"
        )
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise stranger from None
    if not isinstance(answer, dict):
        raise stranger
    if answer.get("status") == "error" and isinstance(answer.get("error"), str):
        raise NeedError(f"{who} refused the query: {clean(answer['error'], 200)}")
    data = answer.get("data")
    if answer.get("status") != "success" or not isinstance(data, dict):
        raise stranger
    found = data.get("result")
    if data.get("resultType") != "vector" or not isinstance(found, list):
        raise stranger
    samples = [_sample(item) for item in found[:MAX_SAMPLES]]
    if None in samples:
        raise stranger
    return [sample for sample in samples if sample is not None]


def _sample(item: object) -> Sample | None:
    if not isinstance(item, dict):
        return None
    metric, pair = item.get("metric"), item.get("value")
    if not isinstance(metric, dict) or not isinstance(pair, Sequence) or len(pair) != 2:
        return None
    time_s, text = pair
    if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not isinstance(text, str):
        return None
    labels = {
        clean(name): clean(value, _MAX_NAME)
        for name, value in metric.items()
        if isinstance(value, str)
    }
    try:
        value, time_s = float(text), float(time_s)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(time_s) or not 0 <= time_s < 1e11:
        return None
    return Sample(labels, value if math.isfinite(value) else None, time_s)
