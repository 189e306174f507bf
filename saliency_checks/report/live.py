"""Progress of long work: one live line on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 2.0  # seconds without a word that nobody minds
PLAIN_EVERY = 15.0  # seconds between lines that stay
SAVE, RESTORE, CLEAR = "\x1b7", "\x1b8", "\x1b[K"

Clock = Callable[[], float]


class Line:
    """Shows the latest text behind the cursor and leaves the cursor where it was.

    Args:
        write: prints to the terminal.
        room: columns that are left in the current line; the text must not wrap.
    """

    def __init__(self, write: Callable[[str], None], *, room: Callable[[], int], clock: Clock = time.monotonic) -> None:
        self.write, self.room, self.clock = write, room, clock
        self.started = self.last = clock()
        self.shown = False

    def __call__(self, text: str) -> None:
        now = self.clock()
        if now - self.started < PATIENCE or (self.shown and now - self.last < 0.1):
            return
        line = f"  {text} ({now - self.started:.0f} s)"[: max(0, self.room())]
        self.write(f"{SAVE}{line}{CLEAR}{RESTORE}")
        self.shown, self.last = True, now

    def erase(self) -> None:
        if self.shown:
            self.write(CLEAR)
            self.shown = False


class Plain:
    """Writes a whole line when ``PLAIN_EVERY`` seconds have passed since the last word."""

    def __init__(self, write: Callable[[str], None], *, who: str, clock: Clock = time.monotonic) -> None:
        self.write, self.who, self.clock = write, who, clock
        self.started = self.last = clock()

    def __call__(self, text: str) -> None:
        now = self.clock()
        if now - self.last >= PLAIN_EVERY:
            self.write(f"\n{self.who}: {text} ({now - self.started:.0f} s)\n")
            self.last = now

    def erase(self) -> None:
        """What was written stays."""
