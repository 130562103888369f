"""Counts what leaves by an interface with a packet socket: CAP_NET_RAW is all it takes.

The filter (`filter`) says in the kernel what a packet is, so a record in the ring is a length and
a time of day. The ring is looked through every few hundredths of a second, without any wake-up per
packet; the time in the record puts a packet into its slot however late that is. What found the ring
full is counted by the kernel, and here as `UNCLASSIFIED`: it passed the filter, more is not known.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import socket
import struct
import time
from collections import Counter as Tally
from collections.abc import Iterable

from ..kernel.layout import SLOT_NS
from ..model import UNCLASSIFIED
from .filter import CELLS, FRAGMENT, build
from .heard import PACKET, Heard

_SO_ATTACH_FILTER = 26
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _VNET_HDR = 5, 6, 10, 15
_TPACKET_V2 = 1
_ETH_P_ALL = 3
_HERE = 1  # TP_STATUS_USER
# A frame: the kernel's header, an address, the virtio header, and the few bytes let through.
_FRAME = 112
_BLOCK, _BLOCKS = 1 << 16, 32
_PER_BLOCK = _BLOCK // _FRAME
_STATUS = struct.Struct("=I")
_HEAD = struct.Struct("=4xIIHHII")  # length, captured, mac, net, seconds, nanoseconds
_VIRTIO = struct.Struct("=BBHHHH")  # flags, kind, linear part, segment, transport's offset, unused
_VIRTIO_UDP = 5
_TCP_HEADER, _UDP_HEADER = 32, 8  # TCP with time stamps, as Linux sends it
_TCP_LEAST, _TCP_MOST = 20, 60


class PacketCounter:
    """Counts one interface from the first packet after it was made.

    Args:
        interface: Its name, an Ethernet device.
        resolvers: Addresses of the VPC's resolver.

    Raises:
        PermissionError: Without CAP_NET_RAW.
        OSError: The kernel refuses for another reason.
    """

    mode = PACKET

    def __init__(self, interface: str, resolvers: Iterable[str]) -> None:
        self._stats = {"fragment": 0, "packet_dropped": 0}
        self._at = 0
        self._read_ns = time.monotonic_ns()
        # Protocol 0: it hears nothing until it is bound, when filter and ring are in their places.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.set_resolvers(resolvers)
            self._socket.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
            self._socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
            ring = struct.pack("=IIII", _BLOCK, _BLOCKS, _FRAME, _PER_BLOCK * _BLOCKS)
            self._socket.setsockopt(_SOL_PACKET, _RX_RING, ring)
            self._ring = mmap.mmap(self._socket.fileno(), _BLOCK * _BLOCKS)
            self._socket.bind((interface, _ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise

    @property
    def stats(self) -> dict[str, int]:
        """Later fragments, and packets that found the ring full."""
        return dict(self._stats)

    def set_resolvers(self, addresses: Iterable[str]) -> None:
        """Which addresses are resolvers from now on; no packet is missed meanwhile."""
        program = ctypes.create_string_buffer(build(addresses))
        head = struct.pack("@HL", (len(program) - 1) // 8, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def read(self) -> list[Heard]:
        """Everything since the last call, each packet in the slot of its own time."""
        seen: Tally[tuple[int, int]] = Tally()
        now_ns = time.monotonic_ns()
        # Records carry the time of day, which somebody may set: never outside of what it can be.
        ahead_ns = time.time_ns() - now_ns
        earliest = self._read_ns // SLOT_NS
        latest = now_ns // SLOT_NS
        self._read_ns = now_ns
        ring, most = self._ring, _PER_BLOCK * _BLOCKS
        for _ in range(most):  # once round at most: a flood does not hold the event loop
            place = self._at // _PER_BLOCK * _BLOCK + self._at % _PER_BLOCK * _FRAME
            # By itself and first: what else is in the frame is there when this says so.
            if not _STATUS.unpack_from(ring, place)[0] & _HERE:
                break
            length, captured, mac, _, seconds, nanoseconds = _HEAD.unpack_from(ring, place)
            slot = (seconds * 1_000_000_000 + nanoseconds - ahead_ns) // SLOT_NS
            header = _VIRTIO.unpack_from(ring, place + mac - _VIRTIO.size)
            packets = segments(length, header) if header[3] else 1
            seen[captured, min(max(slot, earliest), latest)] += packets
            _STATUS.pack_into(ring, place, 0)
            self._at = (self._at + 1) % most
        heard = []
        for (code, slot), packets in seen.items():
            if code == FRAGMENT:
                self._stats["fragment"] += packets
            else:
                heard.append(Heard(*CELLS[code - 1], packets, slot))
        lost = self._lost()
        if lost:
            self._stats["packet_dropped"] += lost
            heard.append(Heard(UNCLASSIFIED, "other", lost, latest))
        return heard

    def _lost(self) -> int:
        """Packets that found no room since the last time."""
        told = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        _, dropped = struct.unpack("=II", told)
        return int(dropped)

    def close(self) -> None:
        """Let go of the ring."""
        with contextlib.suppress(BufferError):
            self._ring.close()
        self._socket.close()


def segments(length: int, header: tuple[int, ...]) -> int:
    """How many packets one that the card (or the driver) will cut up is on the wire.

    Args:
        length: Of the whole, with its headers.
        header: What virtio says: flags, kind, length of the linear part, payload of each packet,
            offset of the transport header.
    """
    _, kind, linear, size, transport, _ = header
    if kind & 0x7F == _VIRTIO_UDP:
        headers = transport + _UDP_HEADER
    elif transport + _TCP_LEAST <= linear <= transport + _TCP_MOST:
        headers = linear  # as the kernel makes them: headers here, payload in pages
    else:
        headers = transport + _TCP_HEADER
    return max(1, -(-(length - headers) // size))
