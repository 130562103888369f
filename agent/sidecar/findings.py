"""What the sidecar has to say of its own numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import UNCLASSIFIED, Finding
from ..sample import Sample
from .heard import UDP_COUNTERS


def sidecar_findings(mode: str, eni: str, sample: Sample) -> Iterator[Finding]:
    """That it is an upper bound, or that some packets were counted without being looked at."""
    unclassified = sum(
        count for key, count in sample.senders.items() if key.packet_class == UNCLASSIFIED
    )
    if mode == UDP_COUNTERS:
        yield Finding(
            "upper-bound",
            "info",
            f"{eni}: without CAP_NET_RAW all UDP that the task has sent is counted, wherever to:"
            " its DNS over UDP is at most that; TCP, the metadata service's too, is not seen",
            eni=eni,
            evidence={"udp_datagrams": unclassified},
            remedy="run the sidecar as root and leave it NET_RAW, which Docker gives by default",
        )
    elif unclassified:
        yield Finding(
            "packets-unread",
            "warning",
            f"{eni}: {unclassified} packets to port 53 or a link-local service came faster than"
            ' they could be read: they are counted as "unclassified"',
            eni=eni,
            evidence={"packets": unclassified},
            remedy="give the sidecar more processor time",
        )
