"""What the documents say is what the code has."""

from __future__ import annotations

import os
import re
from pathlib import Path

from eni53 import config
from eni53.sinks.metrics import SnapshotCollector

from tests.fixtures.snapshots import near_limit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/configuration.md"


def table() -> str:
    """The rows of docs/configuration.md, from the one table that drives the configuration."""
    rows = ["| key | default | allowed | |", "|---|---|---|---|"]
    for setting in config.describe():
        names = [setting.key] if "." in setting.key else []
        names += [setting.variable] if setting.variable else []
        names += [setting.flag] if setting.flag else []
        shown = "<br>".join(f"`{name}`" for name in names)
        rows.append(f"| {shown} | `{setting.default}` | {setting.allowed} | {setting.help} |")
    return "\n".join(rows)


def test_configuration_page_has_every_setting() -> None:
    """docs/configuration.md holds the table as the code has it; UPDATE_GOLDEN=1 writes it."""
    text = PAGE.read_text()
    before, rest = text.split("<!-- table -->")
    _, after = rest.split("<!-- end -->")
    expected = f"{before}<!-- table -->\n\n{table()}\n\n<!-- end -->{after}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(expected)

    assert PAGE.read_text() == expected


def test_metrics_page_has_every_metric() -> None:
    """docs/metrics.md names every family that is exported, and no other."""
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in SnapshotCollector(near_limit).collect()
    }
    documented = set(re.findall(r"^\| `(eni53_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))

    assert documented == families


def test_every_command_and_flag_is_in_the_readme_or_the_docs() -> None:
    """A command nobody can read about does not exist."""
    text = (ROOT / "README.md").read_text()
    for command in ("agent", "top", "check", "fleet", "doctor", "record", "remedy"):
        assert f"eni53 {command}" in text


def test_links_in_the_documents_lead_somewhere() -> None:
    """A link to a file of this repository names one that is there."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []
