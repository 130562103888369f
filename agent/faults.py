"""What went wrong, counted always and logged once per change."""

from __future__ import annotations

from collections import Counter

from .log import OnChange, get_logger


class Faults:
    """Failures of stages and sources; each cost one tick or one source, never a count."""

    def __init__(self) -> None:
        self._log = OnChange(get_logger())
        self._reasons: dict[str, str] = {}
        self.spoken = False
        self.errors: Counter[tuple[str, str]] = Counter()
        self.sources_up: dict[str, bool] = {}

    def failed(self, stage: str, reason: str) -> None:
        """*stage* failed, and goes on."""
        self.errors[stage, reason] += 1
        self._log.changed(
            ("failed", stage),
            reason,
            "eni53.stage_failed",
            level="warning",
            stage=stage,
            reason=reason,
        )

    def attach_failed(self, interface: str, reason: str) -> None:
        """Our programs could not be put on *interface*."""
        if self._log.changed(
            ("attach", interface),
            reason,
            "eni53.attach_failed",
            level="warning",
            interface=interface,
            reason=reason,
        ):
            self.errors["attach", "refused"] += 1

    def source(self, name: str, up: bool, reason: str = "") -> None:
        """An outside source answers, or *reason* why it does not."""
        if not up:
            self.errors["source", name] += 1
        self.sources_up[name] = up
        self._reasons[name] = reason
        if self.spoken:
            self._say(name)

    def speak(self) -> None:
        """From here on sources are spoken of; a start that fails says one line and no more."""
        self.spoken = True
        for name in self.sources_up:
            self._say(name)

    def _say(self, name: str) -> None:
        if self.sources_up[name]:
            self._log.changed(("source", name), True, "eni53.source_up", source=name)
            return
        self._log.changed(
            ("source", name),
            False,
            "eni53.source_down",
            level="warning",
            source=name,
            reason=self._reasons[name],
        )
