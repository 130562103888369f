"""Protobuf's wire format, as much of it as a few requests and answers need. Pure.

A decoded message is a `Fields`: every value of every field number, in order. What a field means is
known to whoever asks. Other people choose labels and annotations, so the number of fields is
bounded, and what nobody asks for is stepped over and not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

Fields = Mapping[int, list[int | bytes]]
"""Numbers as unsigned integers, all else as bytes; a field that is absent is at its default."""

MAX_FIELDS = 65536
"""In one message: more than a pod's 256 KiB of annotations can make."""

MAX_TEXT = 1024
"""Characters of a text, as in docker_shapes: longer ones are cut."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}


def decode(data: bytes, wanted: Collection[int] | None = None) -> Fields:
    """The fields of one message.

    Args:
        data: The whole message.
        wanted: Only these field numbers are kept; all of them without it.

    Raises:
        ValueError: It is cut, has more than `MAX_FIELDS` fields, or is not protobuf.
    """
    fields: dict[int, list[int | bytes]] = {}
    at, end, left = 0, len(data), MAX_FIELDS
    while at < end:
        if not left:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        left -= 1
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, start = _varint(data, at)
            at = start + size
            value = data[start:at] if wanted is None or number in wanted else b""
        elif kind in _FIXED_SIZE:
            start, at = at, at + _FIXED_SIZE[kind]
            value = int.from_bytes(data[start:at], "little")
        else:  # groups: no proto3 message has them
            raise ValueError(f"wire type {kind}")
        if at > end:
            raise ValueError("a field is cut short")
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if wanted is None or number in wanted:
            fields.setdefault(number, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at *at*, and where it ends."""
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
    except IndexError:
        raise ValueError("a number is cut short") from None
    if value >> 64:
        raise ValueError("a number of more than 64 bits")
    return value, at


def number(fields: Fields, field: int) -> int:
    """A number; 0 when absent.

    Raises:
        ValueError: It is no number. The others below likewise.
    """
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def messages(fields: Fields, field: int) -> list[bytes]:
    """Every value of a field that is not a number, still encoded; empty when absent."""
    found = []
    for value in fields.get(field, []):
        if isinstance(value, int):
            raise ValueError(f"field {field} is a number")
        found.append(value)
    return found


def message(fields: Fields, field: int, wanted: Collection[int] | None = None) -> Fields:
    """A message within the message; one without fields when absent."""
    return decode((messages(fields, field) or [b""])[-1], wanted)


def text(fields: Fields, field: int, limit: int = MAX_TEXT) -> str:
    """A text as its sender wrote it, cut to *limit* characters; empty when absent."""
    raw = (messages(fields, field) or [b""])[-1]
    return raw[: 4 * limit].decode(errors="replace")[:limit]  # 4: no character takes more


def string_map(
    fields: Fields, field: int, *, limit: int, first: Collection[str] = (), max_text: int = MAX_TEXT
) -> dict[str, str]:
    """A map of texts: *limit* entries at most, those whose key is in *first* before the others."""
    found: dict[str, str] = {}
    others: dict[str, str] = {}
    for entry in messages(fields, field):
        pair = decode(entry, (1, 2))
        key, value = text(pair, 1), text(pair, 2, max_text)
        # Only as many are held as may be kept, however many come.
        into = found if key in first else others
        if key in into or len(into) < limit:
            into[key] = value
    return dict([*found.items(), *others.items()][:limit])


def encode_number(field: int, value: int) -> bytes:
    """A field that holds a number; true is 1."""
    return _encode_varint(field << 3 | _VARINT) + _encode_varint(int(value))


def encode_bytes(field: int, value: bytes) -> bytes:
    """A field that holds a message or other bytes."""
    return _encode_varint(field << 3 | _BYTES) + _encode_varint(len(value)) + value


def encode_text(field: int, value: str) -> bytes:
    """A field that holds a text."""
    return encode_bytes(field, value.encode())


def encode_texts(field: int, values: Iterable[str]) -> bytes:
    """A field that holds several texts."""
    return b"".join(encode_text(field, value) for value in values)


def _encode_varint(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"not a number of 64 bits: {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
