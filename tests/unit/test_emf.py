"""CloudWatch's embedded metric format: what its specification asks for, and when a line is due."""

import json
import os
import threading
from dataclasses import replace

import pytest
from eni53.errors import SourceError
from eni53.model import SEVERITIES
from eni53.sinks.emf import EmfLines, Lines, emf_line

from tests.fixtures.alerts import alert, moment, usage
from tests.fixtures.hostile import hostile
from tests.fixtures.snapshots import NOON_S

UNITS = {"Seconds", "Percent", "Count", "Count/Second", "None"}  # of the specification's, ours


def checked(line):
    """The line as an object, held against the specification (structure, references, limits)."""
    assert "\n" not in line
    assert line.isascii()
    assert len(line) < 256 * 1024
    root = json.loads(line)
    meta = root["_aws"]
    assert isinstance(meta["Timestamp"], int)
    assert set(meta) == {"Timestamp", "CloudWatchMetrics"}
    for directive in meta["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 255
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            for name in names:
                assert isinstance(root[name], str)
                assert 1 <= len(root[name]) <= 1024
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) <= {"Name", "Unit", "StorageResolution"}
            assert metric["Unit"] in UNITS
            assert isinstance(root[metric["Name"]], int | float)
    return root


def metrics(root):
    """Names and values of a line's metrics."""
    (directive,) = root["_aws"]["CloudWatchMetrics"]
    return {metric["Name"]: root[metric["Name"]] for metric in directive["Metrics"]}


def test_a_line_is_what_the_specification_asks_for():
    """Metrics by reference into the root, dimensions node and eni, time in milliseconds."""
    root = checked(emf_line(moment(), usage("critical"), 12, ["critical raised"]))
    assert root["_aws"]["Timestamp"] == round(NOON_S * 1000)
    assert root["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["node", "eni"]]
    assert (root["node"], root["eni"]) == ("ip-10-0-1-23", "eni-1")
    assert metrics(root) == {
        "PeakPps": 1000.0, "UtilizationPercent": 97.656, "LimitPps": 1024, "LinkLocalDropped": 12,
    }  # fmt: skip
    assert (root["state"], root["transitions"]) == ("critical", ["critical raised"])


def test_no_driver_is_no_metric():
    """Absent, not zero."""
    root = checked(emf_line(moment(), usage("ok"), None))
    assert "LinkLocalDropped" not in metrics(root)
    assert "LinkLocalDropped" not in root


def test_hostile_names_are_dimensions_all_the_same():
    """CloudWatch refuses the whole line for a dimension that is empty or not ASCII."""
    snapshot = hostile()
    (one,) = snapshot.enis
    checked(emf_line(snapshot, one, None))
    nameless = replace(one, eni=replace(one.eni, label="\u6f22\u200b"))
    root = checked(emf_line(replace(snapshot, node=""), nameless, None))
    assert root["node"] == "unknown"


def due(lines, *at_s):
    """How many lines at each of these moments."""
    both = moment(usage("ok"), usage("ok", label="eni-2"))
    return [len(lines.update(both, (), at)) for at in at_s]


def test_a_line_a_minute_for_each_eni():
    """However often it is looked at."""
    assert due(EmfLines(), 5, 6, 30, 64.9, 65, 66, 124, 125) == [2, 0, 0, 0, 2, 0, 0, 2]


def test_a_transition_is_one_line_of_that_eni():
    """However many severities it passes; and none of an ENI that is gone."""
    lines = EmfLines()
    lines.update(moment(usage("ok"), usage("ok", label="eni-2")), (), 0)
    changed = [alert(severity) for severity in SEVERITIES]
    (line,) = lines.update(moment(usage("exceeded"), usage("ok", label="eni-2")), changed, 1)
    assert checked(line)["transitions"] == ["warning raised", "critical raised", "exceeded raised"]
    assert lines.update(moment(usage("ok", label="eni-2")), changed, 2) == ()


def test_drops_are_those_since_the_line_before():
    """So that their sum is how many there were; the first line cannot know."""
    lines = EmfLines()
    counts = [100, 100, 130, 7, None, 9]
    found = []
    for at, count in enumerate(counts):
        for between in (0, 20):  # looks between two lines change nothing
            said = lines.update(moment(usage("ok", drops=count)), (), at * 60 + between)
            found += [metrics(checked(line)).get("LinkLocalDropped") for line in said]
    assert found == [None, 0, 30, 0, None, 2]


def test_what_is_gone_is_forgotten():
    """Tasks come and go with ENIs of their own."""
    lines = EmfLines()
    for number in range(50):
        lines.update(moment(usage(label=f"eni-{number}", drops=1)), (), number)
    assert set(lines._dropped) == {"eni-49"}


def test_lines_are_written_whole():
    """More than a pipe holds, to a reader that is slow."""
    reader, writer = os.pipe()
    got = bytearray()

    def read():
        while piece := os.read(reader, 1000):
            got.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        Lines(writer).send(tuple("x" * 999 for _ in range(300)))
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    assert bytes(got) == (b"x" * 999 + b"\n") * 300


def test_a_reader_that_went_away_is_one_line():
    """It costs the lines and nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(SourceError, match="standard output: Broken pipe"):
            Lines(writer).send(("x",))
    finally:
        os.close(writer)
