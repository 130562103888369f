"""A pod's annotation ``vpc.amazonaws.com/pod-eni``: the branch ENI it has to itself. Pure.

AWS's controller writes it, but whoever may edit the pod can change it: nothing in it is believed
beyond its form.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address

ANNOTATION = "vpc.amazonaws.com/pod-eni"
MAX_TEXT = 64 * 1024
MAX_ENIS = 64
ENI_ID = re.compile(r"eni-[0-9a-f]{8,17}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_VLAN = 4094


@dataclass(frozen=True, slots=True)
class BranchEni:
    """One branch ENI.

    Attributes:
        mac: In lower case.
        vlan: VLAN id on the trunk, 1 to 4094.
        address: Its IPv4 address, else its IPv6 address; None when it has neither.
    """

    eni_id: str
    mac: str
    vlan: int
    address: str | None


def parse_pod_eni(annotation: str) -> tuple[BranchEni, ...]:
    """The branch ENIs in the annotation's text; empty when it is nonsense, which costs nothing."""
    if len(annotation) > MAX_TEXT:
        return ()
    try:
        entries = json.loads(annotation)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(entries, list):
        return ()
    found = (_branch(entry) for entry in entries[:MAX_ENIS])
    return tuple(eni for eni in found if eni is not None)


def _branch(entry: object) -> BranchEni | None:
    if not isinstance(entry, dict):
        return None
    # AWS writes vlanId in one place and vlanID in another; its reader takes either.
    facts = {key.lower(): value for key, value in entry.items()}
    eni_id, vlan = facts.get("eniid"), facts.get("vlanid")
    mac = str(facts.get("ifaddress")).lower()
    if not isinstance(eni_id, str) or not ENI_ID.fullmatch(eni_id) or not _MAC.fullmatch(mac):
        return None
    if type(vlan) is not int or not 1 <= vlan <= _MAX_VLAN:  # true is an int to isinstance
        return None
    address = plain_address(facts.get("privateip")) or plain_address(facts.get("ipv6addr"))
    return BranchEni(eni_id, mac, vlan, address)


def plain_address(text: object) -> str | None:
    """An IPv4 or IPv6 address in its usual form, without a zone (which may hold any text)."""
    try:
        return str(ip_address(text)) if isinstance(text, str) and "%" not in text else None
    except ValueError:
        return None
