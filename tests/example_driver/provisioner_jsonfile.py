"""A driver for provisioner: a portal that is one JSON file, for one writer at a time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioner.diagnostics import Diagnostic, Severity
from provisioner.errors import PortalError
from provisioner.model import Company, Resource, State, User, email_key
from provisioner.planning.codec import InvalidJson, parse_json, reader, writer
from provisioner.planning.steps import CompanyStep, CreateCompany, CreateUser, IllegalStep, address_of, after
from provisioner.portal import Access, Call, Capabilities, PortalDriver, Receipt, Snapshot, Verdict, read_only


@dataclass(frozen=True)
class Content:
    """The content of the file. ``portal`` is the permanent identity of the portal."""

    portal: str = ""
    companies: tuple[Company, ...] = ()
    users: tuple[User, ...] = ()


class JsonFilePortal:
    """The portal at ``jsonfile:///FILE``. It stores no phone numbers and checks no rules."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._path = access.root / access.url.removeprefix("jsonfile:///")
        if access.writing and not self._load().portal:
            if not access.making:
                raise PortalError(f"There is no portal at {access.url}.", "Check portal: url:.")
            self._save(Content(portal=uuid.uuid4().hex))

    def snapshot(self) -> Snapshot:
        content = self._load()
        companies = {company.number: company for company in content.companies}
        users = {email_key(user.email): user for user in content.users}
        return Snapshot(content.portal, State(companies, users), self._access.terms)

    def users(self, ids: Collection[str]) -> dict[str, User]:
        return {user.id: user for user in self._load().users if user.id in ids}

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        with_phone = sum(user.phone is not None for user in desired.users.values())
        if not with_phone:
            return desired, ()
        lost = Diagnostic(
            Severity.WARNING,
            "jsonfile-phone",
            f"The phone numbers of {with_phone} users are declared, and this portal stores none.",
            driver_summary="Phone numbers are not stored",
        )
        users = {key: replace(user, phone=None) for key, user in desired.users.items()}
        return State(desired.companies, users), (lost,)

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        if not self._access.writing:
            raise read_only()
        content = self._load()
        companies = {company.number: company for company in content.companies}
        users = {user.id: user for user in content.users}
        receipts = [self._answer(call, companies, users) for call in calls]
        self._save(Content(content.portal, tuple(companies.values()), tuple(users.values())))
        return receipts

    def _answer(self, call: Call, companies: dict[str, Company], users: dict[str, User]) -> Receipt:
        """Apply one call to ``companies`` or ``users``, unless it is refused."""
        step, before = call.step, self._find(call, companies, users)
        new = isinstance(step, CreateCompany | CreateUser)
        if before is None and not new:
            problem = f"{address_of(step)} is not on this portal."
            return Receipt(call.key, Verdict.CONFLICT, problem=problem, code="not-on-portal")
        try:
            wanted = after(None if new else before, step)
        except IllegalStep as illegal:
            found = illegal.diagnostic
            return Receipt(call.key, Verdict.FAILED, problem=found.detail, code=found.code)
        if isinstance(wanted, User):
            wanted = replace(wanted, phone=None)
        if before is not None and (new or before.version != call.version):
            if before == wanted:
                return Receipt(call.key, Verdict.ALREADY, getattr(before, "id", ""), before.version)
            code, problem = "exists" if new else "version-moved", f"{address_of(step)} has changed."
            return Receipt(call.key, Verdict.CONFLICT, problem=problem, code=code)
        version = before.version + 1 if before is not None else 1
        if isinstance(wanted, Company):
            companies[wanted.number] = replace(wanted, version=version)
            return Receipt(call.key, Verdict.APPLIED, version=version)
        id_ = before.id if isinstance(before, User) else uuid.uuid4().hex
        users[id_] = replace(wanted, id=id_, version=version)
        return Receipt(call.key, Verdict.APPLIED, id_, version)

    def _find(self, call: Call, companies: dict[str, Company], users: dict[str, User]) -> Resource | None:
        step = call.step
        if isinstance(step, CompanyStep):
            return companies.get(step.company)
        if isinstance(step, CreateUser):
            key = email_key(step.profile.email)
            return next((user for user in users.values() if email_key(user.email) == key), None)
        return users.get(call.id)

    def capabilities(self) -> Capabilities:
        return Capabilities(batch=100, receipts=False, activation_links=False, claims=False, leases=False)

    # a portal without receipts, claims, leases and activation links answers as follows

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        return fence

    def release(self) -> None: ...

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        return {}

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        return dict.fromkeys(letters, run)

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(user_ids, "")

    def close(self) -> None: ...

    def _load(self) -> Content:
        try:
            content: Content = reader(Content)(parse_json(self._path.read_bytes()))
        except FileNotFoundError:
            return Content()
        except (OSError, InvalidJson) as problem:
            raise PortalError(f"{self._path} cannot be read as a portal: {problem}.") from problem
        return content

    def _save(self, content: Content) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(writer(Content)(content), encoding="utf-8")
        os.replace(new, self._path)


driver = PortalDriver(JsonFilePortal, activation_links=False)
