"""The instance metadata service (IMDSv2 only): which MAC is which ENI, in which VPC.

Every packet to it comes out of the same 1024 a second that eni53 watches, so one connection
serves a whole lookup, what cannot change is asked once, and nothing else is asked at all: a first
lookup is 3 requests and 2 for each ENI, a later one is 1. It does not decide when to look: an ENI
appearing or leaving does.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from ..errors import SourceError
from ..exchange import exchange
from ..text import clean
from .local_http import connect, prefix

MAX_BODY_BYTES = 64 * 1024
MAX_ENIS = 256
_TOKEN_TTL_S = 21600
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ENI_ID = re.compile(r"eni-[0-9a-f]{1,40}")
_INSTANCE_ID = re.compile(r"m?i-[0-9a-f]{1,40}")
_TOKEN = re.compile(r"[!-~]{1,1024}")


@dataclass(frozen=True, slots=True)
class ImdsEni:
    """One ENI as the metadata service knows it.

    Attributes:
        vpc_cidr: Primary IPv4 block of its VPC; None when the service names none (IPv6 only).
    """

    interface_id: str
    vpc_cidr: str | None


@dataclass(frozen=True, slots=True)
class ImdsFacts:
    """What one lookup found.

    Attributes:
        instance_id: None only when the service is turned off.
        enis: By lower-case MAC. One attached a moment ago may still be missing.
    """

    instance_id: str | None
    enis: Mapping[str, ImdsEni]


class Imds:
    """Asks one metadata service. Not for two threads at a time."""

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 1.0,
        total_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send nothing yet.

        Args:
            base_url: ``http://169.254.169.254``; empty turns every call into no packet at all.
            timeout_s: Seconds for connecting, and again for each whole answer.
            total_s: Seconds after which a call asks nothing more. What it has learned is kept.
            clock: Seconds, rising.
        """
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._total_s = total_s
        self._clock = clock
        self._ends_s = 0.0
        self._token = ""
        self._token_ends_s = 0.0
        self._instance_id: str | None = None
        self._known: dict[str, ImdsEni] = {}

    def lookup(self) -> ImdsFacts:
        """The instance and its ENIs as they are now.

        Raises:
            SourceError: No answer, or not one that can be believed.
        """
        if not self._base_url:
            return ImdsFacts(None, {})
        with self._connection() as connection:
            return self._lookup(connection)

    def interface(self, mac: str) -> ImdsEni | None:
        """One ENI, without a question about the others.

        None when the service does not know it: not yet, if the ENI was attached a moment ago.

        Raises:
            SourceError: No answer, or not one that can be believed.
        """
        mac = self._believed(MAC, mac.lower(), "MAC")
        if not self._base_url:
            return None
        with self._connection() as connection:
            return self._eni(connection, mac)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = connect("IMDS", self._base_url, self._timeout_s, ("http", "https"))
        self._ends_s = self._clock() + self._total_s
        with contextlib.closing(connection):
            yield connection

    def _lookup(self, connection: http.client.HTTPConnection) -> ImdsFacts:
        if self._instance_id is None:
            found = self._get(connection, "instance-id")
            self._instance_id = self._believed(_INSTANCE_ID, found, "instance id")
        listing = (self._get(connection, "network/interfaces/macs/") or "").split()
        macs = [self._believed(MAC, line.rstrip("/").lower(), "MAC") for line in listing]
        if len(macs) > MAX_ENIS:
            raise self._error(f"lists {len(macs)} ENIs, more than {MAX_ENIS}")
        found_enis = ((mac, self._eni(connection, mac)) for mac in macs)
        enis = {mac: eni for mac, eni in found_enis if eni is not None}
        self._known = dict(enis)
        return ImdsFacts(self._instance_id, enis)

    def _eni(self, connection: http.client.HTTPConnection, mac: str) -> ImdsEni | None:
        known = self._known.get(mac)
        if known is not None and known.vpc_cidr:
            return known
        path = f"network/interfaces/macs/{mac}"
        interface_id = (
            known.interface_id if known else self._get(connection, f"{path}/interface-id")
        )
        if interface_id is None:  # listed before its facts are there, or detached just now
            return None
        self._believed(_ENI_ID, interface_id, "ENI id")
        # The primary block, whatever others the VPC has: the resolver is in this one. It is asked
        # for again while there is none: a new ENI's facts arrive one by one.
        cidr = self._get(connection, f"{path}/vpc-ipv4-cidr-block")
        try:
            eni = ImdsEni(interface_id, str(IPv4Network(cidr)) if cidr else None)
        except ValueError:
            raise self._error(f"not an IPv4 block: {clean(cidr or '', 60)!r}") from None
        if len(self._known) >= MAX_ENIS:  # years of tasks, each with an ENI of its own
            self._known.pop(next(iter(self._known)))
        self._known[mac] = eni
        return eni

    def _get(self, connection: http.client.HTTPConnection, path: str) -> str | None:
        """The text at *path* under meta-data; None when there is none (404)."""
        fresh = not self._token or self._clock() >= self._token_ends_s
        if fresh:
            ends_s = self._clock() + _TOKEN_TTL_S
            self._token, self._token_ends_s = self._new_token(connection), ends_s
        status, text = self._exchange(connection, "GET", f"meta-data/{path}")
        if status == http.client.UNAUTHORIZED:
            self._token = ""
            if not fresh:
                return self._get(connection, path)
        if status == http.client.NOT_FOUND:
            return None
        if status != http.client.OK:
            raise self._error(f"status {status} for {path}")
        return text

    def _new_token(self, connection: http.client.HTTPConnection) -> str:
        try:
            status, text = self._exchange(connection, "PUT", "api/token")
        except SourceError as error:
            if isinstance(error.__cause__, TimeoutError):
                # The answer's hop limit is 1 by default; a bridged container is one hop more.
                hint = "outside the host's network, the metadata hop limit must be 2"
                raise SourceError(f"{error} ({hint})") from error
            raise
        if status == http.client.FORBIDDEN:
            raise self._error("it is turned off for this instance (status 403 for a token)")
        if status != http.client.OK:
            raise self._error(f"status {status} for a token")
        return self._believed(_TOKEN, text, "token")

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str
    ) -> tuple[int, str]:
        if self._clock() >= self._ends_s:
            raise self._error(f"not all answered within {self._total_s:g} s")
        headers = {"X-aws-ec2-metadata-token": self._token}
        if method == "PUT":
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
        target = f"{prefix(self._base_url)}/latest/{path}"
        status, body = exchange(
            connection, method, target, headers, who=self._who(), max_bytes=MAX_BODY_BYTES
        )
        return status, body.decode("ascii", "replace").strip()

    def _believed(self, pattern: re.Pattern[str], text: str | None, what: str) -> str:
        if text is None:
            raise self._error(f"no {what}")
        if not pattern.fullmatch(text):
            raise self._error(f"not {what}: {clean(text, 60)!r}")
        return text

    def _who(self) -> str:
        return f"IMDS at {clean(self._base_url)}"

    def _error(self, why: str) -> SourceError:
        return SourceError(f"{self._who()}: {why}")
