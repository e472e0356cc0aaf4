"""The application log: what the process says of itself, on standard error, as lines of text or of JSON.

Who calls it: ``sidecar.cli``, before anything has something to say, and the composition root. Modules log through
``logging.getLogger(__name__)``. A record is one line, whatever is in it; only a traceback, which is ours to fix,
follows it on lines of its own (in JSON, as a field).

Until the process serves, whoever logs writes: so what keeps it from starting is told in order, and before its end.
While it serves, a writer's thread does (``Background``): standard error may be a pipe that nobody empties, and what
does not fit is dropped and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.telemetry.log_writer import LogWriter

MAX_PENDING = 262_144  # bytes: a thousand lines, of which a sidecar has few
FLUSH_SECONDS = 2.0  # how long the end may wait for a standard error that is slow
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextFormatter(logging.Formatter):
    """``sidecar: message``; from warnings up the level stands between: ``sidecar: warning: message``."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line = f"sidecar: {level}{_one_line(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Background(logging.Handler):
    """Gives lines to a writer's thread. Any thread may log: the handler's own lock keeps them apart."""

    def __init__(self, formatter: logging.Formatter, writer: LogWriter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._writer = writer
        self._counted = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._writer.put(line.encode("utf-8", "backslashreplace") + b"\n")
        self._writer.hand_over()

    def newly_dropped(self) -> int:
        """Lines lost since the last call."""
        dropped = self._writer.dropped
        new = dropped - self._counted
        self._counted = dropped
        return new

    def finish(self, seconds: float) -> bool:
        """Writes what is left, for at most ``seconds``; says whether all was written. What is logged later is not."""
        self.acquire()
        try:
            logging.getLogger().removeHandler(self)
            return self._writer.close(seconds)
        finally:
            self.release()


def configure(level: str, form: str) -> None:
    """Sends what is logged from now on to standard error, in ``form`` ("text" or "json"), from ``level`` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form))
    logging.raiseExceptions = False  # a closed standard error is no reason to stop serving
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)


@contextmanager
def in_background(standard: int = 2) -> Iterator[Background]:
    """While it lasts, what is logged goes to the descriptor ``standard`` by way of a thread, in the form that was
    configured. Its end waits up to FLUSH_SECONDS for the last lines, and puts back what was there before."""
    root = logging.getLogger()
    before = root.handlers[:]
    formatter = next((handler.formatter for handler in before if handler.formatter), None) or TextFormatter()
    handler = Background(formatter, LogWriter("-", standard=standard, max_pending=MAX_PENDING))
    root.handlers[:] = [handler]
    try:
        yield handler
    finally:
        complete = handler.finish(FLUSH_SECONDS)
        # Where standard error is stuck, it would stop whoever writes to it.
        root.handlers[:] = before if complete else [logging.NullHandler()]


def _formatter(form: str) -> logging.Formatter:
    if form == "text":
        return TextFormatter()
    from sidecar.logging_json import formatter  # not before it is needed: it brings a library

    return formatter()


def _one_line(text: str) -> str:
    """Line ends and other control characters as escapes, so that nobody can write a line in our name."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
