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
the user. :mod:`provisioner.errors` shows them as a tree. The names in ``__all__`` are the API. Other modules
can change without notice, except those that drivers use: ``portal``, ``model``, ``planning.steps``,
``planning.codec``, ``diagnostics``, ``errors``, ``mail.delivery``, ``mail.transport`` and ``testing``.
"""

from __future__ import annotations

import gc
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
    frozen = gc.get_freeze_count()
    try:
        return plan_workspace(workspace, select_addresses(targets, excludes)).plan
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
    the current batch. ``lock_timeout`` is the time in seconds to wait for another run. A run that stops or
    fails is completed by another call with the same plan: what is done stays done, and no letter is sent
    twice.

    Before the first write, raises :class:`Blocked` if the plan cannot be applied, :class:`StalePlan` if the
    portal has changed since, :class:`Locked` if another run has the ledger or the portal, and
    :class:`MailError` if a letter cannot be rendered. At any time, raises :class:`LockLost` if another run
    has taken over, and :class:`PortalError` or :class:`LedgerError` for a failed write. Steps and letters
    that were refused raise nothing: ``report.complete`` is False, ``report.undone`` has these steps with
    the reasons, and ``report.letters.trouble`` has the letters.

    >>> workspace = load_workspace(folder)
    >>> report = apply_plan(workspace, make_plan(workspace), stop=lambda: True)
    >>> report.stopped, report.done
    (True, 0)
    """
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
