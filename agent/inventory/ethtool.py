"""What an interface's driver says of itself, by the ethtool ioctl: its name and its statistics.

Sysfs would do on a host, but it shows the namespace it was mounted in, not the one we are in. The
ioctl asks the namespace of its socket, so one socket of a task's namespace reads the task's ENI.

A call asks the device and waits for it under the kernel's lock for links: once a second at most,
and in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Mapping

from ..errors import SourceError
from ..text import clean

ALLOWANCES = ("_allowance_exceeded", "_allowance_available")
"""How the names of ENA's own limits end; their number differs from driver to driver."""

MAX_STATISTICS = 65_536
_SLACK = 4096  # statistics of an ENA with the most queues there are: a count grows by no more
_ATTEMPTS = 3
_NAME_SIZE = 32
_IFNAMSIZ = 16
_SIOCETHTOOL = 0x8946
_GDRVINFO, _GSTRINGS, _GSTATS, _GSSET_INFO = 0x3, 0x1B, 0x1D, 0x37
_SS_STATS = 1
_ABSENT = {errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL}  # no ethtool, no interface, no such set
_Ioctl = Callable[[int, int, bytes], object]


class Ethtool:
    """Asks about the interfaces of one network namespace."""

    def __init__(self, control: socket.socket, ioctl: _Ioctl = fcntl.ioctl) -> None:
        """Ask nothing yet.

        Args:
            control: Any socket of that namespace; it stays the caller's to close.
            ioctl: What hands a command to the kernel.
        """
        self._control = control
        self._ioctl = ioctl

    def driver(self, interface: str) -> str | None:
        """Name of the kernel driver behind an interface; None when there is none to tell."""
        buffer = bytearray(struct.pack("=I192x", _GDRVINFO))
        try:
            self._command(interface, buffer)
        except OSError:
            return None
        return _text(buffer[4:36]) or None

    def allowances(self, interface: str) -> Mapping[str, int] | None:
        """ENA's counters of what AWS let through or did not, by the driver's own names.

        They count from the driver's last reset on. Where the device does not answer, the driver
        itself says 0 for all: a counter that falls tells nothing about drops.

        Returns:
            None where the driver has none of them, or no statistics at all. That is not zero.

        Raises:
            SourceError: They may well be there, but could not be read.
        """
        return self.statistics(interface, ALLOWANCES) or None

    def statistics(
        self, interface: str, endings: tuple[str, ...] = ("",)
    ) -> Mapping[str, int] | None:
        """The driver's statistics whose names end in one of *endings*; None when it has none.

        Raises:
            SourceError: They may well be there, but could not be read.
        """
        try:
            for _ in range(_ATTEMPTS):
                count = self._count(interface)
                if not count:
                    return None
                names = self._table(interface, _GSTRINGS, count, _NAME_SIZE)
                values = self._table(interface, _GSTATS, count, 8)
                if names is not None and values is not None:
                    return decode(names, values, endings)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise self._error(interface, error.strerror or str(error)) from None
        raise self._error(interface, "their number changes with every look")

    def _count(self, interface: str) -> int:
        buffer = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_STATS, 0))
        self._command(interface, buffer)
        (count,) = struct.unpack_from("=I", buffer, 16)  # stays 0 where there is no such set
        if count > MAX_STATISTICS:
            raise self._error(interface, f"{count} of them")
        return int(count)

    def _table(self, interface: str, command: int, count: int, size: int) -> bytes | None:
        """*count* entries of *size* bytes; None when there is another number of them by now."""
        # Kernels before 6.19 write as many entries as there are, however many were asked for:
        # queues that somebody adds between two calls would be written over this process's memory.
        # Later ones compare the count, and write none when it is wrong.
        head = (command, _SS_STATS, count) if command == _GSTRINGS else (command, count)
        start = 4 * len(head)
        buffer = bytearray(start + (count + _SLACK) * size)
        struct.pack_into(f"={len(head)}I", buffer, 0, *head)
        self._command(interface, buffer)
        (written,) = struct.unpack_from("=I", buffer, start - 4)
        return bytes(buffer[start : start + count * size]) if written == count else None

    def _command(self, interface: str, buffer: bytearray) -> None:
        """Have the kernel carry out the command in *buffer*, and answer in it."""
        name = interface.encode(errors="surrogatepass")
        if len(name) >= _IFNAMSIZ or b"\0" in name:  # cut, it would be another interface's
            raise OSError(errno.ENODEV, "no such interface")
        control = self._control.fileno()
        if control < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        data = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        ifreq = struct.pack("=16sQ16x", name, ctypes.addressof(data))
        self._ioctl(control, _SIOCETHTOOL, ifreq)

    @staticmethod
    def _error(interface: str, why: str) -> SourceError:
        return SourceError(f"statistics of {clean(interface)}: {why}")


def driver(interface: str) -> str | None:
    """Name of the kernel driver behind an interface of the namespace this thread is in."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            return Ethtool(control).driver(interface)
    except OSError:
        return None


def decode(names: bytes, values: bytes, endings: tuple[str, ...] = ("",)) -> dict[str, int]:
    """The two tables of the kernel as one, as far as names end in one of *endings*.

    Args:
        names: 32 bytes each, filled up with NUL.
        values: As many unsigned 64-bit numbers, of this machine's byte order.
        endings: All names end in "".
    """
    numbers = struct.unpack(f"={len(values) // 8}Q", values)
    found = {}
    for position, number in enumerate(numbers):
        name = _text(names[position * _NAME_SIZE : (position + 1) * _NAME_SIZE])
        if name.endswith(endings):
            found[name] = number
    return found


def _text(field: bytes | bytearray) -> str:
    return bytes(field).split(b"\0", 1)[0].decode(errors="replace")
