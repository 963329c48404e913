"""Completes steps that need several writes on a SCIM server, which has no transactions.

The first write stores an announcement of the step (:class:`Pending`) on the user. The last write replaces the
announcement with a receipt. Until then, a snapshot shows the user as if the step were complete, and the step
is completed before any other write to the user. A step that the server refuses to complete is withdrawn.

- Create user: create the inactive account, add it to its companies, activate it.
- Edit companies: store the announcement, remove and add the memberships, store the receipt.
- Set billed company: store the announcement, add the membership, change the billed company and the type. If
  the user becomes a standard user, the first write already changes the billed company and the type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from provisioner.errors import PortalError
from provisioner.model import Status
from provisioner.portals.http_messages import NoResponse
from provisioner.portals.scim.client import ScimClient, ScimError
from provisioner.portals.scim.directory import Directory
from provisioner.portals.scim.path import Resource
from provisioner.portals.scim.pending import Pending

TRIES = 5
"""The maximum number of times that :func:`retry_write` calls a write."""

T = TypeVar("T")


def retry_write(write: Callable[[], T]) -> T:
    """Call ``write`` until it succeeds, at most :data:`TRIES` times, and return its result. It is called
    again only after a conflict, a server error or a lost response; other errors are raised at once.
    """
    for left in reversed(range(TRIES)):
        try:
            return write()
        except ScimError as problem:
            if not (problem.moved or problem.broken) or not left:
                raise
        except NoResponse as problem:
            if not problem.outcome_unknown or not left:
                raise
    raise AssertionError


class StepCompletion:
    """A component that finishes or withdraws the unfinished steps of users, on behalf of one ledger."""

    def __init__(self, client: ScimClient, directory: Directory, ledger: str) -> None:
        self._client = client
        self._directory = directory
        self._mapping = directory.mapping
        self._ledger = ledger

    def finished(self, resource: Resource) -> Resource:
        """Return the user's resource after completing the user's unfinished step, even a step of another
        ledger. If the user has no unfinished step, return ``resource`` unchanged.
        """
        pending = self._mapping.pending(resource)
        return resource if pending is None else self.finish(resource, pending)

    def finish(self, resource: Resource, pending: Pending) -> Resource:
        """Do the remaining writes of the step ``pending``, and return the user's resource after them.

        Writes that were already done may be repeated without harm. If the server refuses a write, the step is
        withdrawn and :class:`ScimError` is raised. If the withdrawal fails as well, :class:`PortalError` is
        raised instead, provided that the server stores unfinished steps and this is a step of this ledger.
        The next run of the ledger then finishes the step.
        """
        id_, directory = str(resource["id"]), self._directory
        try:
            for number in pending.remove:
                self._write_membership(id_, number, belongs=False)
            for number in pending.add:
                self._write_membership(id_, number, belongs=True)
            resource = retry_write(lambda: self._write_last(id_, pending))
        except ScimError as problem:
            # once withdrawn, snapshots show the user's actual state, and the next plan starts from it
            try:
                retry_write(lambda: self._withdraw(id_, pending))
            except (ScimError, NoResponse):
                if self._mapping.keeps_receipts and pending.ledger == self._ledger:
                    # the ledger keeps the step as unsettled, and the next run finishes it
                    raise uncompletable(resource, problem) from problem
                raise problem from None
            raise
        directory.cache_user(resource)
        return resource

    def _write_membership(self, id_: str, number: str, *, belongs: bool) -> None:
        directory, endpoint = self._directory, self._client.features.groups
        group = directory.group_ids([number]).get(number)
        if group is not None:
            try:
                retry_write(partial(self._client.write_membership, endpoint, group, id_, belongs=belongs))
            except ScimError as problem:
                if problem.status != 404:
                    raise
                directory.evict_group(number)
                group = None
        if group is None and belongs:
            raise ScimError(404, f"There is no company {number} any more.")
        directory.update_membership(id_, *(((number,), ()) if belongs else ((), (number,))))

    def _write_last(self, id_: str, pending: Pending) -> Resource:
        mapping, users = self._mapping, self._client.features.users
        resource = self._client.read(users, id_)
        if resource is None:
            raise ScimError(404, "The user is gone.")
        if mapping.keeps_receipts and mapping.pending(resource) != pending:
            # another writer ended this step, and may have begun another step
            if pending.key and self._directory.user_receipt(resource, pending.key) is None:
                raise ScimError(409, "Somebody else took the step back.", moved=True)
            return resource
        bare = mapping.with_pending(resource, None)
        found = self._directory.as_user(bare)
        if found is None:
            raise ScimError(409, "The user is no client access any more.")
        desired = pending.apply_to(found, Status.TO_VALIDATE if mapping.has("status") else Status.CLOSED)
        written = mapping.with_user(bare, found, desired)
        written = self._directory.with_receipt(written, pending.key, pending.ledger)
        return self._client.update(users, resource, written)

    def _withdraw(self, id_: str, pending: Pending) -> None:
        """Withdraw a step. If the step was creating an account, delete the account, because without companies
        it would violate R5 in each later plan and get no welcome letter. Otherwise, remove the announcement.
        """
        users, directory = self._client.features.users, self._directory
        resource = directory.user(id_)
        if resource is None or not self._is_unfinished(resource, pending):
            return
        if pending.created and resource.get("active") is False:
            for number in pending.add:
                # read the group, because a server that failed may have added the membership nevertheless
                directory.group(number, reread=False)
            for number in sorted(directory.companies_of(id_) & set(pending.add)):
                self._write_membership(id_, number, belongs=False)
            self._client.delete(users, resource)
            directory.evict_user(id_)
        elif self._mapping.keeps_receipts:
            bare = self._mapping.with_pending(resource, None)
            directory.cache_user(self._client.update(users, resource, bare))

    def _is_unfinished(self, resource: Resource, pending: Pending) -> bool:
        if self._mapping.keeps_receipts:
            return self._mapping.pending(resource) == pending
        return bool(pending.key) and resource.get("externalId") == f"{pending.ledger}:{pending.key}"


def uncompletable(user: Resource, problem: ScimError) -> PortalError:
    """Return the error for an unfinished step of ``user`` that can neither be finished nor withdrawn."""
    return PortalError(
        f"A step on {user.get('userName')} was cut off in the middle: the server refuses the rest of it "
        f"({problem.detail}), and to take it back.",
        "Once the server takes it, run the same command again: it is finished first.",
    )
