"""What every portal driver promises.

A portal holds the state of record and has other writers than us. Drivers translate their
library's exceptions into :class:`~provisioner.errors.PortalError` at their border; a refusal
of one step is not an exception but the verdict of its receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from provisioner.model import Company, State, Terms, User, value
from provisioner.planning.steps import Step


class Verdict(StrEnum):
    """How one step ended."""

    APPLIED = "applied"
    """The portal did it, for this call or for an earlier one with the same key."""
    ALREADY = "already"
    """Somebody else had done just this; nothing was written."""
    CONFLICT = "conflict"
    """The resource is not as expected; nothing was written."""
    FAILED = "failed"
    """A rule or the portal refuses; nothing was written."""
    SKIPPED = "skipped"
    """Never sent: something it depends on did not happen."""


@value
class Call:
    """One step to be done.

    ``id`` and ``version`` are those of the user or company as last read (empty and 0 for what is to be
    created); the portal refuses with *conflict* when the version has moved. ``key`` makes a repetition
    harmless: the same key gives the first receipt again.
    """

    key: str
    step: Step
    id: str = ""
    version: int = 0


@value
class Receipt:
    """What the portal answers; ``id`` and ``version`` as they stand after the step."""

    key: str
    verdict: Verdict
    id: str = ""
    version: int = 0
    problem: str = ""


@value
class Capabilities:
    """What this portal can do beyond the least."""

    batch: int = 1
    """How many calls it takes at once, with one commit where it has commits."""
    receipts: bool = True
    """It remembers keys, so that an interrupted call can be looked up."""
    sends_welcome: bool = False
    """It can send the welcome e-mail itself (``welcome: portal``)."""
    activation_links: bool = True


@value
class Snapshot:
    """Everything the portal holds, read at one instant; users are keyed by ``email_key(email)``."""

    portal: str
    """The portal's own lasting identity; a plan made for another portal is refused."""
    state: State
    terms: Terms
    """The catalogue, firm domains and staff addresses that this portal enforces."""
    stamp: str = ""
    """See :class:`View`."""


class View(Protocol):
    """Parts of a portal at one instant."""

    portal: str
    """See :class:`Snapshot`."""
    stamp: str
    """Another one after each change of anything that a snapshot holds."""
    terms: Terms

    def users(self, *, ids: Collection[str] = (), emails: Collection[str] = ()) -> list[User]:
        """Those of these users who exist, by id or :func:`email_key`, in the order of a snapshot."""
        ...

    def companies(self, numbers: Collection[str]) -> dict[str, Company]:
        """Those of these companies that exist."""
        ...


T = TypeVar("T")


class Portal(Protocol):
    """A portal, opened for one operator."""

    def snapshot(self) -> Snapshot:
        """Everything, in one consistent read. Writes nothing."""
        ...

    def look(self, looker: Callable[[View], T | None]) -> T | None:
        """What ``looker`` makes of parts of the portal; None where it cannot be looked at in parts.

        Writes nothing. The looker may be called again, should somebody write meanwhile.
        """
        ...

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Do these steps, which touch different resources; one receipt a call, in their order."""
        ...

    def receipt(self, key: str) -> Receipt | None:
        """The receipt of an earlier call that was applied, or None if it never was."""
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """The links that let these users set their passwords; the same until they expire or are used.

        Empty for who needs none (already activated) or may have none (closed, to be validated).
        """
        ...

    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
