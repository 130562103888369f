"""A `Recording` as the JSON of its file, version 1, and back: strictly, for it may come by mail.

docs/recorder.md describes the file. Fields may be added, never renamed.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from ..errors import SourceError
from ..model import BASIS_CLASSES, COUNTED_CLASSES, STATES, Count, Eni, Workload
from ..rates import SLOT_S
from ..snapshot_json import rfc3339
from ..snapshot_reader import moment_of
from ..strict import Reader
from ..text import clean
from .recording import REASONS, RecordedEni, Recording, Second, Top

KIND = "eni53-recording"
VERSION = 1
MAX_SLOTS = 36_000
MAX_ENIS = 256
_MAX_SECONDS = 20_000
_MAX_TOP = 100
_MOST_PPS = 2.0**64


def dumps(recording: Recording) -> str:
    """*recording* as JSON text in pure ASCII, without spaces."""
    numbers: dict[tuple[Workload, str], int] = {}
    # Each as text at once: all of them as objects would be many times what an agent may hold.
    enis = [_text(_eni(one, numbers)) for one in recording.enis]
    document = {
        "version": VERSION,
        "kind": KIND,
        "agent": clean(recording.agent),
        "node": clean(recording.node),
        "named": recording.named,
        "reason": recording.reason,
        "eni": None if recording.eni is None else clean(recording.eni),
        "begin": rfc3339(recording.begin_s),
        "moment": recording.moment,
        "slot_seconds": SLOT_S,
        "slots": recording.slots,
        "workloads": [
            {
                "kind": clean(workload.kind),
                "namespace": clean(workload.namespace),
                "workload": clean(workload.workload),
                "container": clean(workload.container),
                "via": clean(via),
            }
            for workload, via in numbers
        ],
    }
    return f'{_text(document)[:-1]},"enis":[{",".join(enis)}]}}\n'


def loads(data: str | bytes) -> Recording:
    """The recording in *data*.

    Raises:
        SourceError: *data* is not JSON, or not a recording of version 1.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"recording: not JSON ({type(error).__name__})") from error
    top = Reader(document, "recording")
    if not top.has("kind") or top.text("kind") != KIND:
        raise SourceError("recording: not a recording of eni53")
    if top.integer("version") != VERSION:
        raise SourceError(f"recording.version: only {VERSION} is understood; is eni53 up to date?")
    slots = _at_most(top, "slots", MAX_SLOTS)
    if top.number("slot_seconds") != SLOT_S:
        raise SourceError(f"recording.slot_seconds: must be {SLOT_S}")
    moment = top.optional("moment", top.integer)
    if moment is not None and moment > slots:
        raise SourceError("recording.moment: must be within the slots")
    workloads = [
        (Workload(*map(at.text, ("kind", "namespace", "workload", "container"))), at.text("via"))
        for at in top.objects("workloads")
    ]
    enis = tuple(_read_eni(at, slots, workloads) for at in top.objects("enis"))
    if len(enis) > MAX_ENIS:
        raise SourceError(f"recording.enis: at most {MAX_ENIS}")
    return Recording(
        node=top.text("node"),
        agent=top.text("agent"),
        reason=top.choice("reason", REASONS),
        eni=top.optional("eni", top.text),
        begin_s=moment_of(top, "begin"),
        moment=moment,
        slots=slots,
        enis=enis,
        named=top.boolean("named"),
    )


def _text(document: object) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _eni(one: RecordedEni, numbers: dict[tuple[Workload, str], int]) -> dict[str, Any]:
    return {
        "eni": clean(one.eni.label),
        "mac": clean(one.eni.mac),
        "interface": clean(one.eni.interface),
        "netns": clean(one.eni.netns),
        "vlan": one.eni.vlan,
        "limit_pps": one.limit_pps,
        "basis": one.basis,
        "linklocal": one.linklocal,
        "dns": one.dns,
        "seconds": [
            {
                "at": second.at,
                "state": second.state,
                "linklocal_allowance_exceeded": second.dropped,
                "classes": {
                    name: {"packets": count.packets, "pps": count.pps}
                    for name, count in second.classes.items()
                },
                "top": [
                    {
                        "workload": numbers.setdefault((row.workload, row.via), len(numbers)),
                        "packets": row.packets,
                        "pps": row.pps,
                        "share": row.share,
                    }
                    for row in second.top
                ],
            }
            for second in one.seconds
        ],
    }


def _read_eni(at: Reader, slots: int, workloads: list[tuple[Workload, str]]) -> RecordedEni:
    linklocal, dns = at.counts("linklocal"), at.counts("dns")
    if not len(linklocal) == len(dns) == slots:
        raise SourceError(f"{at.place}: must have {slots} slots")
    seconds = tuple(_read_second(second, slots, workloads) for second in at.objects("seconds"))
    if len(seconds) > _MAX_SECONDS:
        raise SourceError(f"{at.place}.seconds: at most {_MAX_SECONDS}")
    if any(later.at <= sooner.at for sooner, later in pairwise(seconds)):
        raise SourceError(f"{at.place}.seconds: must be in order of time")
    return RecordedEni(
        eni=Eni(
            at.text("eni"), at.text("mac"), at.text("interface"), at.text("netns"), 0,
            at.integer("vlan"),
        ),
        limit_pps=at.integer("limit_pps", least=1),
        basis=at.choice("basis", tuple(BASIS_CLASSES)),
        linklocal=linklocal,
        dns=dns,
        seconds=seconds,
    )  # fmt: skip


def _read_second(at: Reader, slots: int, workloads: list[tuple[Workload, str]]) -> Second:
    classes = at.named("classes")
    if not classes.keys() <= set(COUNTED_CLASSES):
        raise SourceError(f"{at.place}.classes: must be of {', '.join(COUNTED_CLASSES)}")
    top = tuple(_read_top(row, workloads) for row in at.objects("top"))
    if len(top) > _MAX_TOP:
        raise SourceError(f"{at.place}.top: at most {_MAX_TOP}")
    return Second(
        at=_at_most(at, "at", slots),
        state=at.choice("state", STATES),
        dropped=at.optional("linklocal_allowance_exceeded", at.integer),
        classes={name: Count(c.integer("packets"), _pps(c)) for name, c in classes.items()},
        top=top,
    )


def _read_top(at: Reader, workloads: list[tuple[Workload, str]]) -> Top:
    number = at.integer("workload")
    if number >= len(workloads):
        raise SourceError(f"{at.place}.workload: there is no such workload in this file")
    share = at.number("share")
    if share > 1:
        raise SourceError(f"{at.place}.share: at most 1")
    return Top(*workloads[number], at.integer("packets"), _pps(at), share)


def _pps(at: Reader) -> float:
    pps = at.number("pps")
    if pps > _MOST_PPS:  # their sum must be a number too
        raise SourceError(f"{at.place}.pps: at most 2^64")
    return pps


def _at_most(at: Reader, key: str, most: int) -> int:
    number = at.integer(key)
    if number > most:
        raise SourceError(f"{at.place}.{key}: at most {most}")
    return number
