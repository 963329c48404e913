"""What every portal driver promises.

A portal holds the state of record and has other writers than us. Drivers translate their
library's exceptions into :class:`~provisioner.errors.PortalError` at their border; a refusal
of one step is not an exception but the verdict of its receipt.
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
    """The workspace: relative files are below it."""
    operator: Operator
    """Whose rights a portal grants that has no log-in of its own."""
    terms: PortalTerms
    """Those of a portal that this opening creates."""
    public_url: str
    """Likewise: the base of its activation links."""
    clock: Clock
    writing: bool
    """Opened without it, a driver makes and changes nothing."""
    making: bool = True
    """Opened for writing, a portal that is missing is made; without this, refused."""
    client_id: str = ""
    secret: str = ""
    """The client's secret, the bearer token or the database's password."""
    ca_file: str = ""
    """Certificates to trust instead of the system's; relative to the workspace."""
    proxy: str = ""
    """The proxy to go through; none is taken from the environment."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Where a portal's paths differ from ours, by the names of the endpoint table."""
    scim: Mapping[str, str] = field(default_factory=dict)
    """Where a SCIM server holds things elsewhere, by the names of the attribute table."""
    parallelism: int = 10
    """Steps under way at once, at most."""


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
    FENCED = "fenced"
    """Another run has taken this one's place; nothing was written. Drivers raise :class:`LockLost`."""


DONE = (Verdict.APPLIED, Verdict.ALREADY)
"""The verdicts after which the portal is as the step wants it."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the portal answers; ``id`` and ``version`` as they stand after the step."""

    key: str
    verdict: Verdict
    id: str = ""
    version: int = 0
    problem: str = ""
    code: str = ""
    """Of what refuses, for programs: that of a diagnostic (*R2*), or one of ``decide.CODES``."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this portal can do beyond the least."""

    batch: int = 1
    """How many calls it takes at once, with one commit where it has commits."""
    receipts: bool = True
    """It remembers keys, so that an interrupted call can be looked up."""
    activation_links: bool = True
    """It makes the links that our welcomes carry. Without, it brings newcomers in by itself, and may send the
    welcome too (``welcome: portal``)."""
    versions: bool = True
    """It refuses a step when the version has moved. Without, a write is *unguarded*: read, compared, sent."""
    claims: bool = True
    """It remembers which run of which ledger sends a letter, and which ledger a step was done for."""
    leases: bool = True
    """It knows which run of a ledger is the latest, and refuses the writes of an earlier one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the portal holds, read at one instant; users are keyed by ``email_key(email)``."""

    portal: str
    """The portal's own lasting identity; a plan made for another portal is refused."""
    state: State
    terms: PortalTerms
    """The catalogue, firm domains and staff addresses that this portal enforces."""
    stamp: str = ""
    """A new value after each change of anything that a snapshot holds; empty where the portal has none."""
    operator: Operator | None = None
    """Whose rights we have there; None where the portal does not say."""


SENT = "sent"
"""In the place of a run: the letter is gone."""


class Portal(Protocol):
    """A portal, opened for one operator.

    Whoever writes first holds the portal for its ledger: see :meth:`hold`.
    """

    def snapshot(self) -> Snapshot:
        """Everything, in one consistent read. Writes nothing."""
        ...

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """The users with these ids, by id; an unknown id has no entry. Writes nothing."""
        ...

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """What this portal would give back, were it as desired; and what it cannot hold, named.

        A portal that holds everything gives the state itself and nothing else. ``fit`` of what was fitted
        changes nothing more.
        """
        ...

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """From now on write for this ledger, until ``seconds`` after the last write or call of this.

        ``fence`` is the ledger's own growing number of the run: a higher one takes the place of a
        run that is dead or stopped, whose writes are refused from then on. Called again by the same run it
        holds on for longer. Returns the number that we have there: ``fence``, or a higher one if the portal
        knows of later runs. Raises :class:`Locked` while another run with this number or a higher one holds
        it, :class:`LockLost` when another one has taken our place. Without leases it only remembers the name.
        It may be called from another thread while the portal works.
        """
        ...

    def release(self) -> None:
        """The end of :meth:`hold`; nothing if somebody else holds it by now."""
        ...

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Do these steps, which touch different resources; one receipt a call, in their order.

        A call that was answered before is answered likewise: *applied* to the ledger that it was done for,
        *already* to any other, unless whom that one created has given up the name since. Raises
        :class:`LockLost` when another run has taken our place.
        """
        ...

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """What earlier calls with these keys are answered to this ledger; without those never applied."""
        ...

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """The run that has claimed each of these letters; a run may send only those it has itself.

        Letters are named by :func:`provisioner.ledger.outbox.letter_key`.

        The first ledger that asks has a letter, for ever; to any other one the answer is "". Within that
        ledger it passes to ``run`` from one of the runs named with it, which are those that the ledger knows
        to have asked. Any other run is one of a copy of the ledger: it keeps the letter, and is the answer.
        :data:`SENT` as the ``run`` ends all this. Without claims every letter is this run's.
        """
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


def read_only() -> PortalError:
    """What a driver that was opened for reading answers to whoever would write: planning never does."""
    return PortalError("The portal is open for reading only.", "This is a defect of the program; report it.")
