"""Functions that describe the process that holds the lock, and that check whether the process is alive."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from provisioner.ledger.store import storable

ENDED = ("Z", "X")
"""The states that ``/proc/PID/stat`` shows for a process that has ended."""


def host_name() -> str:
    """Return the name of this machine."""
    import socket

    return storable(socket.gethostname())


def process_owner() -> str:
    """Return the name of the system account of this process, or the number of an account without a name."""
    import getpass

    try:
        return storable(getpass.getuser())
    except (KeyError, OSError):  # an account without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def process_start(pid: int) -> str:
    """Return the start time of process ``pid`` and the caller's PID namespace, each only if it can be read.

    No later process, and no process in another container, has both the same process ID and the same result.
    """
    return " ".join(filter(None, (_process_stat(pid)[1], _pid_namespace())))


def is_alive(host: str, pid: int, start: str) -> bool:
    """Return False if it is certain that the process ran on this machine and has ended, otherwise True.

    ``host``, ``pid`` and ``start`` are the results of :func:`host_name`, ``os.getpid`` and
    :func:`process_start` in that process.
    """
    began, _, namespace = start.partition(" ")
    if host != host_name() or namespace not in ("", _pid_namespace()):
        return True
    if sys.platform == "win32":
        # os.kill(pid, 0) would send Ctrl-C there; the lease decides instead
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    state, begins = _process_stat(pid)
    # a killed process keeps its process ID until its parent reads its exit status
    return state not in ENDED and (not began or begins in ("", began))


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_stat(pid: int) -> tuple[str, str]:
    """Return the state and the start time of a process of this host; empty strings if they cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    words = stat.rpartition(")")[2].split()
    return words[0], words[19]
