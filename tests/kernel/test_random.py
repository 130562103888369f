"""Programs against the oracle on frames nobody would think of. The seed is in the test's id."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from eni53.kernel.layout import TASK_DEV
from eni53.sample import SenderKey

from . import frames as f
from . import oracle
from .kernel import EXPECTED, EXPECTED_IN_TASKS, Kernel, assert_agrees
from .test_parse import CASES
from .test_sweeps import REPRESENTATIVES, VLANS

SEED = 0xE5353
BATCH = 4000
VALID = [frame for frame, _ in CASES.values()] + list(REPRESENTATIVES.values())
_IN_TASKS = 12_000
_NOBODYS = 4242  # index of a device that is no veth of ours
_TYPES = [b"\x08\x00", b"\x86\xdd", b"\x81\x00\x00\x0b\x08\x00", b"\x88\xa8\x00\x0c\x86\xdd"]


def noise(dice: random.Random) -> bytes:
    """Random bytes behind an EtherType that is looked into."""
    return bytes(12) + dice.choice(_TYPES) + dice.randbytes(dice.randrange(120))


def plausible_noise(dice: random.Random) -> bytes:
    """Random bytes that lead the parser deep: version, protocol and destination are right."""
    body = bytearray(dice.randbytes(dice.randrange(24, 120)))
    if dice.random() < 0.4:
        body[0] = 0x40 | dice.randrange(4, 16)
        body[6:8] = b"\0\0"
        body[9] = dice.choice((1, 6, 17, 17, 132))
        body[16:20] = bytes([169, 254, 169, dice.choice((123, 250, 253, 254, 1))])
        return bytes(12) + b"\x08\x00" + body
    body[0] = 0x60
    body[6] = dice.choice((0, 6, 17, 43, 44, 51, 58, 60, 135, 139, 140))
    body[24:40] = bytes.fromhex("fd000ec2") + bytes(10) + dice.choice((b"\2\x53", b"\2\x54"))
    for place in range(40, len(body)):  # extensions that follow each other, mostly short ones
        if dice.random() < 0.5:
            body[place] = dice.choice((0, 0, 0, 1, 17, 43, 44, 51, 53, 60))
    return bytes(12) + b"\x86\xdd" + body


def mutated(dice: random.Random) -> bytes:
    """A frame that means something, with a few bytes changed, taken out, put in or cut off."""
    frame = bytearray(dice.choice(VALID))
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(12, len(frame)) if len(frame) > 14 else 12
        match dice.randrange(5):
            case 0 | 1:
                frame[at] = dice.randrange(256)
            case 2:
                frame[at] ^= 1 << dice.randrange(8)
            case 3:
                del frame[at : at + dice.randrange(1, 9)]
            case _:
                frame[at:at] = dice.randbytes(dice.randrange(1, 9))
    if dice.random() < 0.2:
        del frame[dice.randrange(14, max(15, len(frame))) :]
    return bytes(frame).ljust(14, b"\0")


def _few_vlans(frame: bytes) -> bool:
    """There is no room for more than 256 ENIs: mutations of a tag are kept to a few ids."""
    verdict = oracle.judge(frame)
    return verdict[0] != "counted" or int(verdict[3]) < 150  # type: ignore[misc]


@pytest.mark.parametrize("program", EXPECTED)
@pytest.mark.parametrize(
    ("make", "count"), [(noise, 100_000), (plausible_noise, 120_000), (mutated, 160_000)]
)
def test_programs_and_oracle_agree(
    bench: Kernel, program: str, make: Callable[[random.Random], bytes], count: int
) -> None:
    """Counted, skipped and malformed to the frame; a difference is narrowed down to one frame."""
    dice = random.Random(SEED)
    print(f"seed {SEED:#x}")
    told = 0
    for _ in range(count // (1 if program == "eni_egress" else 4) // BATCH):
        batch = [frame for frame in (make(dice) for _ in range(BATCH)) if _few_vlans(frame)]
        assert_agrees(bench, program, batch, VLANS)
        told += sum(oracle.judge(frame)[0] == "counted" for frame in batch[:400])
    assert told > 0 or make is noise, "frames that are never counted prove little"


@pytest.mark.parametrize("program", EXPECTED_IN_TASKS)
@pytest.mark.parametrize("make", [plausible_noise, mutated])
def test_tasks_are_judged_as_the_oracle_says(
    in_task: Kernel, program: str, make: Callable[[random.Random], bytes]
) -> None:
    """On frames nobody would think of, under the task's key alone."""
    dice = random.Random(f"{program} {make.__name__}")
    for _ in range(_IN_TASKS // 2000):
        batch = [frame for frame in (make(dice) for _ in range(2000)) if _few_vlans(frame)]
        assert_agrees(in_task, program, batch, VLANS)
        sample = in_task.maps.read()
        assert {key.dev for key in sample.senders} <= {TASK_DEV}
        assert {dev for dev, _ in sample.enis} == {TASK_DEV}


def test_a_task_and_the_node_count_alike(in_task: Kernel) -> None:
    """Row by row, sources included, for the same frames, sent here and forwarded."""
    dice = random.Random("alike")
    made = (mutated(dice).ljust(54, b"\0") for _ in range(5000))
    frames = list(filter(_few_vlans, made))
    rows, sources = [], []
    for program, dev in (("task_egress", TASK_DEV), ("eni_egress", in_task.ifindex or 0)):
        in_task.maps.add_eni(dev, trunk=True)
        before = Counter(in_task.maps.read().sources)
        for number, frame in enumerate(frames):
            in_task.run(program, frame, ingress_ifindex=number % 2 * _NOBODYS)
        sample = in_task.maps.read()
        rows.append({_row(key): n for key, n in sample.senders.items() if key.dev == dev})
        rise = Counter(sample.sources) - before
        in_task.maps.remove_eni(dev)  # there is no room for the branches of both
        assert {key[0] for key in rise} == {dev}
        sources.append({key[1:]: n for key, n in rise.items()})
    assert rows[0] == rows[1]
    assert sources[0] == sources[1]
    assert sum(rows[0].values()) > 1000
    assert sum(sources[0].values()) > 400


def test_what_a_task_hands_over_is_never_the_next_packets(in_task: Kernel) -> None:
    """After any frame through a task's programs, the node's query and its answer are the node's."""
    dice = random.Random("handed over")
    node = in_task.ifindex or 0
    in_task.maps.add_eni(node)
    for number in range(3000):
        frame = dice.choice((mutated, plausible_noise, noise))(dice).ljust(54, b"\0")
        for program in EXPECTED_IN_TASKS:
            in_task.run(program, frame)
        query = f.udp(53, 20000 + number, f.dns_query(identity=number))
        in_task.run("eni_egress", f.ipv4(query, f.UDP, "10.0.0.2", "10.0.0.9"))
        answer = f.udp(20000 + number, 53, f.dns_answer(identity=number))
        in_task.run("eni_ingress", f.ipv4(answer, f.UDP, "10.0.0.9", "10.0.0.2"))
    sample = in_task.maps.read()
    sent = sum(n for key, n in sample.senders.items() if key.dev == node)
    assert (sent, sample.enis[node, 0].responses[0]) == (3000, 3000)


def _row(key: SenderKey) -> tuple[object, ...]:
    return key.vlan, key.ingress, key.cgroup_id, key.packet_class, key.protocol, key.asker
