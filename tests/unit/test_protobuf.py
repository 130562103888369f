"""The wire codec: against the format's own examples, Google's implementation, and random bytes."""

import random
import secrets
import tracemalloc

import pytest
from cri_api.v1.api_pb2 import ListContainersResponse
from eni53.inventory import protobuf
from eni53.inventory.protobuf import decode

SEED = secrets.randbits(32)


def test_the_formats_own_examples():
    """What the protobuf documentation shows as bytes is read as it says."""
    assert decode(b"\x08\x96\x01") == {1: [150]}
    assert decode(b"\x12\x07testing") == {2: [b"testing"]}
    assert decode(b"\x1a\x03\x08\x96\x01") == {3: [b"\x08\x96\x01"]}
    assert decode(b"") == {}


def test_fixed_size_numbers_are_read_and_do_not_disturb_their_neighbours():
    """No message of ours has them today; tomorrow's may, and the fields after them count."""
    data = b"\x09" + (7).to_bytes(8, "little") + b"\x15" + (9).to_bytes(4, "little") + b"\x18\x05"
    assert decode(data) == {1: [7], 2: [9], 3: [5]}


def test_the_largest_numbers_fit():
    """64 bits, which is how a negative number travels, and the last field number."""
    assert decode(b"\x08" + b"\xff" * 9 + b"\x01") == {1: [2**64 - 1]}
    assert decode(b"\xf8\xff\xff\xff\x0f\x01") == {2**29 - 1: [1]}


@pytest.mark.parametrize(
    "data",
    [
        b"\x08", b"\x80", b"\x08\x80", b"\x12\x05abc", b"\x12", b"\x09\x00", b"\x15\x00\x00\x00",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 2^64 - 1
        b"\x08" + b"\x80" * 10 + b"\x01", b"\x08" + b"\xff" * 9 + b"\x7f",  # more than 64 bits
        b"\x00\x01", b"\x0b", b"\x0c", b"\x0e", b"\x0f",  # field 0; groups; no such wire types
        b"\x80\x80\x80\x80\x10\x01",  # field number 2^29
    ],
    ids=lambda data: data.hex(),
)  # fmt: skip
def test_what_is_not_protobuf_is_a_value_error(data):
    """Half a message must not pass for a whole one."""
    with pytest.raises(ValueError, match=r"cut short|bits|field number|wire type"):
        decode(data)
    with pytest.raises(ValueError, match=r"cut short|bits|field number|wire type"):
        decode(data, wanted=())


def test_the_number_of_fields_is_bounded():
    """Two bytes of message make a hundred of Python: 32 MiB of them would be gigabytes."""
    assert len(decode(b"\x08\x01" * protobuf.MAX_FIELDS)[1]) == protobuf.MAX_FIELDS
    with pytest.raises(ValueError, match="more than 65536 fields"):
        decode(b"\x08\x01" * (protobuf.MAX_FIELDS + 1))


def test_what_nobody_wants_is_not_kept():
    """A container's spec is a hundred times its labels."""
    data = protobuf.encode_number(1, 5) + protobuf.encode_text(2, "x") + protobuf.encode_text(3, "")
    assert decode(data, wanted=(3,)) == {3: [b""]}


def test_absent_fields_are_at_their_default():
    """proto3 sends no zero and no empty text."""
    assert protobuf.number({}, 1) == 0
    assert protobuf.text({}, 1) == ""
    assert protobuf.message({}, 1) == {}
    assert protobuf.messages({}, 1) == []
    assert protobuf.string_map({}, 1, limit=9) == {}


def test_the_last_value_of_a_field_counts():
    """As the format demands of every reader."""
    data = b"\x08\x01\x08\x02\x12\x01a\x12\x01b"
    assert (protobuf.number(decode(data), 1), protobuf.text(decode(data), 2)) == (2, "b")


def test_a_field_of_another_kind_is_a_value_error():
    """A peer of another version, or no such peer at all."""
    fields = decode(b"\x08\x01\x12\x01a")
    for read in (protobuf.text, protobuf.message, protobuf.messages):
        with pytest.raises(ValueError, match="field 1 is"):
            read(fields, 1)
    with pytest.raises(ValueError, match="field 2 is no number"):
        protobuf.number(fields, 2)


def test_texts_are_cut_and_never_refused():
    """Whoever names a container cannot make it unreadable, nor long."""
    fields = {1: ["é".encode() * 5000], 2: [b"a\xff\xfeb"], 3: ["𝄞".encode() * 1025]}
    assert protobuf.text(fields, 1) == "é" * 1024
    assert protobuf.text(fields, 2) == "a��b"
    assert protobuf.text(fields, 3) == "𝄞" * 1024


def test_a_map_is_bounded_and_keeps_what_matters():
    """A thousand labels of its own do not hide a pod's name, wherever in the map that is."""
    entries = [protobuf.encode_text(1, f"k{n}") + protobuf.encode_text(2, "v") for n in range(1000)]
    entries.append(protobuf.encode_text(1, "name") + protobuf.encode_text(2, "web"))
    found = protobuf.string_map({1: list(entries)}, 1, limit=64, first={"name"})
    assert len(found) == 64
    assert found["name"] == "web"
    assert protobuf.string_map({1: list(entries)}, 1, limit=0, first={"name"}) == {}


def test_what_a_map_does_not_keep_it_does_not_hold():
    """Sixty thousand labels are more than the agent."""
    entries = [
        protobuf.encode_text(1, f"k{n}") + protobuf.encode_text(2, "v") for n in range(60000)
    ]
    tracemalloc.start()
    protobuf.string_map({1: list(entries)}, 1, limit=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_what_is_encoded_is_what_google_encodes():
    """Requests, too, are read by somebody else's decoder."""
    item = protobuf.encode_text(1, "id é") + protobuf.encode_text(2, "x" * 300)
    item += protobuf.encode_number(6, 1) + protobuf.encode_number(7, 2**63 - 1)
    item += protobuf.encode_bytes(8, protobuf.encode_text(1, "k") + protobuf.encode_text(2, "v"))
    theirs = ListContainersResponse.FromString(protobuf.encode_bytes(1, item)).containers[0]
    assert (theirs.id, theirs.pod_sandbox_id, theirs.state) == ("id é", "x" * 300, 1)
    assert (theirs.created_at, dict(theirs.labels)) == (2**63 - 1, {"k": "v"})
    assert protobuf.encode_number(1, True) == b"\x08\x01"
    with pytest.raises(ValueError, match="64 bits"):
        protobuf.encode_number(1, -1)


def random_list(rng):
    """A list of containers with random members."""
    words = ["", "a", "é" * 40, "x" * 200, "\x1b[2J", "0" * 64]
    answer = ListContainersResponse()
    for _ in range(rng.randrange(5)):
        one = answer.containers.add(id=rng.choice(words), pod_sandbox_id=rng.choice(words))
        one.metadata.name, one.metadata.attempt = rng.choice(words), rng.randrange(2**32)
        one.state, one.created_at = rng.randrange(4), rng.randrange(-(2**63), 2**63)
        for _ in range(rng.randrange(4)):
            one.labels[rng.choice(words)] = rng.choice(words)
    return answer


def test_random_messages_are_read_as_google_reads_them():
    """Google's encoder, our decoder, every member equal."""
    print("seed", SEED)
    rng = random.Random(SEED)
    for _ in range(300):
        theirs = random_list(rng)
        ours = protobuf.messages(decode(theirs.SerializeToString()), 1)
        assert len(ours) == len(theirs.containers)
        for item, one in zip(map(decode, ours), theirs.containers, strict=True):
            metadata = protobuf.message(item, 3)
            assert protobuf.text(item, 1) == one.id
            assert protobuf.text(item, 2) == one.pod_sandbox_id
            assert protobuf.text(metadata, 1) == one.metadata.name
            assert protobuf.number(metadata, 2) == one.metadata.attempt
            assert protobuf.number(item, 6) == one.state
            assert protobuf.number(item, 7) == one.created_at % 2**64
            assert protobuf.string_map(item, 8, limit=9) == dict(one.labels)


def test_random_bytes_are_fields_or_a_value_error():
    """Nothing else comes out, nothing hangs, and what is kept is no more than what came."""
    print("seed", SEED)
    rng = random.Random(SEED)
    good = random_list(rng).SerializeToString() or b"\x08\x01"
    for _ in range(20_000):
        data = bytearray(rng.choice([rng.randbytes(rng.randrange(40)), good]))
        for _ in range(rng.randrange(1, 4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            fields = decode(bytes(data))
        except ValueError:
            continue
        kept = [value for values in fields.values() for value in values]
        assert all(isinstance(value, int | bytes) for value in kept)
        assert sum(len(value) for value in kept if isinstance(value, bytes)) <= len(data)
        assert all(0 <= value < 2**64 for value in kept if isinstance(value, int))
