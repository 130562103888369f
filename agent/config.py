"""File, environment and flags become one frozen `Config`, or one line that says what is wrong.

Flags win over environment over file, and all three are checked in full: a wrong value that a
flag would hide is still an error. What may be set is in `config_table`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from .config_rules import Listen
from .config_table import SECTIONS, TABLE, Config, Setting, describe
from .errors import UsageError
from .text import clean

__all__ = ["MAX_FILE_BYTES", "Config", "Listen", "Setting", "describe", "load"]

MAX_FILE_BYTES = 1 << 20
_PREFIX = "ENI53_"
_VARIABLES = {setting.variable: setting for setting in TABLE.values() if setting.variable}
# Kubernetes sets these for every Service of the namespace: one named eni53-metrics makes
# ENI53_METRICS_PORT, and the agent must still start.
_SERVICE_LINK = re.compile(r".*_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The settings in force.

    Args:
        path: The TOML file; None when there is none.
        environ: The environment; only ENI53_… is looked at.
        flags: Setting's key (``runtime.docker_socket``, ``listen``) to value; None: not given.

    Raises:
        UsageError: One line: where it came from, the key, the value, and what is allowed.
    """
    values = {key: setting.default for key, setting in TABLE.items()}
    origins = dict.fromkeys(TABLE, "default")
    layers = (_from_file(path) if path else iter(()), _from_environ(environ), _from_flags(flags))
    for layer in layers:
        for origin, setting, value, is_text in layer:
            values[setting.key] = _checked(origin, setting, value, is_text)
            origins[setting.key] = origin
    _check_thresholds(values, origins)
    return _build(values)


_Given = Iterator[tuple[str, Setting, object, bool]]  # origin, setting, value, is it bare text


def _from_file(path: Path) -> _Given:
    origin = clean(str(path))
    for section, table in _parse(path).items():
        if section in TABLE:  # listen, runtime_dir, attach
            raise UsageError(f"{origin}: {section} cannot be set in a file: {_elsewhere(section)}")
        if section not in SECTIONS:
            hint = _hint(section, SECTIONS)
            raise UsageError(f"{origin}: unknown section [{clean(section)}]{hint}")
        if not isinstance(table, dict):
            raise UsageError(
                f"{origin}: {section} = {_shown(table)}: must be a section, as in [{section}]"
            )
        for name, value in table.items():
            key = f"{section}.{name}"
            if key not in TABLE:
                raise UsageError(f"{origin}: unknown key {clean(key)}{_hint(key, TABLE)}")
            yield origin, TABLE[key], value, False


def _parse(path: Path) -> dict[str, Any]:
    shown = clean(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{shown}: cannot read the configuration file: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{shown}: not a configuration file: larger than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}: not UTF-8: byte {error.start}, line {line}") from None
    except RecursionError:
        raise UsageError(f"{shown}: not TOML: nested too deeply") from None
    except ValueError as error:
        lines = text.split("\n")
        end = f"line {len(lines)}, column {len(lines[-1]) + 1}"
        reason = clean(str(error).replace("end of document", end))
        raise UsageError(f"{shown}: not TOML: {reason}") from None


def _from_environ(environ: Mapping[str, str]) -> _Given:
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        if name in _VARIABLES:
            yield f"variable {name}", _VARIABLES[name], environ[name], True
        elif not _SERVICE_LINK.fullmatch(name):
            _refuse_typo(name)


def _refuse_typo(name: str) -> None:
    """Raise for what looks like a setting; other ENI53_… variables are somebody else's."""
    key = name.removeprefix(_PREFIX).lower()
    if key in TABLE:
        raise UsageError(f"variable {name}: not read from the environment: {_elsewhere(key)}")
    ours = any(key.startswith(f"{section}_") for section in SECTIONS)
    if ours or difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0.85):
        raise UsageError(f"unknown variable {clean(name)}{_hint(name, _VARIABLES)}")


def _from_flags(flags: Mapping[str, object]) -> _Given:
    for key, value in flags.items():
        if key not in TABLE or key == "attach":
            raise UsageError(f"flag: unknown key {clean(key)}{_hint(key, TABLE)}")
        setting = TABLE[key]
        if value is not None:
            is_text = isinstance(value, str) and setting.kind != "text"
            yield f"flag {setting.flag or key}", setting, value, is_text


def _checked(origin: str, setting: Setting, value: object, is_text: bool) -> object:
    try:
        return setting.rule.take_text(str(value)) if is_text else setting.rule.take(value)
    except (ValueError, OverflowError):  # OverflowError: an integer too large for a float
        line = f"{origin}: {setting.key} = {_shown(value)}: must be {setting.allowed}"
        raise UsageError(line) from None


def _check_thresholds(values: Mapping[str, object], origins: Mapping[str, str]) -> None:
    keys = ("alerts.clear_below", "alerts.warning", "alerts.critical")
    low, middle, high = (cast(float, values[key]) for key in keys)
    if not low < middle < high:
        given = ", ".join(f"{key} = {values[key]} ({origins[key]})" for key in keys)
        raise UsageError(f"{given}: must be 0 < clear_below < warning < critical <= 1")


def _build(values: Mapping[str, object]) -> Config:
    parts: dict[str, Any] = {}
    for item in fields(Config):
        if item.name in TABLE:
            parts[item.name] = values[item.name]
            continue
        owner = cast(type, item.default_factory)
        parts[item.name] = owner(**{f.name: values[f"{item.name}.{f.name}"] for f in fields(owner)})
    return Config(**parts)


def _elsewhere(key: str) -> str:
    setting = TABLE[key]
    return f"use {setting.flag}" if setting.flag else f"use the variable {setting.variable}"


def _hint(word: str, choices: Iterable[str]) -> str:
    known = list(choices)
    # A key under the wrong section, or under none: its own name decides.
    tails = [choice for choice in known if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    near = tails or difflib.get_close_matches(word[:100], known, n=1)
    return f": did you mean {near[0]}?" if near else f": known are {', '.join(known)}"


def _shown(value: object) -> str:
    try:
        return clean(repr(str(value) if isinstance(value, Path) else value), 80)
    except ValueError:  # CPython will not print an integer of more than 4300 digits
        return "(a huge number)"
