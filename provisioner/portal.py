"""The interface of every portal driver.

A portal is the system of record. Other programs and people change the portal too. A driver translates the
exceptions of its library into :class:`~provisioner.errors.PortalError`. If the portal refuses a step, the
driver raises no exception. It returns a receipt with the verdict *failed* or *conflict*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """The role whose rights apply, if the portal does not authenticate its clients."""
    terms: PortalTerms
    """The firm's terms, for a portal that does not exist yet or does not store terms."""
    public_url: str
    """The base URL of activation links, for a portal that does not exist yet."""
    clock: Clock
    writing: bool
    """True to open the portal for writing. Otherwise the driver creates and changes nothing."""
    making: bool = True
    """True to create a missing portal when opening it for writing. If False, a missing portal is an error."""
    client_id: str = ""
    secret: str = ""
    """The OAuth client's secret, the bearer token or the database's password."""
    ca_file: str = ""
    """The file of the CA certificates to use instead of the system's. The path is relative to ``root``."""
    proxy: str = ""
    """The URL of the HTTP proxy, or "" for none. Proxy settings in environment variables are ignored."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """The URL paths that differ from the paths of provisioner's own service, by endpoint name."""
    scim: Mapping[str, str] = field(default_factory=dict)
    """The SCIM attributes that differ from the default attributes, by field name (``portal: {scim: …}``)."""
    parallelism: int = 10
    """The maximum number of steps in progress at the same time."""


class Verdict(StrEnum):
    """The outcome of one step."""

    APPLIED = "applied"
    """The portal applied the step, in this call or in an earlier call with the same idempotency key."""
    ALREADY = "already"
    """Another writer had already made the same change; nothing was written."""
    CONFLICT = "conflict"
    """The resource is not in the state that the step expects; nothing was written."""
    FAILED = "failed"
    """The portal refuses the step, because of a rule or another reason; nothing was written."""
    SKIPPED = "skipped"
    """The step was not sent, because a step that it depends on was not applied."""
    FENCED = "fenced"
    """Another run has the lease. Nothing was written. ``Portal.execute`` then raises :class:`LockLost`."""


DONE = (Verdict.APPLIED, Verdict.ALREADY)
"""The verdicts after which the resource is in the state that the step requests."""


@dataclass(frozen=True, slots=True)
class Call:
    """One step to apply.

    ``id`` and ``version`` come from the last reading of the resource. If the version on the portal is
    different, the portal answers *conflict*. For a creation, ``id`` is "", and ``version`` is not compared.
    ``key`` is the idempotency key. If a call is repeated with the same key, the first receipt is returned.
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
    """The code of a refusal: a diagnostic's code (*R2*), or another code such as *version-moved*."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The optional features of a portal."""

    batch: int = 1
    """The maximum number of calls per ``execute``. The embedded portal applies these in one transaction."""
    receipts: bool = True
    """True if the portal stores idempotency keys, so the outcome of an interrupted call can be looked up."""
    activation_links: bool = True
    """True if the portal creates the activation links for provisioner's welcome letters. Otherwise the portal
    itself gives new users access, and may also send the welcome letter (``welcome: portal``)."""
    versions: bool = True
    """True if the portal refuses a step on a resource whose version has changed. Otherwise a write is
    *unguarded*: the driver compares the resource first, but can overwrite a change made later."""
    claims: bool = True
    """True if the portal stores which run of which ledger sends a letter, and which ledger applied a step."""
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
"""The special value of ``run`` in :meth:`Portal.claim` that marks letters as sent. It is not a run."""


class Portal(Protocol):
    """A portal, opened for one operator. A run takes the lease with :meth:`hold` before its first write."""

    def snapshot(self) -> Snapshot:
        """Return the complete content of the portal, read consistently. Write nothing."""
        ...

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """Return the users with these portal ids, by id. Unknown ids have no entry. Write nothing."""
        ...

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """Return ``desired`` without the values that the portal cannot store, and diagnostics about them.

        If the portal can store everything, the result is ``desired`` itself and no diagnostic. The operation
        is idempotent: projecting the returned state again returns the same state.
        """
        ...

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Take or renew the portal's lease for this ledger. Return the run's fencing token on the portal.

        ``owner`` is the run's name in messages. ``fence`` is the run's fencing token in the ledger, where
        each new run has a higher token. The returned token is usually ``fence``. It is higher than ``fence``
        if an earlier run used ``fence`` or a higher token on the portal, which is possible after the ledger
        was restored from a backup. If a run with a lower token holds the lease, this run takes it over at
        once, and the portal refuses all further writes of the other run.
        The lease ends ``seconds`` after the last write or the last call of ``hold``. For a portal without
        leases, the driver only keeps the ledger's id. A thread can call ``hold`` while another thread writes.
        Raises :class:`Locked` if another run with the same or a higher token holds the lease, and
        :class:`LockLost` if this run had the lease and another run has taken it.
        """
        ...

    def release(self) -> None:
        """End this run's lease. Do nothing if another run has taken the lease over."""
        ...

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Apply the steps of these calls and return one receipt per call, in the same order.

        Each step must concern a different resource. A call whose key was used before is not applied again:
        the verdict is *applied* if the same ledger used the key, and *already* if another ledger used it.
        Exception: if another ledger used the key to create an account, and the account's e-mail has changed
        since, the call is treated as new.
        Raises :class:`LockLost` if another run has taken over the lease.
        """
        ...

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """Return the receipts of the earlier calls with these idempotency keys, by key. Omit unknown keys.

        The verdict is *applied* if ``ledger`` made the call, and *already* if another ledger made it.
        """
        ...

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """Claim letters for ``run``. Return the run that then holds the claim to each letter, by letter key.

        A run sends only the letters whose claim it holds. ``letters`` maps the key of each letter
        (:func:`provisioner.ledger.outbox.letter_key`) to the runs that claimed it before, as recorded in this
        ledger. For each letter, the result depends on the run that holds the claim so far:

        - none: ``run`` gets the claim;
        - a run of another ledger: that run keeps the claim, and the result is "";
        - one of the runs in ``letters``: the claim passes to ``run``;
        - any other run, which belongs to a copy of this ledger: it keeps the claim and is the result.

        A claim that has passed to :data:`SENT` never passes to a run again. A portal without claims returns
        ``run`` for every letter.
        """
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the activation links with which these users set their passwords, by user id.

        A user's link stays the same until it expires or is used. The link is "" if the account is already
        activated or closed, or if the firm must still validate the account.
        """
        ...

    def capabilities(self) -> Capabilities:
        """Return the optional features that this driver offers on this portal."""
        ...

    def close(self) -> None:
        """Close the driver's files and connections."""
        ...


@dataclass(frozen=True, slots=True)
class PortalDriver:
    """A driver: a value in ``registry.PORTALS``, or the object that another package's entry point names."""

    open: Callable[[Access], Portal]
    """The function that opens a portal. Raises :class:`PortalError` if the portal cannot be opened."""
    activation_links: bool = True
    """False if no portal of this driver creates activation links (:attr:`Capabilities.activation_links`)."""


def read_only() -> PortalError:
    """Return the error for a write to a portal opened for reading only. Such a write is a program defect."""
    return PortalError("The portal is open for reading only.", "This is a defect of the program; report it.")
