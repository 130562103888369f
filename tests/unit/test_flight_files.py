"""Recordings on disk: few, small, whole or not at all, and nothing of anybody else's touched."""

import os
import re
from dataclasses import replace

import pytest
from eni53.errors import SourceError
from eni53.flight import files
from eni53.flight.files import MAX_BYTES, MAX_FILES, fitted, name_for, read, write
from eni53.flight.recording import Top
from eni53.flight.recording_json import dumps, loads
from eni53.model import Workload

from tests.fixtures.flights import recorded, recording
from tests.fixtures.hostile import HOSTILE_NAMES
from tests.fixtures.snapshots import API, NOON_S

NAME = "20240504T121456Z-exceeded-eni-1.json"


def written(directory, number):
    """So many recordings, a second apart; their names."""
    names = [name_for(NOON_S + n, "exceeded", "eni-1") for n in range(number)]
    for n, name in enumerate(names):
        write(directory, name, f"{n}\n")
    return names


def there(directory):
    """Names in it."""
    return sorted(entry.name for entry in directory.iterdir())


class TestNames:
    """What a file is called."""

    def test_it_says_when_why_and_of_what(self):
        """In UTC, so that they sort by time."""
        assert name_for(NOON_S, "exceeded", "eni-1") == NAME
        assert name_for(NOON_S, "driver-drops", "mac:02:4e:11:d0:5b:9d") == (
            "20240504T121456Z-driver-drops-mac-02-4e-11-d0-5b-9d.json"
        )

    @pytest.mark.parametrize(
        "label", [*HOSTILE_NAMES, "../../etc/passwd", "/", "..", "\0", "a/b\nc", "-", "x" * 5000]
    )
    def test_whatever_an_eni_is_called(self, tmp_path, label):
        """Letters, digits and dashes, of bounded length, in this directory, and ours to remove."""
        name = name_for(NOON_S, "exceeded", label)
        assert re.fullmatch(
            r"20240504T121456Z-exceeded-[A-Za-z0-9]([A-Za-z0-9-]{0,39})\.json", name
        )
        assert write(tmp_path, name, "x") == tmp_path / name
        assert there(tmp_path) == [name]
        later = written(tmp_path, MAX_FILES + 1)[1:]
        assert there(tmp_path) == later


class TestWrite:
    """Into a directory that others may use too."""

    def test_the_directory_is_made_and_the_file_is_there_whole(self, tmp_path):
        """Written again under its name it is replaced."""
        directory = tmp_path / "recordings"
        assert write(directory, NAME, "half\n").read_text() == "half\n"
        assert write(directory, NAME, "whole\n").read_text() == "whole\n"
        assert there(directory) == [NAME]
        assert directory.stat().st_mode & 0o777 == 0o755

    def test_the_oldest_go_first(self, tmp_path):
        """Ten stay, whatever order they were written in."""
        names = written(tmp_path, MAX_FILES + 7)
        assert there(tmp_path) == names[-MAX_FILES:]

    def test_the_latest_stays_even_if_its_clock_is_behind(self, tmp_path):
        """After a clock was set back it is the oldest by its name, and the one that matters."""
        written(tmp_path, MAX_FILES)
        for year in (2001, 2002):
            name = f"{year}0504T121456Z-exceeded-eni-1.json"
            assert write(tmp_path, name, "x").exists()
            assert len(there(tmp_path)) == MAX_FILES

    def test_what_is_not_ours_stays(self, tmp_path):
        """By its name, or because it is no file; what a kill -9 left half done goes."""
        foreign = [
            "notes.txt", "20200504T121456Z-exceeded-eni-1.json.gz", "x20200504T121456Z-a-b.json",
            "20200504T121456Z-exceeded-eni 1.json", ".hidden", ".20200504T121456Z-a-b.part",
            "2020-exceeded-eni-1.json", "20200504T121456Z-exceeded-eni-1.json\n",
        ]  # fmt: skip
        for name in foreign:
            (tmp_path / name).write_text("mine")
        directory = "20200504T121456Z-kept-by-hand.json"
        (tmp_path / directory).mkdir()
        (tmp_path / ".20200504T121456Z-exceeded-eni-1.json.part").write_text("half")
        names = written(tmp_path, MAX_FILES + 2)
        assert there(tmp_path) == sorted([*foreign, directory, *names[-MAX_FILES:]])

    @pytest.mark.parametrize("obstacle", ["file", "no parent", "directory at its name", "loop"])
    def test_what_cannot_be_written_is_one_line(self, tmp_path, obstacle):
        """And leaves nothing half done."""
        directory = tmp_path / "recordings"
        if obstacle == "file":
            directory.write_text("in the way")
        elif obstacle == "no parent":
            directory = tmp_path / "absent" / "recordings"
        elif obstacle == "loop":
            directory.symlink_to(directory)
        else:
            (directory / NAME).mkdir(parents=True)
        with pytest.raises(SourceError, match=r"^cannot write to [^\n]+: [^\n]+$"):
            write(directory, NAME, "x")
        assert [p for p in tmp_path.rglob("*") if p.suffix == ".part"] == []

    def test_a_full_disk_leaves_the_last_file_and_no_half_one(self, tmp_path):
        """/dev/full stands in the place where the new one grows."""
        write(tmp_path, NAME, "the one before\n")
        (tmp_path / f".{NAME}.part").symlink_to("/dev/full")
        with pytest.raises(SourceError, match=r"^cannot write to \S+: No space left on device$"):
            write(tmp_path, NAME, "x" * 100_000)
        assert there(tmp_path) == [NAME]
        assert write(tmp_path, NAME, "the next\n").read_text() == "the next\n"


class TestRead:
    """A file from anywhere."""

    def test_it_is_what_was_written(self, tmp_path):
        """Byte for byte."""
        path = write(tmp_path, NAME, dumps(recording()))
        assert read(path) == recording()

    @pytest.mark.parametrize("kind", ["absent", "directory", "device", "pipe", "loop", "long"])
    def test_what_is_no_file_is_one_line(self, tmp_path, kind):
        """At once: a device never ends, and a pipe may never begin."""
        path = tmp_path / "x"
        if kind == "directory":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "long":
            path = tmp_path / ("x" * 300)
        with pytest.raises(SourceError, match=r"^[^\n]+$"):
            read(path)

    def test_what_is_too_large_is_not_read_to_its_end(self, tmp_path):
        """A sparse file of a terabyte costs 64 MiB."""
        with (tmp_path / "x").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(SourceError, match=r"^it is larger than 64 MiB$"):
            read(tmp_path / "x")


class TestFitted:
    """At most 1 MiB."""

    def test_what_fits_is_left_alone(self):
        """No ENI and no name less."""
        assert fitted(recording()) == dumps(recording())

    def test_the_calmest_enis_go(self):
        """As few of them as it takes, about; the order stays."""
        many = tuple(recorded(f"eni-{n}", slots=1200, pps=100 - n) for n in range(60))
        whole = recording(*many, eni="eni-0", slots=1200)
        text = fitted(whole)
        kept = loads(text).enis
        assert len(dumps(whole)) > MAX_BYTES >= len(text) > 0.9 * MAX_BYTES
        assert kept == many[: len(kept)]

    def test_the_one_it_was_made_for_stays(self):
        """It may have exceeded for a second, and be the calmest over the two minutes."""
        many = tuple(recorded(f"eni-{n}", slots=1200, pps=100 - n) for n in range(60))
        kept = loads(fitted(recording(*many, eni="eni-59", slots=1200))).enis
        assert kept == (*many[: len(kept) - 1], many[-1])
        alone = loads(fitted(recording(*many, eni="eni-59", slots=1200), most=60_000)).enis
        assert alone == (many[-1],)

    def test_at_last_the_names_go_and_never_the_rates(self):
        """Long names, new ones each second: every slot, state and class is still there."""
        one = recorded(slots=1200)
        rows = [
            tuple(
                Top(Workload("pod", "é" * 250, f"{at}-{n}" + "漢" * 250), "direct", 1, 1.0, 0.1)
                for n in range(5)
            )
            for at in range(len(one.seconds))
        ]
        wild = replace(
            one,
            seconds=tuple(replace(s, top=top) for s, top in zip(one.seconds, rows, strict=True)),
        )
        text = fitted(recording(wild, slots=1200))
        assert len(text) <= MAX_BYTES
        bare = replace(one, seconds=tuple(replace(s, top=()) for s in one.seconds))
        assert loads(text) == recording(bare, slots=1200)
        assert API.workload not in text


def test_bounds_are_what_the_documents_say():
    """docs/recorder.md: at most ten files of at most 1 MiB."""
    assert (files.DIRECTORY, MAX_FILES, MAX_BYTES) == ("recordings", 10, 1024**2)
