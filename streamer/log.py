"""The log of the server: one line a thing that happens, without what clients sent, and no flood of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_CHARACTERS = 400
MAX_LINES = 5  # of the same kind, in
WINDOW_S = 10.0


def shortened(ident: str) -> str:
    """As much of a session's id as tells it from others, and too little to join it by."""
    return f"{ident[:4]}…"


def set_up(level: int = logging.WARNING) -> None:
    """Logs to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(FORMAT))
    handler.addFilter(Calm())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class OneLine(logging.Formatter):
    """A record as one line. Only the streamer's own errors show where they happened: what other libraries raise at
    what clients send is named, no more, for its words are the clients'."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        is_ours = record.name.split(".")[0] in ("streamer", "models") and record.levelno >= logging.ERROR
        if is_ours:
            return super().format(record)
        shown = logging.makeLogRecord(record.__dict__ | {"exc_info": None, "exc_text": None, "stack_info": None})
        line = super().format(shown)
        if record.exc_info and record.exc_info[0] is not None:
            line += f" ({record.exc_info[0].__name__})"
        return "".join(letter if letter.isprintable() else "?" for letter in line)[:MAX_CHARACTERS]


class Calm(logging.Filter):
    """Lets five lines of a kind through within 10 s, and counts the others."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}  # since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown; the first after a flood says how many were not."""
        kind = (record.name, record.lineno, str(record.msg)[:MAX_CHARACTERS])
        now = self._now()
        since, count = self._kinds.get(kind, (now, 0))
        if now - since >= WINDOW_S:
            if count > MAX_LINES:
                record.msg = f"{record.msg} [and {count - MAX_LINES} like the last of these, before]"
            since, count = now, 0
        if len(self._kinds) > 1000:
            self._kinds.clear()
        self._kinds[kind] = (since, count + 1)
        return count < MAX_LINES
