"""A recording as a file and back; and files that come by mail from whoever likes to send one."""

from __future__ import annotations

import copy
import io
import json
import random
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from eni53.errors import SourceError
from eni53.flight.recording import Recording, Top, without_names
from eni53.flight.recording_json import MAX_ENIS, MAX_SLOTS, dumps, loads
from eni53.flight.replay import Frames
from eni53.model import OTHER, PENDING, UNATTRIBUTED, Eni, Workload
from eni53.snapshot_json import dumps as dumps_snapshot
from eni53.top.once import print_once
from eni53.top.tape import Tape
from eni53.top.view import ViewState

from tests.fixtures import snapshots
from tests.fixtures.flights import recorded, recording
from tests.fixtures.hostile import HOSTILE_NAMES

WILD = (
    None, True, -1, 0, 1, 3, 1.5, 2**53, 2**64, 2**64 + 1, 10**400, 1e308, -0.0,
    float("nan"), float("inf"), float("-inf"), "", "x", "0", "\x1b[2J\n", "\ud800", "A" * 3000,
    [], [[]], [None], [1] * 41, {}, {"resolver": {}}, {"\x1b[2J": {"packets": 1, "pps": 1}},
    "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z",
)  # fmt: skip


def document() -> dict[str, Any]:
    """A good document, as decoded from a file."""
    decoded: dict[str, Any] = json.loads(dumps(recording()))
    return decoded


def places(inner: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of each value in a document."""
    items: Any = inner.items() if isinstance(inner, dict) else ()
    if isinstance(inner, list):
        items = list(enumerate(inner))[:3]
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """A document with one value that is another."""
    wild: Any = document()
    inner = wild
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = copy.deepcopy(value)
    return dict(wild)


def play(told: Recording) -> str:
    """Everything that can be shown of it."""
    stream = io.StringIO()
    tape = Tape(told)
    frames = Frames(told)
    for snapshot in (tape.fetch(), tape.worst, frames.frame(0), frames.frame(-1)):
        view = ViewState(source=tape.told(snapshot), played=tape.told(snapshot))
        print_once(snapshot, view, stream, width=120)
        stream.write(dumps_snapshot(snapshot))
    return stream.getvalue()


def survive(data: str | bytes) -> Recording | None:
    """Read it and play it; None when it was refused in one line, as it should be."""
    try:
        told = loads(data)
        shown = play(told)
    except SourceError as error:
        assert str(error).startswith("recording")
        assert str(error).isprintable()
        return None
    assert "\x1b" not in shown
    assert loads(dumps(told)) == told
    assert loads(dumps(without_names(told)))
    return told


class TestRoundTrip:
    """What goes in comes out."""

    @pytest.mark.parametrize(
        "told",
        [
            recording(),
            recording(reason="requested", eni=None, moment=None),
            recording(reason="driver-drops", named=False, moment=40),
            recording(replace(recorded(), seconds=()), slots=40),
            replace(recording(), enis=()),
            recording(recorded(slots=1), slots=1, moment=0),
            recording(recorded(slots=6000, pps=65_534), slots=6000, begin_s=1_700_000_000.001),
        ],
        ids=["exceeded", "by-hand", "nameless", "no-seconds", "no-enis", "one-slot", "ten-minutes"],
    )
    def test_it_is_the_same(self, told: Recording) -> None:
        """Every field; and the text is pure ASCII in one line."""
        text = dumps(told)
        assert loads(text) == loads(text.encode()) == told
        assert text.isascii()
        assert text.count("\n") == 1
        assert dumps(loads(text)) == text

    def test_the_fields_are_those_of_the_documents(self) -> None:
        """docs/recorder.md names them; they are added to, and never renamed."""
        told = document()
        eni, row = told["enis"][0], told["enis"][0]["seconds"][-1]["top"][1]
        assert list(told) == [
            "version", "kind", "agent", "node", "named", "reason", "eni", "begin", "moment",
            "slot_seconds", "slots", "workloads", "enis",
        ]  # fmt: skip
        assert (told["version"], told["kind"]) == (1, "eni53-recording")
        assert (told["begin"], told["slot_seconds"]) == ("2024-05-04T12:14:56.789Z", 0.1)
        assert list(eni) == [
            "eni", "mac", "interface", "netns", "vlan", "limit_pps", "basis", "linklocal", "dns",
            "seconds",
        ]  # fmt: skip
        assert eni["linklocal"][:4] == [None, None, 30, 30]
        assert list(eni["seconds"][0]) == [
            "at", "state", "linklocal_allowance_exceeded", "classes", "top",
        ]  # fmt: skip
        assert list(row) == ["workload", "packets", "pps", "share"]
        assert told["workloads"][row["workload"]] == {
            "kind": "ecs_task", "namespace": "prod", "workload": snapshots.SEARCH.workload,
            "container": "indexer", "via": "cache",
        }  # fmt: skip

    def test_a_field_that_was_added_later_is_passed_over(self) -> None:
        """An older eni53 plays what a newer one wrote."""
        wild = document()
        for place in (wild, wild["enis"][0], wild["enis"][0]["seconds"][0], wild["workloads"][0]):
            place["colour"] = {"red": 1}
        assert loads(json.dumps(wild)) == recording()

    def test_names_are_cleaned_on_both_ways(self) -> None:
        """An agent may be as hostile as a file."""
        top = tuple(
            Top(Workload("container", name, name, name), "direct", 1, 1.0, 0.1)
            for name in HOSTILE_NAMES
        )
        base = recorded()
        eni = Eni(HOSTILE_NAMES[0], *HOSTILE_NAMES[1:3], HOSTILE_NAMES[7], 0)
        wild = replace(base, eni=eni, seconds=(replace(base.seconds[-1], top=top),))
        told = recording(wild, node=HOSTILE_NAMES[0], eni=HOSTILE_NAMES[0], agent="\x1b[0m")
        text = dumps(told)
        assert "u001b" not in text
        read = loads(text)
        assert read.eni == read.enis[0].eni.label
        shown = play(read)
        assert not {"\x1b", "\u202e", "\x07", "\r"} & {*shown}
        raw = json.loads(text)
        raw["node"] = raw["enis"][0]["eni"] = raw["workloads"][0]["workload"] = HOSTILE_NAMES[0]
        assert loads(json.dumps(raw)).node == read.node


BAD: list[tuple[str, Any]] = [
    ("version", 2),
    ("version", "1"),
    ("kind", "eni53-snapshot"),
    ("kind", None),
    ("reason", "boredom"),
    ("named", 1),
    ("begin", "yesterday"),
    ("begin", "0001-01-01T00:00:00Z"),
    ("begin", "9999-12-31T23:59:59Z"),
    ("moment", 41),
    ("moment", -1),
    ("slot_seconds", 0.2),
    ("slots", 39),
    ("slots", MAX_SLOTS + 1),
    ("slots", 2**64),
    ("workloads", []),
    ("workloads", {}),
    ("workloads/0", None),
    ("workloads/0/kind", 3),
    ("enis", {}),
    ("enis/0", []),
    ("enis/0/limit_pps", 0),
    ("enis/0/basis", "imds"),
    ("enis/0/vlan", -1),
    ("enis/0/linklocal", [1] * 39),
    ("enis/0/linklocal/3", -1),
    ("enis/0/linklocal/3", 1.0),
    ("enis/0/dns/3", True),
    ("enis/0/dns/3", 2**64 + 1),
    ("enis/0/dns/3", float("nan")),
    ("enis/0/dns", [None] * 41),
    ("enis/0/seconds/0/at", 10),
    ("enis/0/seconds/0/at", 30),
    ("enis/0/seconds/4/at", 41),
    ("enis/0/seconds/1/state", "fine"),
    ("enis/0/seconds/1/linklocal_allowance_exceeded", -1),
    ("enis/0/seconds/1/classes", {"smtp": {"packets": 1, "pps": 1.0}}),
    ("enis/0/seconds/1/classes", {"imds": {"packets": 1, "pps": 1e20}}),
    ("enis/0/seconds/1/classes", {"imds": {"packets": 1, "pps": -1}}),
    ("enis/0/seconds/4/top/0/workload", 4),
    ("enis/0/seconds/4/top/0/workload", -1),
    ("enis/0/seconds/4/top/0/workload", 2**64),
    ("enis/0/seconds/4/top/0/pps", float("inf")),
    ("enis/0/seconds/4/top/0/pps", 1e300),
    ("enis/0/seconds/4/top/0/share", 1.01),
    ("enis/0/seconds/4/top/0/share", float("nan")),
]


class TestHostile:
    """It may come by mail."""

    @pytest.mark.parametrize(("place", "value"), BAD)
    def test_a_wrong_value_is_refused_in_one_line_that_names_its_place(
        self, place: str, value: object
    ) -> None:
        """It can be mended, or thrown away; the text found is not repeated."""
        path = tuple(int(step) if step.isdigit() else step for step in place.split("/"))
        with pytest.raises(SourceError, match=r"^recording[\w.\[\]]*: [^\n]+$"):
            loads(json.dumps(changed(path, value)))

    def test_every_field_is_missed_when_missing(self) -> None:
        """None has a default; the line names it."""
        for path in places(document()):
            if isinstance(path[-1], int) or path[-1] in {"resolver", "dns_other"}:
                continue
            wild: Any = document()
            inner = wild
            for step in path[:-1]:
                inner = inner[step]
            del inner[path[-1]]
            missing = "not a recording" if path == ("kind",) else f"{path[-1]}: missing$"
            with pytest.raises(SourceError, match=missing):
                loads(json.dumps(wild))

    def test_any_value_anywhere_is_refused_or_can_be_played(self) -> None:
        """Each place in turn; whatever is let through neither fails later nor reaches a screen."""
        seen = [
            survive(json.dumps(changed(path, value)))
            for path in places(document())
            for value in random.Random(str(path)).sample(WILD, 4)
        ]
        assert seen.count(None) > 100
        assert len(seen) - seen.count(None) > 10

    def test_several_wild_values_at_once(self) -> None:
        """What two of them do together nobody has thought of."""
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        every = list(places(document()))
        tame = [0, 1, 3, 40, 2**64, 1e19, None, "x", "9000", "\x9b31m", [], {}]
        for _ in range(400):
            wild: Any = document()
            for path in rng.sample(every, 3):
                inner = wild
                try:
                    for step in path[:-1]:
                        inner = inner[step]
                    inner[path[-1]] = copy.deepcopy(rng.choice(tame))
                except (KeyError, IndexError, TypeError):  # an earlier one took its place away
                    continue
            survive(json.dumps(wild))

    @pytest.mark.parametrize(
        "data",
        [
            b"", b"\xff\xfe\xfa", "<html>", "null", "[]", '"x"', "3", "NaN", "{}", "[" * 200_000,
            '{"kind":' * 100_000, '{"version":' + "9" * 5000 + "}", '{"kind":[]}', '{"kind":NaN}',
            '{"kind":"eni53-recording"}', '{"kind":"eni53-recording","version":null}',
            "\ud800", dumps(recording())[:-3], dumps(recording()).encode("utf-16")[:-9],
            dumps_snapshot(snapshots.near_limit()),
        ],
    )  # fmt: skip
    def test_what_is_no_recording_is_refused(self, data: str | bytes) -> None:
        """A snapshot among them: `top --json` writes one, and somebody will try."""
        with pytest.raises(SourceError, match=r"^recording[^\n]+$"):
            loads(data)

    def test_bounds(self) -> None:
        """As many as a node can have, and no more."""
        wild = document()
        [first, *_] = wild["enis"]
        for key, most, thing in (
            ("enis", MAX_ENIS, first),
            ("top", 100, first["seconds"][-1]["top"][0]),
        ):
            place = wild if key == "enis" else first["seconds"][-1]
            before = place[key]
            place[key] = [thing] * most
            loads(json.dumps(wild))
            place[key] = [thing] * (most + 1)
            with pytest.raises(SourceError, match=f"at most {most}$"):
                loads(json.dumps(wild))
            place[key] = before
        look = replace(recorded().seconds[0], top=(), classes={})
        for number in (20_000, 20_001):
            seconds = tuple(replace(look, at=at) for at in range(number))
            one = replace(recorded(slots=MAX_SLOTS), seconds=seconds)
            text = dumps(recording(one, slots=MAX_SLOTS))
            if number <= 20_000:
                assert len(loads(text).enis[0].seconds) == number
            else:
                with pytest.raises(SourceError, match=r"at most 20000$"):
                    loads(text)


class TestWithoutNames:
    """A copy to send to somebody."""

    @pytest.fixture
    def named(self) -> Recording:
        """With a name of each kind."""
        rows = (
            Workload("pod", "kube-system", "coredns-5d78c9869d-x2k9j", "coredns-container"),
            Workload("pod", "shop", "basket-7"),
            Workload("host", "", "amazon-ssm-agent.service"),
            Workload("remote", "", "10.0.3.17"),
            PENDING,
        )
        bare = (UNATTRIBUTED, OTHER, snapshots.API)
        first, second = recorded(workloads=rows), recorded("mac:02:4e:11:d0:5b:9d", workloads=bare)
        second = replace(
            second, eni=Eni("mac:02:4e:11:d0:5b:9d", "02:4e:11:d0:5b:9d", "ens6", "host", 0)
        )
        return recording(first, second)

    def test_no_name_is_left_anywhere(self, named: Recording) -> None:
        """Looked for in the text: ENIs, MACs, interfaces, namespaces, node, workloads."""
        text = dumps(without_names(named))
        secrets_of = [named.node, "ip-10", "compute.internal"]
        for one in named.enis:
            secrets_of += [one.eni.label, one.eni.mac, one.eni.interface]
            for top in (top for second in one.seconds for top in second.top):
                owner = top.workload
                secrets_of += [owner.namespace, owner.workload, owner.container]
        secrets_of += ["4026532301", "0a1b2c3d4e5f60718", "checkout", "coredns", "10.0.3.17"]
        whole = dumps(named)
        found = [secret for secret in secrets_of if secret and secret in text]
        assert found == []
        assert all(secret in whole for secret in secrets_of)

    def test_the_rates_stay_and_so_does_who_is_whom(self, named: Recording) -> None:
        """Each workload has one number in all of it; what has no name keeps its kind."""
        bare = without_names(named)
        assert loads(dumps(bare)) == bare
        assert not bare.named
        assert (bare.eni, bare.node) == ("eni-1", "node")
        kept = ("agent", "reason", "begin_s", "moment", "slots")
        assert all(getattr(bare, name) == getattr(named, name) for name in kept)
        numbers: dict[Workload, Workload] = {}
        for before, after in zip(named.enis, bare.enis, strict=True):
            assert replace(after, eni=before.eni, seconds=()) == replace(before, seconds=())
            for old, new in zip(before.seconds, after.seconds, strict=True):
                assert replace(new, top=()) == replace(old, top=())
                for was, now in zip(old.top, new.top, strict=True):
                    assert replace(now, workload=was.workload) == was
                    assert now.workload.kind == was.workload.kind
                    assert numbers.setdefault(was.workload, now.workload) == now.workload
        assert len({*numbers.values()}) == len(numbers) == 8
        assert (numbers[UNATTRIBUTED], numbers[OTHER]) == (UNATTRIBUTED, OTHER)
        enis = [one.eni for one in bare.enis]
        assert [(e.label, e.mac, e.interface, e.vlan) for e in enis] == [
            ("eni-1", "", "eth1", 17), ("eni-2", "", "eth2", 0),
        ]  # fmt: skip
        assert [eni.netns for eni in enis] == ["netns-1", "host"]

    def test_twice_is_once(self, named: Recording) -> None:
        """And of an ENI that is not in the file no more is told than that."""
        bare = without_names(named)
        assert without_names(bare) == bare
        assert without_names(replace(named, eni="eni-of-the-bank")).eni == "eni-0"
        assert without_names(replace(named, eni=None)).eni is None
