"""The exceptions, and the exit code with which each one ends the program.

ProvisionerError                 1
├── UsageError                  64
├── WorkspaceError               1
├── ManifestsInvalid             3
├── Blocked                      4
├── StalePlan                    5
├── Locked                       6
│   └── LockLost                 6
├── Partial                      7
├── Cancelled                    8
├── PortalError                  1
├── LedgerError                  1
└── MailError                    1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioner.diagnostics import Diagnostic


class ProvisionerError(Exception):
    """A problem: one sentence for the user, and the command or edit that resolves it."""

    exit_code = 1

    def __init__(self, sentence: str, remedy: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.diagnostics = tuple(diagnostics)


class UsageError(ProvisionerError):
    """The command line is wrong, or asks a question that cannot be answered without a terminal."""

    exit_code = 64


class WorkspaceError(ProvisionerError):
    """No workspace here, or one of its files cannot be read or written."""


class ManifestsInvalid(ProvisionerError):
    """The manifests have errors; ``diagnostics`` holds all problems of the run, in source order."""

    exit_code = 3


class Blocked(ProvisionerError):
    """A safety limit, a policy or a portal rule forbids the plan; nothing was written."""

    exit_code = 4


class StalePlan(ProvisionerError):
    """The portal or the manifests have changed since the plan was made; nothing was written."""

    exit_code = 5


class Locked(ProvisionerError):
    """Another run holds the lock of the ledger or the lease of the portal; nothing was written."""

    exit_code = 6


class LockLost(Locked):
    """The run lost its lock or its lease, and must write nothing more.

    A user removed the lock (``provisioner unlock``), or it was suspended for longer than its lease.
    """


class Partial(ProvisionerError):
    """Steps or letters of the run are left; the output names each."""

    exit_code = 7


class Cancelled(ProvisionerError):
    """The user answered no, or stopped the run between two steps."""

    exit_code = 8


class PortalError(ProvisionerError):
    """The portal cannot be opened, read or written."""


class LedgerError(ProvisionerError):
    """The ledger cannot be opened, read or written."""


class MailError(ProvisionerError):
    """Letters cannot be rendered, or the mail transport cannot be used."""


UPGRADE_HINT = "Take a newer version of it, from where this one came."
"""The remedy for a file that a newer version of the program has written."""


def install_hint(extra: str) -> str:
    """The remedy for a missing package that belongs to this extra of pyproject.toml."""
    # the name does not work: on PyPI it belongs to another program
    return f"Where the program's source is: .venv/bin/pip install --editable '.[{extra}]'"
