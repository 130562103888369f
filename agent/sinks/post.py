"""One POST to somebody who is to be told, bounded in time."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Collection, Mapping
from contextlib import closing
from urllib.parse import SplitResult, urlsplit

from ..errors import SourceError
from ..exchange import TimedResponse, failure
from ..text import clean

TIMEOUT_S = 5.0
"""For connecting, and again for the whole answer."""


def post(
    who: str,
    url: str,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    also: Collection[int] = (),
) -> None:
    """POST *body* as JSON. Redirects are not followed: an alert goes where it was told to.

    Args:
        who: In the error's line.
        url: http or https.
        body: What becomes JSON.
        headers: Further ones.
        context: For https; None trusts whom the system trusts.
        also: Further statuses that are good.

    Raises:
        SourceError: No answer in time, or neither 2xx nor one of *also*.
    """
    parts = urlsplit(url)
    shown = f"{who} at {clean(parts.hostname or '')}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = json.dumps(body).encode()
    try:
        with closing(_connection(parts, context)) as connection:
            connection.response_class = TimedResponse
            every = {"Content-Type": "application/json", **(headers or {})}
            connection.request("POST", target, data, every)
            with connection.getresponse() as response:
                status = response.status
    except (OSError, http.client.HTTPException) as error:
        raise failure(shown, error, TIMEOUT_S) from error.with_traceback(None)
    except ValueError:  # its text may hold the header, and that a token
        raise SourceError(f"{shown}: not a host name or header that can be sent") from None
    if status not in also and not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        raise SourceError(f"{shown}: status {status}")


def _connection(parts: SplitResult, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    # Always with a port: of an IPv6 address without one, http.client takes the last group for it.
    if parts.scheme == "https":
        context = context or ssl.create_default_context()
        port = parts.port or http.client.HTTPS_PORT
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, parts.port or http.client.HTTP_PORT, timeout=TIMEOUT_S)
