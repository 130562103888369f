"""Reads the BPF ring buffer by which the kernel side wakes the agent.

libbpf does the same in C; it comes with BCC, and with BCC comes LLVM. The layout is the kernel's:
a page that the reader writes (how far it has read), a page that the kernel writes (how far it has
written), and the data, mapped twice in a row so that no record is cut at the end.
"""

from __future__ import annotations

import mmap
import struct

_PAGE = mmap.PAGESIZE
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
# Native, for these are copied whole: "=" goes byte by byte, and the kernel writes meanwhile.
_POSITION = struct.Struct("@Q")
_LENGTH = struct.Struct("@I")


class Ring:
    """One ring buffer; ready to be read when its descriptor is.

    Args:
        fd: Descriptor of the map; it stays the caller's to close.
        size: Bytes of data it holds.
    """

    PAGE = mmap.PAGESIZE

    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._reader = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # Not struct.pack_into(), which makes zeros first: the kernel, should it look just then,
        # sees a reader that has read nothing, takes the ring for full, and the record is lost.
        self._read_to = memoryview(self._reader).cast("Q")
        self._data = mmap.mmap(fd, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)

    def close(self) -> None:
        """Unmap it."""
        self._read_to.release()
        self._reader.close()
        self._data.close()

    def read(self) -> list[bytes]:
        """Every record that is complete, of those that were there when it was called."""
        records = []
        at = begin = self._read_to[0]
        (end,) = _POSITION.unpack_from(self._data, 0)
        while at < end:
            start = _PAGE + at % self._size
            (length,) = _LENGTH.unpack_from(self._data, start)
            if length & _BUSY:
                break  # its writer will wake us again
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                records.append(self._data[start + _HEADER : start + _HEADER + size])
            at += (size + _HEADER + 7) & ~7
        if at != begin:
            self._read_to[0] = at
        return records
