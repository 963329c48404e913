"""The interface of every portal driver.

A portal holds the state of record and has other writers than provisioner. Drivers translate their library's
exceptions into :class:`~provisioner.errors.PortalError`; the refusal of one step is not an exception but the
verdict of its receipt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from provisioner.diagnostics import Diagnostic
from provisioner.errors import PortalError
from provisioner.model import Clock, Operator, PortalTerms, State, User
from provisioner.planning.steps import Step


@dataclass(frozen=True, slots=True)
class Access:
    """Where a portal is and who opens it: everything that a driver is given."""

    url: str
    root: Path
    """The workspace's folder; relative files are below it."""
    operator: Operator
    """The operator whose rights apply on a portal without a log-in of its own."""
    terms: PortalTerms
    """The terms of a portal that this opening creates."""
    public_url: str
    """The base of the activation links of a portal that this opening creates."""
    clock: Clock
    writing: bool
    """Whether to open it for writing; otherwise the driver makes and changes nothing."""
    making: bool = True
    """Whether opening for writing makes a missing portal; otherwise it is refused."""
    client_id: str = ""
    secret: str = ""
    """The client's secret, the bearer token or the database's password."""
    ca_file: str = ""
    """A file of certificates to trust instead of the system's; relative to the workspace."""
    proxy: str = ""
    """The HTTP proxy to use, "" for none; none is taken from the environment."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Paths that differ from those of provisioner's own service, by the names of the endpoint table."""
    scim: Mapping[str, str] = field(default_factory=dict)
    """Attributes that a SCIM server names differently, by the names of the attribute table."""
    parallelism: int = 10
    """How many steps may be in progress at once."""


class Verdict(StrEnum):
    """How one step ended."""

    APPLIED = "applied"
    """The portal did it, for this call or for an earlier one with the same key."""
    ALREADY = "already"
    """The resource was already as wanted, by another writer; nothing was written."""
    CONFLICT = "conflict"
    """The resource is not as expected; nothing was written."""
    FAILED = "failed"
    """A rule or the portal refuses; nothing was written."""
    SKIPPED = "skipped"
    """Not sent, because a step that it depends on did not happen."""
    FENCED = "fenced"
    """Another run holds the lease; nothing was written. Drivers raise :class:`LockLost`."""


DONE = (Verdict.APPLIED, Verdict.ALREADY)
"""The verdicts after which the portal is as the step wants it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One step to be done.

    ``id`` and ``version`` are those of the user or company as last read ("" and 0 for a creation); the portal
    refuses with *conflict* if the version has changed. ``key`` makes a repetition harmless: the same key
    gives the first receipt again.
    """

    key: str
    step: Step
    id: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The portal's answer to a call; ``id`` and ``version`` are those after the step."""

    key: str
    verdict: Verdict
    id: str = ""
    version: int = 0
    problem: str = ""
    code: str = ""
    """The reason of a refusal, for programs: a diagnostic's code (*R2*) or a word (*version-moved*)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this portal can do, beyond what every portal can."""

    batch: int = 1
    """How many calls it takes at once, in one commit if it has commits."""
    receipts: bool = True
    """It remembers keys, so that an interrupted call can be looked up."""
    activation_links: bool = True
    """It makes the links in provisioner's welcomes. Otherwise it lets new users in by itself, and may send
    the welcome too (``welcome: portal``)."""
    versions: bool = True
    """It refuses a step whose version has changed. Otherwise a write is *unguarded*: read, compared, sent."""
    claims: bool = True
    """It remembers which run of which ledger sends a letter, and which ledger a step was done for."""
    leases: bool = True
    """It knows which run of a ledger is the latest, and refuses the writes of an earlier one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the portal holds, at one instant; users are keyed by ``email_key(email)``."""

    portal: str
    """The portal's own lasting identity; a plan made for another portal is refused."""
    state: State
    terms: PortalTerms
    """The catalogue, firm domains and staff addresses that this portal enforces."""
    stamp: str = ""
    """A value that changes with anything in a snapshot; "" if the portal has none."""
    operator: Operator | None = None
    """The operator whose rights this run has; None if the portal does not say."""


SENT = "sent"
"""In place of a run: the letter was sent."""


class Portal(Protocol):
    """A portal, opened for one operator. A run that writes first takes its ledger's lease: :meth:`hold`."""

    def snapshot(self) -> Snapshot:
        """Everything, in one consistent read. Writes nothing."""
        ...

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """The users with these ids, by id; an unknown id has no entry. Writes nothing."""
        ...

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """The desired state as this portal would store it, and a diagnostic for each thing it cannot store.

        A portal that stores everything returns the state itself and no diagnostic. The projection of a
        projection is the same.
        """
        ...

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Take or renew the lease of this ledger, until ``seconds`` after the last write or call of this.

        ``fence`` is the ledger's growing number of the run: a higher one takes the lease of a run that is
        dead or stopped, whose writes are refused from then on. Returns the run's number on the portal:
        ``fence``, or a higher one if the portal knows of later runs. Raises :class:`Locked` while another run
        with this number or a higher one holds the lease, :class:`LockLost` if another run has taken it over.
        A portal without leases only stores the ledger's id. May be called from another thread during a write.
        """
        ...

    def release(self) -> None:
        """End the lease; without effect if another run has taken it over."""
        ...

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Do these steps, which touch different resources; returns one receipt a call, in their order.

        A call that was applied before gets *applied* for the ledger it was done for and *already* for any
        other, unless the account that it created has another e-mail since. Raises :class:`LockLost` if
        another run has taken over the lease.
        """
        ...

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """The receipts, for this ledger, of applied calls with these keys; others have no entry."""
        ...

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """Claim these letters; returns the run that has each one. A run sends only those that it has itself.

        Letters are named by :func:`provisioner.ledger.outbox.letter_key`.

        The first ledger that claims a letter keeps it; any other ledger gets "". Within that ledger it passes
        to ``run`` from one of the runs named with the letter, which are the ledger's own earlier claimants.
        A run that is not named is one of a copy of the ledger: it keeps the letter, and is returned. Claiming
        with :data:`SENT` as the ``run`` ends this. Without claims every letter is this run's.
        """
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """The links with which these users set their passwords; the same until they expire or are used.

        "" for a user who needs none (already activated) or may have none (closed, to be validated).
        """
        ...

    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


def read_only() -> PortalError:
    """The error of a driver that was opened for reading and is asked to write: a defect of the program."""
    return PortalError("The portal is open for reading only.", "This is a defect of the program; report it.")
