"""The checks of the firm's safety limits on a plan. ``order.py`` checks the portal's rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from provisioner.diagnostics import Diagnostic, error, plural
from provisioner.model import User
from provisioner.planning.plan import Action, Change, Limits

MIN_EXISTING = 10
"""The percentage limit applies from this number of managed accounts: one closure of 9 is more than 10 %."""

NAMED = 10
"""The maximum number of accounts that an error message names."""


def guard(changes: Sequence[Change], limits: Limits, *, managed: int, declared: int) -> Iterator[Diagnostic]:
    """Yield an error for each safety limit that the changes exceed.

    ``managed`` is the number of users in the ledger. ``declared`` is the number of users in the manifests.
    """
    closures = [change for change in changes if change.action is Action.CLOSE]
    yield from _vanished_manifests(managed, declared)
    yield from _too_many_closures(closures, limits)
    yield from _too_large_a_share(closures, limits, managed)


def _vanished_manifests(managed: int, declared: int) -> Iterator[Diagnostic]:
    if managed and not declared:
        yield error(
            "limit-empty",
            f"The manifests declare nobody, while {managed} managed "
            f"{plural(managed, 'account is', 'accounts are')} known; a folder was probably moved or emptied.",
            "Check the manifests: entry of provisioner.yaml, and that the checkout is complete.",
        )


def _too_many_closures(closures: Sequence[Change], limits: Limits) -> Iterator[Diagnostic]:
    if len(closures) > limits.max_closures:
        yield error(
            "limit-closures",
            f"{len(closures)} accounts would be closed, and at most {limits.max_closures} may be "
            f"in one plan: {_names(closures)}.",
            "If this is meant, raise safety.max_closures in provisioner.yaml, "
            "or take part of it with --target.",
        )


def _too_large_a_share(closures: Sequence[Change], limits: Limits, managed: int) -> Iterator[Diagnostic]:
    if managed < MIN_EXISTING or len(closures) * 100 <= limits.max_closures_percent * managed:
        return
    if len(closures) > limits.max_closures:
        return  # _too_many_closures reports the same accounts
    yield error(
        "limit-closures",
        f"{len(closures)} of {managed} managed accounts would be closed, "
        f"and at most {limits.max_closures_percent} % may be in one plan: {_names(closures)}.",
        "If this is meant, raise safety.max_closures_percent in provisioner.yaml, "
        "or take part of it with --target.",
    )


def _names(closures: Sequence[Change]) -> str:
    names = [change.after.email for change in closures[:NAMED] if isinstance(change.after, User)]
    rest = len(closures) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")
