"""The exceptions, and the exit code each one ends the program with.

ProvisionerError                 1   something went wrong; the sentence says what, the remedy says what to do
├── UsageError                  64   the command line asks for something that makes no sense
├── WorkspaceError               1   no provisioner.yaml here, or a file that cannot be read or written
├── ManifestsInvalid             3   carries every diagnostic of the run
├── Blocked                      4   a safety limit or a policy stands in the way
├── StalePlan                    5   the portal or the manifests moved since the plan was made
├── Locked                       6   another run holds the ledger or the portal
│   └── LockLost                 6   another run has taken this one's place while it was working
├── Partial                      7   applied in part, or a letter not sent
├── Cancelled                    8   the person said no, or pressed Ctrl-C
├── PortalError                  1   the portal cannot be opened, read or written
├── LedgerError                  1   likewise for the ledger
└── MailError                    1   likewise for letters: transport or templates
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioner.diagnostics import Diagnostic


class ProvisionerError(Exception):
    """A problem told to the person in one sentence, with the command or edit that mends it."""

    exit_code = 1

    def __init__(self, sentence: str, remedy: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.diagnostics = tuple(diagnostics)


class UsageError(ProvisionerError):
    """The command line asks for something that makes no sense."""

    exit_code = 64


class WorkspaceError(ProvisionerError):
    """No workspace here, or one of its files cannot be read or written."""


class ManifestsInvalid(ProvisionerError):
    """The manifests have errors; ``diagnostics`` holds all of them, in source order."""

    exit_code = 3


class Blocked(ProvisionerError):
    """A safety limit, a policy or a rule of the portal stands in the way; nothing was written."""

    exit_code = 4


class StalePlan(ProvisionerError):
    """The portal or the manifests are no longer what the plan was made from; nothing was written."""

    exit_code = 5


class Locked(ProvisionerError):
    """Another run holds the ledger, or writes to the portal for a copy of it; nothing was written."""

    exit_code = 6


class LockLost(Locked):
    """Another run has this one's place, on the ledger or on the portal: it must write nothing more.

    Somebody took the lock away (``provisioner unlock``), or this run stood still for longer than its lease.
    """


class Partial(ProvisionerError):
    """Some of the work is done and some is not; the output names each."""

    exit_code = 7


class Cancelled(ProvisionerError):
    """Stopped by the person, between two steps."""

    exit_code = 8


class PortalError(ProvisionerError):
    """The portal cannot be opened, read or written."""


class LedgerError(ProvisionerError):
    """The ledger cannot be opened, read or written."""


class MailError(ProvisionerError):
    """Letters cannot be rendered or handed over."""


UPGRADE_HINT = "Take a newer version of it, from where this one came."
"""The remedy where this program is older than a file it reads."""


def install_hint(extra: str) -> str:
    """The remedy where a package of an extra of pyproject.toml is not installed."""
    # not by name: on PyPI another program is called provisioner
    return f"Where the program's source is: .venv/bin/pip install --editable '.[{extra}]'"
