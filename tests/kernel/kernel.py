"""One set of loaded programs, run on frames that are never sent, and what they have counted."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from eni53.kernel import bpf, layout
from eni53.kernel.loader import Loaded, load
from eni53.kernel.maps import Maps
from eni53.sample import Sample

from . import oracle
from .oracle import Verdict

NEXT = -1  # TC_ACT_UNSPEC, TCX_NEXT
_CONTEXT_WORD = {"priority": 8, "ingress_ifindex": 9, "ifindex": 10, "gso_segs": 41, "gso_size": 44}
_CONTEXT_WORDS = 48

EXPECTED: dict[str, Callable[[bytes], Verdict]] = {
    "eni_egress": oracle.judge,
    "workload_ingress": oracle.sent,
    "eni_ingress": oracle.answer,
}
EXPECTED_IN_TASKS: dict[str, Callable[[bytes], Verdict]] = {
    "task_egress": oracle.judge,
    "task_ingress": oracle.answer,
}

# Of the tables, not of the frame.
_NOT_A_VERDICT = ("origin_exhausted", "query_evicted", "remote_exhausted", "ask_ambiguous")
_SHORTEST = {b"\x08\x00": 34, b"\x86\xdd": 54}


def runnable(frame: bytes) -> bool:
    """Whether every kernel takes the frame for a test run: newer ones want a whole IP header.

    Such frames are tried behind a tag, where the kernel does not look, and as real packets.
    """
    return len(frame) >= _SHORTEST.get(frame[12:14], 14)


def context(**fields: int) -> bytes:
    """A ``struct __sk_buff`` with the fields that a test run lets its caller set."""
    words = [0] * _CONTEXT_WORDS
    for name, value in fields.items():
        words[_CONTEXT_WORD[name]] = value
    return struct.pack(f"={_CONTEXT_WORDS}I", *words)


@dataclass
class Kernel:
    """Programs and maps, with ``dev`` as the one ENI (and veth) that frames are run on.

    Attributes:
        dev: What the programs know the ENI by: its index, unless ``ifindex`` says otherwise.
        ifindex: Index of the device where ``dev`` is a task's ENI, which none has as its index.
    """

    loaded: Loaded
    dev: int = 1
    ifindex: int | None = None
    maps: Maps = field(init=False)

    def __post_init__(self) -> None:
        self.maps = Maps(self.loaded)
        self.maps.set_resolvers(oracle.RESOLVERS)

    @classmethod
    def load(cls) -> Kernel:
        """A set of its own: no other test has a hand in its maps."""
        return cls(load())

    def run(self, program: str, frame: bytes, **fields: int) -> int:
        """Run a program on one frame; its return value."""
        fields.setdefault("ifindex", self.ifindex or self.dev)
        return bpf.test_run(self.loaded.programs[program], frame, context=context(**fields))[0]

    def forget(self, vlans: Iterable[int] = ()) -> None:
        """Start from nothing, with the ENI known as a trunk, and its branches *vlans*."""
        sample = self.maps.read()
        for key in sample.senders:
            self.maps.forget_sender(key)
        for place in sample.origins:
            self.maps.forget_origin(*place)
        for dev in {dev for dev, _ in sample.enis}:
            self.maps.remove_eni(dev)
        for vlan in (0, *vlans):
            self.maps.add_eni(self.dev, vlan, trunk=True)

    def observe(
        self, program: str, frames: Sequence[bytes], vlans: Iterable[int] = ()
    ) -> Counter[Verdict]:
        """How often each verdict was given on *frames*, in the oracle's words."""
        self.forget(vlans)
        before = self.maps.read().stats
        descriptor = self.loaded.programs[program]
        place = context(ifindex=self.ifindex or self.dev)
        returned = {bpf.test_run(descriptor, frame, context=place)[0] for frame in frames}
        assert returned <= {NEXT}, f"{program} decided over a packet: {returned}"
        return outcome(program, before, self.maps.read())


def outcome(program: str, before: dict[str, int], sample: Sample) -> Counter[Verdict]:
    """A sample in the oracle's words."""
    seen: Counter[Verdict] = Counter()
    if program == "workload_ingress":
        for origin in sample.origins.values():
            for name, packets in origin.sent.items():
                seen["counted", name] += packets
    for key, packets in sample.senders.items():
        seen["counted", key.packet_class, key.protocol, key.vlan] += packets
    for (_, vlan), eni in sample.enis.items():
        for rcode, packets in eni.responses.items():
            seen["answer", str(rcode), "udp", vlan] += packets
    for name in layout.STATS:
        rise = sample.stats[name] - before[name]
        if rise and name not in _NOT_A_VERDICT:
            seen[(name,)] += rise
    return seen


def expected(
    program: str, frames: Sequence[bytes], known_vlans: Iterable[int] = ()
) -> Counter[Verdict]:
    """The same from the oracle. Answers are counted only on ENIs that are known."""
    verdicts = Counter(map((EXPECTED | EXPECTED_IN_TASKS)[program], frames))
    del verdicts[oracle.NOTHING]
    known = {0, *known_vlans}
    return Counter(
        {v: n for v, n in verdicts.items() if v[0] != "answer" or v[3] in known}  # type: ignore[misc]
    )


def assert_agrees(
    kernel: Kernel, program: str, frames: Sequence[bytes], vlans: Sequence[int] = ()
) -> None:
    """Fail on the first frame that program and oracle judge differently, and print it."""
    frames = [frame for frame in frames if runnable(frame)]
    seen, wanted = kernel.observe(program, frames, vlans), expected(program, frames, vlans)
    if wanted == seen:
        return
    while len(frames) > 1:
        half = frames[: len(frames) // 2]
        agrees = expected(program, half, vlans) == kernel.observe(program, half, vlans)
        frames = frames[len(frames) // 2 :] if agrees else half
    seen, wanted = kernel.observe(program, frames, vlans), expected(program, frames, vlans)
    assert dict(wanted) == dict(seen), f"{program} on {frames[0].hex()}"
    raise AssertionError(f"{program}: frames agree one by one but not together")
