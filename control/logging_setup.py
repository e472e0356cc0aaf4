"""What the control plane says of itself, on standard error, as lines of text or of JSON.

Who calls it: ``control.cli``. A record is one line, whatever is in it; only a traceback, which is ours to fix, follows
on lines of its own (in JSON, as a field). Nothing that is secret is ever given to a logger: tokens go by their ids.
"""

from __future__ import annotations

import logging
import time

import msgspec

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextFormatter(logging.Formatter):
    """``sidecar-control: message``; from warnings up the level stands between."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line = f"sidecar-control: {level}{one_line(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Fields: time (UTC, RFC 3339), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def configure(level: str, form: str) -> None:
    """Sends what is logged from now on to standard error, in ``form`` ("text" or "json"), from ``level`` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.raiseExceptions = False  # a closed standard error is no reason to stop serving
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)


def one_line(text: str) -> str:
    """Line ends and other control characters as escapes, so that nobody can write a line in our name."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
