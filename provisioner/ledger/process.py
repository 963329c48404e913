"""Which process holds the lock: its owner and host, and whether a process of this machine still runs."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.ledger.store import storable

ENDED = ("Z", "X")
"""The states in ``/proc/PID/stat`` of a process that runs no more."""


def host_name() -> str:
    """The name of this machine."""
    import socket

    return storable(socket.gethostname())


def process_owner() -> str:
    """The name of the system account that runs this process; its number where it has no name."""
    import getpass

    try:
        return storable(getpass.getuser())
    except (KeyError, OSError):  # an account without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def process_start(pid: int) -> str:
    """When a process of this machine began, and its pid namespace; empty where they cannot be seen.

    Tells a process from a later one with the same number, and from one in another container of this host.
    """
    return " ".join(filter(None, (_process_stat(pid)[1], _pid_namespace())))


def is_alive(host: str, pid: int, start: str) -> bool:
    """False only if it is known that the process ran on this machine, in this pid namespace, and ended."""
    began, _, namespace = start.partition(" ")
    if host != host_name() or namespace not in ("", _pid_namespace()):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    state, begins = _process_stat(pid)
    # a killed process keeps its number until its parent collects its exit status
    return state not in ENDED and (not began or begins in ("", began))


def _pid_namespace() -> str:
    """The kernel's name for this process's pid namespace; empty where there is none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_stat(pid: int) -> tuple[str, str]:
    """State and start time of a process of this machine; empty where they cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    words = stat.rpartition(")")[2].split()
    return words[0], words[19]
