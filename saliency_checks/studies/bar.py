"""The progress of a study on stderr."""

from __future__ import annotations

import sys
import time

from saliency_checks.fixtures.progress import Live

WIDE = 20  # characters
LEAST = 0.02  # share that must be done before the rest can be foretold: the first part may train something


class Bar:
    """``benchmark  [#####.....]  120 of 300 passes, 12 of 40 parts, 3:20 left  gradient``"""

    def __init__(self, study: str, total: int, left: int, passes: int) -> None:
        self.study, self.total, self.passes = study, total, max(passes, 1)
        self.parts, self.done, self.started = total - left, 0, time.monotonic()
        self.line = Live(sys.stderr)
        if self.parts:
            self.line.permanent(f"{study}: {self.parts} of {total} parts are there already")

    def show(self, what: str) -> None:
        share = self.done / self.passes
        bar = "#" * int(WIDE * share) + "." * (WIDE - int(WIDE * share))
        spent = time.monotonic() - self.started
        left = f", {_clock(spent / share - spent)} left" if share >= LEAST else ""
        self.line(
            f"{self.study} [{bar}] passes: {self.done:,} done, {self.passes - self.done:,} left;"
            f" part {self.parts + 1} of {self.total}{left}: {what}"
        )

    def advance(self, passes: int) -> None:
        self.done, self.parts = self.done + passes, self.parts + 1

    def close(self) -> None:
        self.line.erase()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
