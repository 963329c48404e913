"""The exceptions of the program, and the exit code of the process for each exception.

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
    """The base class of all errors, with a sentence for the user and a remedy (a command or an edit)."""

    exit_code = 1

    def __init__(self, sentence: str, remedy: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.diagnostics = tuple(diagnostics)


class UsageError(ProvisionerError):
    """The command line is invalid, or the command needs an answer from the user but has no terminal."""

    exit_code = 64


class WorkspaceError(ProvisionerError):
    """No workspace was found, or a file of the workspace cannot be read or written."""


class ManifestsInvalid(ProvisionerError):
    """The manifests have errors; ``diagnostics`` holds all errors and warnings, in source order."""

    exit_code = 3


class Blocked(ProvisionerError):
    """A safety limit, a policy or a portal rule forbids the plan; nothing was written."""

    exit_code = 4


class StalePlan(ProvisionerError):
    """The portal, the manifests or the plan file changed after the plan was made; nothing was written."""

    exit_code = 5


class Locked(ProvisionerError):
    """Another run holds the lock of the ledger or the lease of the portal; nothing was written."""

    exit_code = 6


class LockLost(Locked):
    """The run lost its lock or its lease, and must not write anything more.

    Either a user removed the lock (``provisioner unlock``), or the process was suspended until the lease
    expired.
    """


class Partial(ProvisionerError):
    """The run ended, but some steps or letters were not completed; the output names each of them.

    An error with exit code 1 that ends ``apply`` after its first write gets the exit code of this class.
    """

    exit_code = 7


class Cancelled(ProvisionerError):
    """The user answered no to a question, or stopped the run between two steps."""

    exit_code = 8


class PortalError(ProvisionerError):
    """The portal cannot be opened, read or written."""


class LedgerError(ProvisionerError):
    """The ledger cannot be opened, read or written."""


class MailError(ProvisionerError):
    """Letters cannot be rendered, or the mail transport cannot be used."""


UPGRADE_HINT = "Take a newer version of it, from where this one came."
"""The remedy in the error about a file that a newer version of the program has written."""


def install_hint(extra: str) -> str:
    """Return the remedy for a missing package; ``extra`` is the extra of pyproject.toml that installs it."""
    # by path, because another program has the name provisioner on PyPI
    return f"Where the program's source is: .venv/bin/pip install --editable '.[{extra}]'"
