"""When two queries are for the same name and type, against dnspython and a second reading."""

from __future__ import annotations

import random
import struct

import dns.message
import pytest

from . import frames as f
from .asking import CACHE4, CACHE6, RESOLVER4, RESOLVER6, Asking, client
from .oracle import question

_HEADER = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
_OPT = bytes.fromhex("0000291000000080000000")  # EDNS
_TAIL = struct.pack("!HH", 1, 1)
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-_"


def wire(length: int, dice: random.Random) -> bytes:
    """A name of *length* bytes as it stands in a message, its end included."""
    labels, left = b"", length - 1
    while left:
        # A label takes two bytes at least, so never leave one.
        size = min(left, 64) if left - min(left, 64) != 1 else min(left, 64) - 1
        text = bytes(dice.choice(_LETTERS) for _ in range(size - 1))
        labels += bytes([size - 1]) + text
        left -= size
    return labels + b"\0"


def shout(name: bytes, dice: random.Random) -> bytes:
    """The same name with other letters large; lengths are below the letters."""
    return bytes(
        byte ^ 0x20 if chr(byte).isalpha() and byte < 128 and dice.random() < 0.5 else byte
        for byte in name
    )


def message(name: bytes, kind: int = 1, more: bytes = b"", identity: int = 7) -> bytes:
    """A query for it, with *more* behind its question."""
    header = struct.pack("!HHHHHH", identity, 0x0100, 1, 0, 0, more == _OPT)
    return header + name + struct.pack("!HH", kind, 1) + more


def agree(asking: Asking, pairs: list[tuple[bytes, bytes]]) -> list[bool]:
    """Let the programs judge, compare with the oracle to the pair; what both said."""
    wanted = [question(a) is not None and question(a) == question(b) for a, b in pairs]
    for (asked, forwarded), one, other in zip(pairs, wanted, asking.same(pairs), strict=True):
        assert one == other, f"asked {asked.hex()} forwarded {forwarded.hex()}"
    return wanted


def test_names_of_every_length(asking: Asking) -> None:
    """1 to 255 bytes, whatever stands behind the question: nothing, EDNS, up to eight bytes."""
    dice = random.Random("every length")
    pairs = []
    for length in [1, *range(3, 256)]:
        name = wire(length, dice)
        for tail in (b"", _OPT, *(dice.randbytes(size) for size in range(1, 9))):
            pairs.append((message(name, 28, tail), message(shout(name, dice), 28, identity=9)))
            pairs.append((message(name), message(shout(name, dice), more=tail)))
    assert all(agree(asking, pairs))


def test_a_question_that_ends_the_frame(asking: Asking) -> None:
    """No class behind the type, half of one, and the type itself cut: every length of name."""
    dice = random.Random("ends")
    pairs = []
    for length in [1, *range(3, 256)]:
        whole = message(wire(length, dice))
        pairs += [(whole[: len(whole) - cut], whole) for cut in range(1, 6)]
        pairs += [(whole, whole[: len(whole) - cut]) for cut in (1, 2, 3, 4)]
    told = agree(asking, pairs)
    assert sum(told) == 254 * 4, "two bytes of type are needed, and no more"


def test_names_that_are_nearly_the_same(asking: Asking) -> None:
    """Each byte of a name matters, wherever it stands in its eight: also the last, and the type."""
    dice = random.Random("nearly")
    pairs = []
    for length in [1, *range(3, 256)]:
        name = wire(length, dice)
        asked = message(name)
        for kind in (2, 28, 256, 257):
            pairs.append((asked, message(name, kind)))
        for at in {1, 2, length // 2, length - 3, length - 2} & set(range(1, length - 1)):
            other = bytearray(name)
            other[at] ^= 1 << dice.choice((0, 1, 2, 3, 4, 7))
            pairs.append((asked, message(bytes(other))))
        pairs.append((asked, message(b"\1a" + name)))
        if length > 3:
            pairs.append((asked, message(b"\1a" + name[1 + name[0] :])))
    told = agree(asking, pairs)
    assert not any(told[:20])
    assert sum(told) < len(told) // 50


def test_only_letters_have_a_case(asking: Asking) -> None:
    """All 256 values in each of the eight places of a word, against the value 32 beside it."""
    pairs = []
    for at in range(8):
        for value in range(256):
            both = [bytearray(b"\x0aabcdefghij\0") for _ in range(2)]
            both[0][at + 1], both[1][at + 1] = value, value ^ 0x20
            pairs.append((message(bytes(both[0])), message(bytes(both[1]))))
    told = agree(asking, pairs)
    assert 8 * 52 <= sum(told) <= 8 * 54, "52 letters; a zero ends the name before the difference"


def test_what_has_no_question(asking: Asking) -> None:
    """Names without an end, cut anywhere, pure noise: nobody is remembered for those."""
    dice = random.Random("none")
    whole = f.dns_query("no.question.example")
    frames = [_HEADER + b"A" * size for size in (200, 256, 300, 1200)]
    frames += [_HEADER + bytes([3]) * size + b"\0" + _TAIL for size in (256, 257, 300)]
    frames += [whole[:size] for size in range(len(whole) - 3)]
    assert not any(agree(asking, [(one, one) for one in frames]))
    for payload in frames:
        asking.ask(payload)
    assert {} == asking.kernel.maps.read().remotes
    longest = _HEADER + bytes([3]) * 255 + b"\0" + _TAIL
    noise = [dice.randbytes(dice.randrange(12, 80)) for _ in range(1500)]
    assert any(agree(asking, [(longest, longest), *((one, one) for one in noise)]))


def test_compression_pointers_are_bytes_like_others(asking: Asking) -> None:
    """A question has none; one that has is the same as its copy and as nothing it might mean."""
    plain = f.dns_query("pointed.example")
    pointed = plain[:12] + b"\7pointed\xc0\x2b\0" + _TAIL + b"\7example\0"
    loop = plain[:12] + b"\xc0\x0c\0" + _TAIL
    bare = plain[:12] + b"\xc0\x0c" + b"\1\1\1\1"
    pairs = [(pointed, plain), (plain, pointed), (pointed, pointed), (loop, loop), (bare, bare)]
    assert [False, False, True, True, False] == agree(asking, pairs)


def _dnspython(asked: bytes, forwarded: bytes) -> bool:
    one, other = (dns.message.from_wire(m).question[0] for m in (asked, forwarded))
    return (one.name, one.rdtype) == (other.name, other.rdtype)


@pytest.mark.parametrize("seed", range(3))
def test_dnspython_agrees(asking: Asking, seed: int) -> None:
    """Names of any bytes, some of them alike: the same question is the same to a resolver."""
    dice = random.Random(seed)
    pool = [wire(dice.choice([1, *range(3, 40)]), dice) for _ in range(40)]
    pairs = []
    while len(pairs) < 2000:
        asked = shout(dice.choice(pool), dice)
        forwarded = bytearray(shout(asked if dice.random() < 0.7 else dice.choice(pool), dice))
        places = [at for at in range(len(forwarded)) if forwarded[at] > 63]
        if places and dice.random() < 0.4:
            forwarded[dice.choice(places)] = dice.choice((*range(1, 64), *range(91, 256)))
        kinds = (1, dice.choice((1, 1, 1, 28)))
        pair = (
            message(asked, kinds[0], dice.choice((b"", _OPT))),
            message(bytes(forwarded), kinds[1]),
        )
        pairs.append(pair)
    wanted = [_dnspython(*pair) for pair in pairs]
    assert wanted == agree(asking, pairs)
    assert 400 < sum(wanted) < 1600


@pytest.mark.parametrize("inbound", ["plain", "options", "chain", "tagged"])
@pytest.mark.parametrize("outbound", ["plain", "options", "chain", "tagged"])
def test_a_question_is_the_same_under_other_headers(
    asking: Asking, inbound: str, outbound: str
) -> None:
    """IP options, extension headers, VLAN tags: the name begins elsewhere and is the same."""
    query = f.dns_query("moved.example")
    client6 = "2001:db8:7::1"

    def put(how: str, source: str, destination: str) -> bytes:
        tags = [(f.VLAN, 11)] if how == "tagged" else []
        carried = f.udp(payload=query)
        if how == "chain" or "chain" in (inbound, outbound):
            chain = [f.option_header(f.DESTINATION, 1), f.fragment_header()]
            return f.ipv6(
                carried,
                f.UDP,
                RESOLVER6 if destination == RESOLVER4 else CACHE6,
                CACHE6 if source == CACHE4 else client6,
                extensions=chain if how == "chain" else [],
                tags=tags,
            )
        options = bytes(12) if how == "options" else b""
        return f.ipv4(carried, f.UDP, destination, source, options=options, tags=tags)

    asking.kernel.run("eni_ingress", put(inbound, client(1), CACHE4))
    asking.kernel.run("eni_egress", put(outbound, CACHE4, RESOLVER4))
    assert {client6 if "chain" in (inbound, outbound) else client(1): 1} == asking.charged()
