"""The execution of a step on a SCIM server: read the resource, check the rules, write, compare the result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial

from provisioner.embedded.decide import StoredReceipt, applied, billing_transfer, decide, refused, repeated
from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.model import (
    Company,
    Status,
    User,
    UserType,
    company_address,
    month_end,
    paris_date,
    user_address,
)
from provisioner.planning.steps import (
    CloseUser,
    CompanyStep,
    CreateUser,
    EditApps,
    SetBilledCompany,
    SetType,
    address_of,
)
from provisioner.portal import Access, Call, Receipt, Verdict
from provisioner.portals.http_messages import NoResponse
from provisioner.portals.scim.client import ScimClient, ScimError
from provisioner.portals.scim.completion import TRIES, StepCompletion, retry_write
from provisioner.portals.scim.directory import Directory
from provisioner.portals.scim.path import CORE, Resource
from provisioner.portals.scim.pending import pending_for
from provisioner.portals.scim.projection import (
    CREATED_FIELDS,
    differing,
    unsaved_company_fields,
    unsaved_user_fields,
)


class StepWriter:
    """A component that applies steps for one operator and one ledger."""

    def __init__(self, client: ScimClient, directory: Directory, access: Access, ledger: str) -> None:
        self._client = client
        self._directory = directory
        self._mapping = directory.mapping
        self._access = access
        self._ledger = ledger
        self._completion = StepCompletion(client, directory, ledger)

    def execute(self, call: Call) -> Receipt:
        """Apply the step of ``call`` and return the receipt. After a conflict or a lost response, try again.
        Raises :class:`PortalError` if the server gives no usable response.
        """
        lost: NoResponse | ScimError | None = None
        for _ in range(TRIES):
            try:
                receipt = self._attempt(call, retry=lost is not None)
            except NoResponse as problem:
                if not problem.outcome_unknown:
                    raise
                lost = problem
            except _Moved:
                pass
            except ScimError as problem:
                if not problem.broken:
                    return _rejected(call, problem)
                lost = problem
            else:
                if (
                    receipt.verdict is Verdict.ALREADY
                    and lost is not None
                    and not self._mapping.keeps_receipts
                ):
                    # an earlier attempt has applied the step, but the server stores no receipt of it
                    return replace(receipt, verdict=Verdict.APPLIED)
                return receipt
        if isinstance(lost, ScimError):
            # the last attempt may have taken effect
            stored = self._stored_receipt(call) if self._mapping.keeps_receipts else None
            return _rejected(call, lost) if stored is None else repeated(call.key, stored, self._ledger)
        if lost is not None:
            raise lost
        sentence = f"{address_of(call.step)} is being changed by somebody else all the time."
        return Receipt(call.key, Verdict.CONFLICT, problem=sentence, code="version-moved")

    def _attempt(self, call: Call, *, retry: bool) -> Receipt:
        job = AuthorisedCall(call, self._access.operator)
        step = call.step
        try:
            if isinstance(step, CompanyStep):
                return self._write_company(job, step.company, retry=retry)
            if isinstance(step, CreateUser):
                return self._create_user(job, step, retry=retry)
            return self._write_user(job)
        except ScimError as problem:
            if problem.moved:
                raise _Moved from problem
            raise

    def _stored_receipt(self, call: Call) -> StoredReceipt | None:
        step, directory = call.step, self._directory
        if isinstance(step, CompanyStep):
            group = directory.group(step.company, reread=True)
            return directory.group_receipt(group, call.key) if group else None
        if isinstance(step, CreateUser):
            user = directory.find_user(step.profile.email, reread=True)
        else:
            user = directory.user(call.id)
        return directory.user_receipt(user, call.key) if user else None

    # --- companies ---

    def _write_company(self, job: AuthorisedCall, number: str, *, retry: bool) -> Receipt:
        call, mapping, directory = job.call, self._mapping, self._directory
        group = directory.group(number, reread=retry)
        stored = directory.group_receipt(group, call.key) if group else None
        desired = self._decide(job, stored, directory.as_company(group) if group else None)
        if isinstance(desired, Receipt):
            return desired
        assert isinstance(desired, Company)
        if violations := directory.violations(company_address(number), desired):
            return refused(call.key, violations)
        written = mapping.with_company(group or _new("Group"), desired)
        written = mapping.with_receipt(
            "company_receipts", written, call.key, self._ledger, directory.group_version
        )
        endpoint, new = self._client.features.groups, group is None
        if group is None:
            group = self._create_group(number, written)
        else:
            if not self._client.features.patch:
                directory.require_members()
            group = self._client.update(endpoint, group, written)
        if lost := unsaved_company_fields(directory.as_company(group), desired, mapping):
            if new:
                self._client.delete(endpoint, group)
            return _not_stored(call.key, lost)
        directory.cache_group(group)
        return Receipt(call.key, Verdict.APPLIED, "", directory.group_version(group))

    def _create_group(self, number: str, written: Resource) -> Resource:
        endpoint = self._client.features.groups
        group = self._create(endpoint, written)
        if not self._mapping.enforces_unique_numbers:
            # the server accepts duplicate numbers (R13), so of two concurrent creations only the older stays
            first = next(iter(self._directory.find_groups(number, reread=True)), group)
            if first["id"] != group["id"]:
                self._client.delete(endpoint, group)
                raise _Moved
        return group

    # --- users ---

    def _create_user(self, job: AuthorisedCall, step: CreateUser, *, retry: bool) -> Receipt:
        call, mapping, directory = job.call, self._mapping, self._directory
        resource = directory.find_user(step.profile.email, reread=retry)
        if resource is not None:
            return self._receipt_of_existing_user(job, step, resource, retry=retry)
        desired = self._decide(job, None, None)
        if isinstance(desired, Receipt):
            return desired
        assert isinstance(desired, User)
        directory.group_ids(desired.companies)
        if _needs_an_administrator(None, desired):
            directory.read_administrator(desired.billed)
        if violations := directory.violations(user_address(""), desired):
            return refused(call.key, violations)
        pending = pending_for(call, self._ledger, None, desired)
        waiting = replace(desired, status=Status.TO_VALIDATE)
        written = mapping.with_user(_new("User"), None, waiting)
        if mapping.keeps_receipts:
            written = mapping.with_pending(written, pending)
        elif call.key:
            # externalId, which each server stores, names the ledger and the call that created the account
            written["externalId"] = f"{self._ledger}:{call.key}"
        resource = self._create(self._client.features.users, written)
        if lost := self._unsaved(resource, desired, CREATED_FIELDS):
            self._client.delete(self._client.features.users, resource)
            return _not_stored(call.key, lost)
        directory.update_membership(resource["id"], (), directory.companies_of(resource["id"]))
        directory.cache_user(resource)
        return self._done(call.key, self._completion.finish(resource, pending), None, desired)

    def _receipt_of_existing_user(
        self, job: AuthorisedCall, step: CreateUser, resource: Resource, *, retry: bool
    ) -> Receipt:
        call = job.call
        resource = self._completion.finished(resource)
        stored = self._directory.user_receipt(resource, call.key)
        if stored is not None and retry and not self._mapping.keeps_receipts:
            # an earlier attempt at this call created the account, but its response was lost
            pending = pending_for(call, self._ledger, None, step.profile)
            return self._done(call.key, self._completion.finish(resource, pending), None, step.profile)
        found = self._directory.as_user(resource)
        if stored is None and found is None:
            problem = f"R1: {step.profile.email} belongs to an account that is no client access."
            return Receipt(call.key, Verdict.CONFLICT, problem=problem, code="exists")
        outcome = self._decide(job, stored, found)
        assert isinstance(outcome, Receipt)
        return outcome

    def _write_user(self, job: AuthorisedCall) -> Receipt:
        call, mapping, directory = job.call, self._mapping, self._directory
        resource = directory.user(call.id)
        if resource is not None:
            resource = self._completion.finished(resource)
        found = directory.as_user(resource) if resource else None
        stored = directory.user_receipt(resource, call.key) if resource and found else None
        if found is not None and _may_remove_an_administrator(call, found):
            directory.read_billed_users(found.billed)
        desired = self._decide(job, stored, found)
        if isinstance(desired, Receipt):
            return desired
        assert isinstance(desired, User)
        assert found is not None
        assert resource is not None
        if isinstance(call.step, EditApps) and call.step.end and not mapping.has("endings"):
            problem = "R9: this server does not hold the day on which an application ends."
            return Receipt(call.key, Verdict.FAILED, problem=problem, code="R9")
        if joined := desired.companies - found.companies:
            directory.group_ids(joined)
        if _needs_an_administrator(found, desired):
            directory.read_administrator(desired.billed, but=found.id)
        if violations := directory.violations(user_address(found.id), desired):
            return refused(call.key, violations)
        if desired.companies != found.companies:
            return self._move_user(call, resource, found, desired)
        written = mapping.with_user(resource, found, desired)
        written = directory.with_receipt(written, call.key, self._ledger)
        resource = self._client.update(self._client.features.users, resource, written)
        return self._done(call.key, resource, found, desired)

    def _move_user(self, call: Call, resource: Resource, found: User, desired: User) -> Receipt:
        mapping, pending = self._mapping, pending_for(call, self._ledger, found, desired)
        # A user who becomes a standard user is demoted before joining the other company. The same write
        # changes the billed company; otherwise the only administrator of the old company would become
        # its standard user (R2).
        narrowed = found
        if pending.type is UserType.STANDARD:
            narrowed = replace(found, type=desired.type, billed=desired.billed)
        announced = mapping.with_user(resource, found, narrowed)
        if mapping.keeps_receipts:
            announced = mapping.with_pending(announced, pending)
        resource = self._client.update(self._client.features.users, resource, announced)
        self._directory.cache_user(resource)
        return self._done(call.key, self._completion.finish(resource, pending), found, desired)

    # --- details ---

    def _create(self, endpoint: str, written: Resource) -> Resource:
        try:
            return self._client.create(endpoint, written)
        except ScimError as problem:
            if problem.status != 409:
                raise
            # another writer was faster, or an earlier attempt's response was lost: attempt the step again
            self._directory.read_everything()
            raise _Moved from problem

    def _decide(
        self, job: AuthorisedCall, stored: StoredReceipt | None, found: Company | User | None
    ) -> Receipt | Company | User:
        if stored is not None:
            return repeated(job.call.key, stored, self._ledger)
        return decide(job, None, None, found, self._today())

    def _done(self, key: str, resource: Resource, before: User | None, desired: User) -> Receipt:
        self._directory.cache_user(resource)
        user = self._directory.as_user(resource)
        changed = {"status"} if before is None else differing(before, desired)
        lost = self._unsaved(resource, desired, changed)
        if lost or user is None:
            return _not_stored(key, lost)
        self._set_billing_ends(*billing_transfer(before, user))
        return applied(key, user)

    def _unsaved(self, resource: Resource, desired: User, names: Collection[str]) -> list[str]:
        found = self._directory.as_user(self._mapping.with_pending(resource, None))
        return unsaved_user_fields(found, desired, names, self._mapping)

    def _set_billing_ends(self, left: str, joined: str) -> None:
        """Update the last billing days when the billing of a user moves to another company (R15).

        The last day of ``left``, the former company, becomes the end of this month, unless another open user
        is billed to it. The last day of ``joined``, the new company, is removed. Each number is "" if there
        is no such company. Errors are ignored, because no plan needs these days.
        """
        if left == joined or not self._mapping.has("billing_ends"):
            return
        for number, ends in ((left, month_end(self._today())), (joined, None)):
            if number and (ends is None or not self._directory.is_billed(number)):
                with suppress(ScimError, NoResponse):
                    retry_write(partial(self._write_billing_end, number, ends))

    def _write_billing_end(self, number: str, ends: date | None) -> None:
        group = self._directory.group(number, reread=False)
        if group is not None:
            written = self._mapping.with_billing_ends(group, ends)
            self._directory.cache_group(self._client.update(self._client.features.groups, group, written))

    def _today(self) -> date:
        return paris_date(self._access.clock())


class _Moved(Exception):
    """The signal that the resource has changed since it was read, so the step must be attempted again."""


def _new(kind: str) -> Resource:
    return {"schemas": [f"{CORE}{kind}"]}


def _may_remove_an_administrator(call: Call, user: User) -> bool:
    return user.is_administrator and isinstance(call.step, CloseUser | SetType | SetBilledCompany)


def _needs_an_administrator(before: User | None, desired: User) -> bool:
    """Return True if the step needs another user who is an administrator of the billed company (R2)."""
    if desired.is_administrator or not desired.is_open:
        return False
    return before is None or not before.is_open or before.is_administrator or before.billed != desired.billed


def _rejected(call: Call, problem: ScimError) -> Receipt:
    if problem.status == 409:
        words = f"The server has that already, on another account or company: {problem.detail}"
        return Receipt(call.key, Verdict.CONFLICT, problem=words, code="exists")
    return Receipt(call.key, Verdict.FAILED, problem=f"The server refuses: {problem.detail}")


def _not_stored(key: str, lost: Sequence[str]) -> Receipt:
    problem = (
        f"The server accepts, but does not keep: {', '.join(lost)}. "
        "Say where it keeps that, portal: {scim: {…: ATTRIBUTE}}, or have it keep it there."
    )
    return Receipt(key, Verdict.FAILED, problem=problem, code="portal-cannot-hold")
