"""The VPC CNI's introspection: which ENI each pod's address is on, and which ENI is a trunk.

A pod's packet to VPC+2 leaves by the ENI that has the pod's address, and only the CNI's own
daemon knows that without a question to AWS. It listens on the host's loopback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..errors import SourceError
from ..text import clean
from .docker_shapes import member, shaped
from .local_http import asking
from .names import MAX_PART
from .pod_eni import ENI_ID, plain_address

DEFAULT_URL = "http://127.0.0.1:61679"
MAX_ENIS = 256
MAX_ADDRESSES = 4096
_SERVICE = "VPC CNI"


@dataclass(frozen=True, slots=True)
class PodAddress:
    """Where a pod's address is, and whose it is."""

    eni_id: str
    namespace: str
    pod: str


@dataclass(frozen=True, slots=True)
class CniFacts:
    """What the CNI's daemon says.

    Attributes:
        trunks: Ids of the ENIs that carry branch ENIs.
        primary: Id of the instance's primary ENI; None when not exactly one is called so.
        addresses: By IPv4 or IPv6 address, those that a pod has now. Pods with a branch ENI, and
            those in the host's network, are not here.
    """

    trunks: frozenset[str]
    primary: str | None
    addresses: Mapping[str, PodAddress]


class CniIntrospection:
    """Asks the VPC CNI's daemon. Every call blocks."""

    def __init__(self, base_url: str = DEFAULT_URL, timeout_s: float = 2.0) -> None:
        """Send nothing yet.

        Args:
            base_url: Where it listens; empty turns every call into no request at all.
            timeout_s: Seconds for connecting, and again for the whole answer.
        """
        self._base_url = base_url
        self._timeout_s = timeout_s

    def enis(self) -> CniFacts:
        """The ENIs that it manages and the addresses that it has given out; odd addresses left out.

        Raises:
            SourceError: No answer, or not the VPC CNI's.
        """
        if not self._base_url:
            return CniFacts(frozenset(), None, {})
        with asking(_SERVICE, self._base_url, self._timeout_s) as get:
            answer = get("/v1/enis")
        try:
            return to_facts(answer)
        except ValueError as error:
            who = f"{_SERVICE} at {clean(self._base_url)}"
            raise SourceError(f"{who}: not its list of ENIs: {clean(str(error), 80)}") from None


def to_facts(answer: object) -> CniFacts:
    """The answer of ``/v1/enis``, of any version.

    Raises:
        ValueError: It has another shape, or is longer than any node's.
    """
    trunks, primaries, addresses = set(), set(), {}
    for number, (eni_id, eni) in enumerate(_enis(answer)):
        if number == MAX_ENIS:
            raise ValueError(f"more than {MAX_ENIS} ENIs")
        if member(eni, "IsTrunk", bool):
            trunks.add(eni_id)
        if member(eni, "IsPrimary", bool):
            primaries.add(eni_id)
        for address, pod in _addresses(eni_id, eni):
            addresses[address] = pod
            if len(addresses) > MAX_ADDRESSES:
                raise ValueError(f"more than {MAX_ADDRESSES} addresses")
    return CniFacts(frozenset(trunks), primaries.pop() if len(primaries) == 1 else None, addresses)


def _enis(answer: object) -> Iterator[tuple[str, dict[str, object]]]:
    """The ENIs by id: of every network card, or of the only list that older versions have."""
    top = shaped(answer, dict)
    cards = [top] if "ENIs" in top else list(top.values())
    if not cards:
        raise ValueError("no network card in it")
    for card in cards:
        if "ENIs" not in shaped(card, dict):
            raise ValueError("no ENIs in it")
        for eni_id, eni in member(card, "ENIs", dict).items():
            if ENI_ID.fullmatch(eni_id) and isinstance(eni, dict):
                yield eni_id, eni


def _addresses(eni_id: str, eni: dict[str, object]) -> Iterator[tuple[str, PodAddress]]:
    for family in ("AvailableIPv4Cidrs", "IPv6Cidrs"):
        for block in member(eni, family, dict).values():
            for key, facts in member(block, "IPAddresses", dict).items():
                address = plain_address(key)
                with contextlib.suppress(ValueError):
                    found = _pod(eni_id, facts)
                    if address and found:
                        yield address, found


def _pod(eni_id: str, facts: object) -> PodAddress | None:
    """Who has the address; None when nobody has.

    Raises:
        ValueError: It has another shape.
    """
    owner = member(facts, "IPAMMetadata", dict)
    namespace = clean(member(owner, "k8sPodNamespace", str), MAX_PART)
    pod = clean(member(owner, "k8sPodName", str), MAX_PART)
    if not namespace or not pod or _released(facts):
        return None
    return PodAddress(eni_id, namespace, pod)


def _released(facts: object) -> bool:
    # An address rests half a minute before another pod gets it; both times stay from its past.
    assigned, released = member(facts, "AssignedTime", str), member(facts, "UnassignedTime", str)
    return bool(released) and (not assigned or _time(released) > _time(assigned))


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:  # one of each kind cannot be compared
        raise ValueError("a time without a zone")
    return when
