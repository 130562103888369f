"""Senders as the kernel packs them, made into keys once and not at every look."""

from __future__ import annotations

from ..model import CLASSES, PROTOCOLS
from ..sample import SenderKey
from . import layout

_PACKER = layout.SENDER_KEY.packer


class SenderKeys:
    """The key of each sender; the same object for as long as looks find it there."""

    def __init__(self) -> None:
        self._before: dict[bytes, SenderKey] = {}
        self._now: dict[bytes, SenderKey] = {}

    def begin(self) -> None:
        """A look begins: who is not found by its end is forgotten with the next."""
        self._before, self._now = self._now, {}

    def of(self, packed: bytes) -> SenderKey:
        """The key of *packed*, which is laid out as `layout.SENDER_KEY` says."""
        key = self._now.get(packed)
        if key is None:
            key = self._now[packed] = self._before.get(packed) or _unpacked(packed)
        return key


def _unpacked(packed: bytes) -> SenderKey:
    cgroup, dev, ingress, vlan, origin, asker, klass, protocol = _PACKER.unpack(packed)
    return SenderKey(dev, vlan, origin, ingress, cgroup, CLASSES[klass], PROTOCOLS[protocol], asker)
