"""The application log as JSON: an object per line, by python-json-logger.

Imported by ``sidecar.logging_setup`` where ``--log-format json`` asks for it, and by no other module: a start without
it is smaller by the library.
"""

from __future__ import annotations

import logging
import time

from pythonjsonlogger.json import JsonFormatter

_FIELDS = ("asctime", "levelname", "name", "message")
_NAMES = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}


class _Formatter(JsonFormatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{moment}.{int(record.msecs):03d}Z"

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Half of a surrogate pair is escaped twice: JSON's own escape for it is not text for every reader."""
        log_data["level"] = str(log_data["level"]).lower()
        return {
            name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
            for name, value in log_data.items()
        }


def formatter() -> logging.Formatter:
    """Fields: time (UTC, RFC 3339), level, logger, message, and exception where there is one."""
    return _Formatter(_FIELDS, rename_fields=_NAMES)
