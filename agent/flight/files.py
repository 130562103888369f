"""The recordings of a runtime directory: bounded in number and in size, the oldest gone first."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ..errors import SourceError
from .recording import RecordedEni, Recording
from .recording_json import dumps, loads

DIRECTORY = "recordings"
MAX_FILES = 10
MAX_BYTES = 1 << 20
MAX_READ_BYTES = 64 << 20
_OURS = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9-]+\.json")
_HALF_DONE = re.compile(r"\.\d{8}T\d{6}Z-[A-Za-z0-9-]+\.json\.part")


def name_for(time_s: float, reason: str, eni: str) -> str:
    """A file name that sorts by time and can hold no more than letters, digits and dashes."""
    moment = datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    label = re.sub(r"[^A-Za-z0-9]+", "-", eni).strip("-")[:40] or "eni"
    return f"{moment}-{reason}-{label}.json"


def fitted(recording: Recording, most: int = MAX_BYTES) -> str:
    """*recording* as JSON of at most *most* bytes: the calmest ENIs are left out first.

    The one it was made for stays. An attacker may give ten thousand containers long names; at last
    the names go, never the rates.
    """
    text = dumps(recording)
    while len(text) > most and len(recording.enis) > 1:
        number = min(len(recording.enis) - 1, len(recording.enis) * most // len(text))
        recording = replace(recording, enis=_foremost(recording, max(1, number)))
        text = dumps(recording)
    if len(text) > most:
        bare = tuple(
            replace(one, seconds=tuple(replace(second, top=()) for second in one.seconds))
            for one in recording.enis
        )
        text = dumps(replace(recording, enis=bare))
    return text


def write(directory: Path, name: str, text: str) -> Path:
    """Write it, whole or not at all, and remove what is too old for its number.

    Raises:
        SourceError: It could not be written.
    """
    half_done = directory / f".{name}.part"
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        half_done.write_text(text, encoding="ascii")
        half_done.replace(directory / name)
        _tidy(directory, name)
    except OSError as error:
        with contextlib.suppress(OSError):
            half_done.unlink()
        raise SourceError(f"cannot write to {directory}: {error.strerror}") from error
    return directory / name


def read(path: Path) -> Recording:
    """The recording in the file *path*.

    Raises:
        SourceError: It cannot be read, or is no recording.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise SourceError("it is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_READ_BYTES + 1)
    except OSError as error:
        raise SourceError(error.strerror or type(error).__name__) from error
    if len(data) > MAX_READ_BYTES:
        raise SourceError(f"it is larger than {MAX_READ_BYTES >> 20} MiB")
    return loads(data)


def _foremost(recording: Recording, number: int) -> tuple[RecordedEni, ...]:
    """So many of its ENIs, in their order: the one it was made for, and the busiest."""
    enis = recording.enis
    ranks = sorted(range(len(enis)), key=lambda at: (enis[at].eni.label != recording.eni, at))
    return tuple(enis[at] for at in sorted(ranks[:number]))


def _tidy(directory: Path, latest: str) -> None:
    names = sorted(entry.name for entry in directory.iterdir() if entry.is_file())
    # The latest is not looked at: a clock that was set back makes its name an old one.
    older = [name for name in names if _OURS.fullmatch(name) and name != latest]
    left_over = [name for name in names if _HALF_DONE.fullmatch(name)]
    for name in [*older[: max(0, len(older) + 1 - MAX_FILES)], *left_over]:
        (directory / name).unlink(missing_ok=True)
