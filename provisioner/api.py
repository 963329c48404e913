"""The public Python API: read a workspace, plan it and apply the plan from another program.

The functions do what ``provisioner plan`` and ``provisioner apply`` do, without a terminal: they print
nothing and ask nothing. ``folder`` in the examples is a copy of ``samples/onboarding``.

>>> from provisioner.api import apply_plan, load_workspace, make_plan
>>> workspace = load_workspace(folder)
>>> plan = make_plan(workspace)
>>> plan.applyable, len(plan.changes), len(plan.letters)
(True, 25, 15)
>>> report = apply_plan(workspace, plan)
>>> report.complete, report.in_words()
(True, '32 steps done, 15 e-mails sent')
>>> make_plan(workspace).has_changes
False

Every exception is a :class:`~provisioner.errors.ProvisionerError`, with a ``sentence`` and a ``remedy`` for
the user. :mod:`provisioner.errors` shows them as a tree. Each function first checks its arguments, and raises
:class:`UsageError` for an argument that has the wrong type or is out of its range.

The names in ``__all__`` are the API. Other modules can change without notice, except those that drivers use:
``portal``, ``model``, ``planning.steps``, ``planning.codec``, ``diagnostics``, ``errors``, ``mail.delivery``,
``mail.transport`` and ``testing``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

from provisioner.errors import (
    Blocked,
    LedgerError,
    Locked,
    LockLost,
    MailError,
    ManifestsInvalid,
    PortalError,
    ProvisionerError,
    StalePlan,
    UsageError,
    WorkspaceError,
)
from provisioner.limits import MAX_PARALLELISM
from provisioner.operations.apply import ApplyReport, Outcome
from provisioner.operations.apply import apply_plan as apply_with_progress
from provisioner.operations.open import PARALLELISM, utc_now
from provisioner.operations.pipeline import plan_workspace, select_addresses
from provisioner.planning.plan import Change, Plan, PlannedLetter
from provisioner.portal import Verdict
from provisioner.workspace import settings
from provisioner.workspace.settings import Workspace

__all__ = [
    "ApplyReport",
    "Blocked",
    "Change",
    "LedgerError",
    "LockLost",
    "Locked",
    "MailError",
    "ManifestsInvalid",
    "Outcome",
    "Plan",
    "PlannedLetter",
    "PortalError",
    "ProvisionerError",
    "StalePlan",
    "UsageError",
    "Verdict",
    "Workspace",
    "WorkspaceError",
    "apply_plan",
    "load_workspace",
    "make_plan",
]


def load_workspace(folder: Path | str = ".") -> Workspace:
    """Return the workspace in ``folder`` or in the nearest folder above it that has a provisioner.yaml.

    Raises :class:`WorkspaceError` if there is none, and :class:`ManifestsInvalid` if provisioner.yaml has
    errors. Its ``diagnostics`` has all of them.

    >>> load_workspace(folder).settings.firm.name
    'Cabinet Durand & Associés'
    >>> load_workspace("/")
    Traceback (most recent call last):
    provisioner.errors.WorkspaceError: No provisioner.yaml in / or in a folder above it.
    """
    _require(isinstance(folder, str | os.PathLike), "folder", folder, "a path, as str or Path")
    return settings.load_workspace(Path(folder))


def make_plan(workspace: Workspace, *, targets: Iterable[str] = (), excludes: Iterable[str] = ()) -> Plan:
    """Read the manifests, the portal and the ledger, and return what ``apply_plan`` would change.

    ``targets`` and ``excludes`` are addresses such as ``user:claire@example.fr``, as for ``plan --target``.
    Nothing is written. Raises :class:`ManifestsInvalid` with all problems of the manifests,
    :class:`UsageError` for an unknown address, and :class:`PortalError` or :class:`LedgerError` if the portal
    or the ledger cannot be read. A plan that a limit or a rule forbids is returned: ``plan.applyable`` is
    False then, and ``plan.errors`` says why.

    >>> plan = make_plan(load_workspace(folder), targets=["company:004217"])
    >>> str(plan.changes[0].address), len(plan.changes)
    ('company:004217', 6)
    """
    _require_workspace(workspace)
    selection = select_addresses(_addresses("targets", targets), _addresses("excludes", excludes))
    frozen = gc.get_freeze_count()
    try:
        return plan_workspace(workspace, selection).plan
    finally:
        # reading freezes all objects, which suits a command that ends soon; here garbage would never be freed
        if not frozen:
            gc.unfreeze()


def apply_plan(
    workspace: Workspace,
    plan: Plan,
    *,
    name: str = "api",
    stop: Callable[[], bool] = lambda: False,
    lock_timeout: float = 0,
    parallelism: int = PARALLELISM,
) -> ApplyReport:
    """Apply the plan, send its letters, and return what was done.

    ``name`` is the name of the run in ``provisioner history``. Once ``stop`` returns True, the run ends after
    the current batch. ``lock_timeout`` is the time in seconds to wait for another run, 0 or more.
    ``parallelism`` is the maximum number of concurrent steps on a portal that is reached over the network,
    from 1 to 100. A run that stops or fails is completed by another call with the same plan: what is done
    stays done, and no letter is sent twice.

    Before the first write, raises :class:`Blocked` if the plan cannot be applied, :class:`StalePlan` if the
    portal has changed since, :class:`Locked` if another run has the ledger or the portal, and
    :class:`MailError` if a letter cannot be rendered or the mail transport cannot be used. At any time,
    raises :class:`LockLost` if another run has taken over, and :class:`PortalError` or :class:`LedgerError`
    for a failed write; ``exit_code`` is 7 instead of 1 if something may have been written before. Steps and
    letters that were refused raise nothing: ``report.complete`` is False, ``report.undone`` has these steps
    with the reasons, and ``report.letters.trouble`` has the letters.

    >>> workspace = load_workspace(folder)
    >>> report = apply_plan(workspace, make_plan(workspace), stop=lambda: True)
    >>> report.stopped, report.done
    (True, 0)
    """
    _require_workspace(workspace)
    _require(isinstance(plan, Plan), "plan", plan, "a plan that make_plan returned")
    _require(isinstance(name, str), "name", name, "a str")
    _require(callable(stop), "stop", stop, "a function without arguments that returns a bool")
    _require(
        _is_number(lock_timeout) and lock_timeout >= 0, "lock_timeout", lock_timeout, "seconds, 0 or more"
    )
    whole = _is_number(parallelism) and isinstance(parallelism, int)
    in_range = whole and 1 <= parallelism <= MAX_PARALLELISM
    _require(in_range, "parallelism", parallelism, f"a whole number from 1 to {MAX_PARALLELISM}")
    if not plan.applyable:
        raise Blocked("This plan cannot be applied; nothing was written.", "See its errors, then plan again.")
    return apply_with_progress(
        workspace,
        plan,
        command=name,
        say=lambda sentence: None,
        interruptible=lambda: nullcontext(stop),
        step_progress=lambda total: nullcontext(lambda outcome: None),
        letter_progress=lambda total: nullcontext(lambda delivery, recipient: None),
        lock_timeout=lock_timeout,
        parallelism=parallelism,
        clock=utc_now,
    )


def _require_workspace(workspace: object) -> None:
    _require(isinstance(workspace, Workspace), "workspace", workspace, "what load_workspace returned")


def _addresses(name: str, value: Iterable[str]) -> list[str]:
    """Return the addresses of an argument, which may be any iterable of str, but not one str."""
    found: list[str] = []
    good = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    if good:
        found = list(value)
        good = all(isinstance(word, str) for word in found)
    _require(good, name, value, 'a list of addresses, such as ["company:004217"]')
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(good: bool, name: str, value: object, wanted: str) -> None:
    if not good:
        given = f"{type(value).__name__} {value!r}"
        raise UsageError(f"The argument {name} is {given[:80]}; it must be {wanted}.", f"Correct {name}.")
