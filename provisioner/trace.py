"""The trace of what the program exchanges with portals, databases and mail servers.

Each kind of exchange has a logger of the standard library: ``provisioner.http``, ``provisioner.scim``,
``provisioner.sql`` and ``provisioner.smtp``. Each exchange is one record of the level DEBUG. The options
``--verbose`` and ``--log FILE`` show the records (:mod:`provisioner.terminal.trace`).

A record has no secret, and no personal data except e-mail addresses and the ids that a portal gives to
accounts. Therefore the callers of :func:`exchange` pass no header, no body, no value of a query or of an SQL
statement, and no text of a server.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOGGER = "provisioner"
"""The name of the parent logger of the loggers of all kinds."""


@dataclass(slots=True)
class Exchange:
    """The result and the size of an exchange. The caller of :func:`exchange` sets them within the block."""

    result: str = ""
    """The status or reply code. An exchange that ends with an exception gets the exception's name."""
    size: str = ""


def is_traced(kind: str) -> bool:
    """Return True if exchanges of this kind are recorded."""
    # importing logging takes time, and no logger can be enabled before it is imported
    logging = sys.modules.get("logging")
    return logging is not None and logging.getLogger(f"{LOGGER}.{kind}").isEnabledFor(logging.DEBUG)


@contextmanager
def exchange(kind: str, what: str) -> Iterator[Exchange]:
    """Record the exchange that the block makes: ``what``, its result, its duration and its size."""
    done = Exchange()
    if not is_traced(kind):
        yield done
        return
    import logging

    began = time.perf_counter()
    try:
        yield done
    except BaseException as problem:
        # the name of an error of SQLite says more than its class
        done.result = done.result or getattr(problem, "sqlite_errorname", "") or type(problem).__name__
        raise
    finally:
        milliseconds = (time.perf_counter() - began) * 1000
        parts = (done.result or "ok", f"{milliseconds:.1f} ms", *([done.size] if done.size else []))
        logging.getLogger(f"{LOGGER}.{kind}").debug("%s -> %s", what, ", ".join(parts))
