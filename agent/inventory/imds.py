"""The instance metadata service (IMDSv2 only): which MAC is which ENI, in which VPC.

Every packet to it comes out of the same 1024 a second that eni53 watches, so one connection
serves a whole lookup, what cannot change is asked once, and nothing else is asked at all. It does
not decide when to look: an ENI appearing or leaving does.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from urllib.parse import urlsplit

from ..errors import SourceError
from ..text import clean
from .exchange import exchange

MAX_BODY_BYTES = 64 * 1024
MAX_ENIS = 256
_TOKEN_TTL_S = 21600
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
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

    def __init__(self, base_url: str, timeout_s: float = 1.0) -> None:
        """Send nothing yet.

        Args:
            base_url: ``http://169.254.169.254``; empty turns every lookup into no packet at all.
            timeout_s: Seconds for each whole answer.
        """
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._token = ""
        self._instance_id: str | None = None
        self._known: dict[str, ImdsEni] = {}

    def lookup(self) -> ImdsFacts:
        """The instance and its ENIs as they are now.

        Raises:
            SourceError: No answer, or not one that can be believed.
        """
        if not self._base_url:
            return ImdsFacts(None, {})
        try:
            parts = urlsplit(self._base_url)
            # http.client would take localhost for no host, and urlsplit drops control characters.
            if not parts.hostname or not self._base_url.isprintable():
                raise ValueError(self._base_url)
            https = parts.scheme == "https"
            kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
            connection = kind(parts.hostname, parts.port, timeout=self._timeout_s)
        except (ValueError, http.client.InvalidURL):
            raise SourceError(f"IMDS: not a URL: {clean(self._base_url)}") from None
        try:
            return self._lookup(connection)
        finally:
            connection.close()

    def _lookup(self, connection: http.client.HTTPConnection) -> ImdsFacts:
        if self._instance_id is None:
            found = self._get(connection, "instance-id")
            self._instance_id = self._believed(_INSTANCE_ID, found, "instance id")
        listing = (self._get(connection, "network/interfaces/macs/") or "").split()
        macs = [self._believed(_MAC, line.rstrip("/").lower(), "MAC") for line in listing]
        if len(macs) > MAX_ENIS:
            raise self._error(f"lists {len(macs)} ENIs, more than {MAX_ENIS}")
        enis: dict[str, ImdsEni] = {}
        for mac in macs:
            eni = self._known.get(mac) or self._eni(connection, mac)
            if eni is not None:
                enis[mac] = eni
        # One without a CIDR is asked for again next time: a new ENI's facts arrive one by one.
        self._known = {mac: eni for mac, eni in enis.items() if eni.vpc_cidr}
        return ImdsFacts(self._instance_id, enis)

    def _eni(self, connection: http.client.HTTPConnection, mac: str) -> ImdsEni | None:
        interface_id = self._get(connection, f"network/interfaces/macs/{mac}/interface-id")
        if interface_id is None:  # listed before its facts are there, or detached just now
            return None
        self._believed(_ENI_ID, interface_id, "ENI id")
        cidr = self._get(connection, f"network/interfaces/macs/{mac}/vpc-ipv4-cidr-block")
        try:
            return ImdsEni(interface_id, str(IPv4Network(cidr)) if cidr else None)
        except ValueError:
            raise self._error(f"not an IPv4 block: {clean(cidr or '', 60)!r}") from None

    def _get(self, connection: http.client.HTTPConnection, path: str) -> str | None:
        """The text at *path* under meta-data; None when there is none (404)."""
        fresh = not self._token
        if fresh:
            self._token = self._new_token(connection)
        status, text = self._exchange(connection, "GET", f"meta-data/{path}")
        if status == http.client.UNAUTHORIZED and not fresh:
            self._token = ""
            return self._get(connection, path)
        if status == http.client.NOT_FOUND:
            return None
        if status != http.client.OK:
            self._token = ""
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
        headers = {"X-aws-ec2-metadata-token": self._token}
        if method == "PUT":
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
        target = f"{urlsplit(self._base_url).path.rstrip('/')}/latest/{path}"
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
