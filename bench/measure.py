"""What a process tree has used, read from /proc: CPU seconds and resident memory.

Called by the scenarios before and after a load. Pure reading; imports nothing of the rest. Threads count with their
process, and children that have ended and been waited for count with their parent (cutime and cstime of proc(5)).
"""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def process_tree(pid: int) -> list[int]:
    """The process and all its living descendants; a process that ends meanwhile is left out."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree so far, in seconds; the kernel's grain is 10 ms."""
    ticks = 0
    for member in process_tree(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The command's name stands in parentheses and may hold anything: the numbers begin after the last one.
        fields = stat.rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident memory (VmRSS) of the tree, added up, in bytes."""
    total = 0
    for member in process_tree(pid):
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    return total
