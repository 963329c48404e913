"""The interface of every portal driver.

A portal holds the state of record, and other programs and people also write to it. A driver
translates the exceptions of its library into :class:`~provisioner.errors.PortalError`. If the portal refuses
one step, the driver raises no exception: the receipt of the step says so in its verdict.
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
    """The parameters for opening a portal: its address, the operator, credentials and options."""

    url: str
    root: Path
    """The workspace's folder. Relative file paths start from it."""
    operator: Operator
    """The operator whose rights apply if the portal itself does not authenticate its clients."""
    terms: PortalTerms
    """The terms of the new portal; used only if opening creates the portal."""
    public_url: str
    """The base URL of the new portal's activation links; used only if opening creates the portal."""
    clock: Clock
    writing: bool
    """True to open the portal for writing. Otherwise the driver creates and changes nothing."""
    making: bool = True
    """True if opening for writing creates a missing portal. Otherwise a missing portal is an error."""
    client_id: str = ""
    secret: str = ""
    """The OAuth client's secret, the bearer token or the database's password."""
    ca_file: str = ""
    """The file of the CA certificates to trust instead of the system's; relative to the workspace."""
    proxy: str = ""
    """The HTTP proxy to use, "" for none. The environment's proxy settings are ignored."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """URL paths that differ from those of provisioner's own service, by their names in the endpoint table."""
    scim: Mapping[str, str] = field(default_factory=dict)
    """SCIM attributes that differ from the default ones, by their names in the attribute table."""
    parallelism: int = 10
    """The maximum number of steps in progress at the same time."""


class Verdict(StrEnum):
    """The outcome of one step."""

    APPLIED = "applied"
    """The portal applied the step, for this call or for an earlier call with the same key."""
    ALREADY = "already"
    """Another writer had already brought the resource to the desired state; nothing was written."""
    CONFLICT = "conflict"
    """The resource is not in the state that the step expects; nothing was written."""
    FAILED = "failed"
    """A rule or the portal refuses the step; nothing was written."""
    SKIPPED = "skipped"
    """The step was not sent, because a step that it depends on was not applied."""
    FENCED = "fenced"
    """Another run holds the lease; nothing was written. Drivers raise :class:`LockLost` instead."""


DONE = (Verdict.APPLIED, Verdict.ALREADY)
"""The verdicts after which the portal is in the state that the step asks for."""


@dataclass(frozen=True, slots=True)
class Call:
    """One step to apply.

    ``id`` and ``version`` are those of the user or company when it was last read ("" and 0 for a creation).
    If the version has changed since, the portal answers *conflict*. ``key`` is the idempotency key: for a
    repeated call with the same key, the portal returns the first receipt again.
    """

    key: str
    step: Step
    id: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The portal's answer to a call; ``id`` and ``version`` are those of the resource after the step."""

    key: str
    verdict: Verdict
    id: str = ""
    version: int = 0
    problem: str = ""
    code: str = ""
    """The machine-readable reason of a refusal: a diagnostic's code (*R2*) or a word (*version-moved*)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The optional features of a portal."""

    batch: int = 1
    """The maximum number of calls per ``execute``. A portal with transactions applies them in one commit."""
    receipts: bool = True
    """True if the portal stores idempotency keys, so the outcome of an interrupted call can be looked up."""
    activation_links: bool = True
    """True if the portal creates the activation links for provisioner's welcome letters. Otherwise the portal
    itself gives new users access, and may also send the welcome letter (``welcome: portal``)."""
    versions: bool = True
    """True if the portal refuses a step on a resource whose version has changed. Otherwise a write is
    *unguarded*: the driver reads the resource, compares it and sends the write."""
    claims: bool = True
    """True if the portal stores which run of which ledger sends each letter, and each step's ledger."""
    leases: bool = True
    """True if the portal knows the latest run of each ledger, and refuses the writes of earlier runs."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The complete content of a portal at one instant; its users are keyed by ``email_key(email)``."""

    portal: str
    """The permanent identity of the portal. A plan made for a portal with another identity is refused."""
    state: State
    terms: PortalTerms
    """The catalogue, firm domains and staff addresses that this portal enforces."""
    stamp: str = ""
    """A value that changes whenever the content of the portal changes; "" if the portal has none."""
    operator: Operator | None = None
    """The operator whose rights this run has; None if the portal does not name the operator."""


SENT = "sent"
"""The value to claim a letter with, instead of the ID of a run, once the letter has been sent."""


class Portal(Protocol):
    """A portal, opened for one operator. Before it writes, a run takes the lease with :meth:`hold`."""

    def snapshot(self) -> Snapshot:
        """Return the complete content of the portal, read consistently. Write nothing."""
        ...

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """Return the users with these ids, by id, without an entry for an unknown id. Write nothing."""
        ...

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """Return the desired state as this portal would store it, and a diagnostic per kind of lost value.

        If the portal can store everything, the result is ``desired`` itself and no diagnostic. The operation
        is idempotent: projecting the returned state again returns the same state.
        """
        ...

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Take or renew the lease of this ledger. Return the fencing token of the run on the portal.

        The lease ends ``seconds`` after the run's last write or last call of this method. ``fence`` is the
        run's fencing token, which grows with each run of the ledger. A run with a higher token takes the
        lease from an earlier run, and the portal then refuses the earlier run's writes. The returned token
        is ``fence``, or higher if the portal knows of later runs. Raises :class:`Locked` while another run
        with this token or a higher one holds the lease, :class:`LockLost` if another run has taken it over.
        A portal without leases only stores the ledger's id. Another thread may call this during a write.
        """
        ...

    def release(self) -> None:
        """End this run's lease. Do nothing if another run has taken the lease over."""
        ...

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Apply the steps of these calls and return one receipt per call, in the same order.

        No two of the steps may concern the same resource. If a call was applied before, its verdict is
        *applied* for the ledger that it was applied for and *already* for every other ledger, except if the
        e-mail of the account that it created has changed. Raises :class:`LockLost` if another run has taken
        over the lease.
        """
        ...

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """Return the receipts, for ``ledger``, of applied calls, by key. Other keys have no entry."""
        ...

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """Claim letters for ``run`` and return the run that holds the claim to each letter.

        A run sends only the letters that it holds. ``letters`` maps the key of each letter
        (:func:`provisioner.ledger.outbox.letter_key`) to the runs of this ledger that claimed it earlier.

        The first ledger that claims a letter keeps it; for every other ledger the result is "". Within the
        ledger, the claim passes to ``run`` if its holder is among those earlier runs. Any other holder is a
        run of a copy of the ledger: it keeps the letter, and is returned. A claim with :data:`SENT` as the
        ``run`` is final. A portal without claims returns ``run`` for every letter.
        """
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the link with which each of these users sets a password, by user id.

        A user's link stays the same until it expires or is used. It is "" for a user who is already activated
        (needs no link), closed or to be validated (may not have a link).
        """
        ...

    def capabilities(self) -> Capabilities:
        """Return the optional features that this driver offers on this portal."""
        ...

    def close(self) -> None:
        """Close the driver's files and connections."""
        ...


def read_only() -> PortalError:
    """Return the error for a write to a portal that was opened for reading only, a defect of the program."""
    return PortalError("The portal is open for reading only.", "This is a defect of the program; report it.")
