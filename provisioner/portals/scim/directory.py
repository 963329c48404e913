"""What a SCIM server holds, as last read: users, groups, who is a member of what; and the rules.

The rules take the whole portal, and SCIM has no reading of several resources at one instant. So they are
asked of the last whole reading, brought up to date by everything that was read and written since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.decide import StoredReceipt
from provisioner.errors import PortalError
from provisioner.model import (
    Address,
    Company,
    PortalTerms,
    State,
    Status,
    User,
    company_address,
    email_key,
    user_address,
)
from provisioner.model import (
    Resource as Held,
)
from provisioner.planning.codec import canonical
from provisioner.portals.http import ResponseTooLarge
from provisioner.portals.scim.client import ScimClient, version_of
from provisioner.portals.scim.mapping import AttributeMap
from provisioner.portals.scim.path import Path, Resource
from provisioner.rules import StateIndex

_VERSION_DIGITS = 13
"""52 bits: every program reads such a number back from JSON as it was."""

_USER_NAME = Path("", "userName")
_MEMBER = Path("", "members", part="value")


class Directory:
    """One server's users and groups."""

    def __init__(self, client: ScimClient, places: AttributeMap, terms: PortalTerms) -> None:
        self.places = places
        self._client = client
        self._terms = terms
        self._users: dict[str, Resource] = {}
        self._groups: dict[str, Resource] = {}
        self._group_of: dict[str, str] = {}
        self._companies_of: dict[str, set[str]] = {}
        self._members_of: dict[str, set[str]] = {}
        self._census = StateIndex(State(), terms)
        self._read = False
        self._finds_members = True

    @property
    def state(self) -> State:
        """Companies and users as last read; the users by their ids."""
        return self._census.state

    def users(self) -> list[Resource]:
        """Every resource of the last reading that is a user, ours or not."""
        return list(self._users.values())

    def groups(self) -> list[Resource]:
        """Likewise groups."""
        return list(self._groups.values())

    # --- reading ---

    def read_once(self) -> None:
        """Everything, unless it was read already."""
        if not self._read:
            self.read_everything()

    def read_everything(self) -> None:
        """Everything anew: first the users, then the groups, so that nobody is seen who has no group yet."""
        users = self._client.listing(self._client.features.users)
        groups = self._with_members(self._listed_groups())
        self._users, self._groups = {}, {}
        self._group_of, self._companies_of, self._members_of = {}, {}, {}
        self._census = StateIndex(State(), self._terms)
        for group in sorted(groups, key=_age):
            self.keep_group(group)
        for user in sorted(users, key=_age):
            self.keep_user(user)
        self._read = True
        self.require_members()

    def user(self, id_: str) -> Resource | None:
        """A user with his dossiers, read now."""
        found = self._client.read(self._client.features.users, id_) if id_ else None
        if found is None:
            self.forget_user(id_)
            return None
        numbers = self._companies_read(id_)
        self.moved(id_, numbers, self.companies_of(id_) - numbers)
        self.keep_user(found)
        return found

    def user_called(self, email: str, *, anew: bool) -> Resource | None:
        """Whoever has this e-mail, with his dossiers; without filters as last read, or read ``anew``."""
        found = self._client.search(self._client.features.users, _USER_NAME, email)
        if found is None and anew:
            self.read_everything()
        for candidate in self.users() if found is None else found:
            if email_key(str(candidate.get("userName", ""))) == email_key(email):
                return self.user(candidate["id"])
        return None

    def group(self, number: str, *, anew: bool) -> Resource | None:
        """The group of a company, read now; without filters an unknown one is looked for only ``anew``."""
        known = self._group_of.get(number)
        if known is not None:
            found = self._client.read(self._client.features.groups, known)
            if found is not None and self.places.number(found) == number:
                self.keep_group(found)
                return found
            self.forget_group(number)
        for candidate in self.groups_numbered(number, anew=anew):
            # a list may leave out members, or versions
            found = self._client.read(self._client.features.groups, candidate["id"])
            if found is not None and self.places.number(found) == number:
                self.keep_group(found)
                return found
        return None

    def groups_numbered(self, number: str, *, anew: bool) -> list[Resource]:
        """The groups with this number, the oldest first; there should be one at most."""
        found = self._client.search(self._client.features.groups, self.places.place("number"), number)
        if found is None:
            if anew:
                self.read_everything()
            found = self.groups()
        unique = {group["id"]: group for group in found if self.places.number(group) == number}
        return sorted(unique.values(), key=_age)

    def group_ids(self, numbers: Collection[str]) -> dict[str, str]:
        """The groups of these companies, those that exist."""
        for number in numbers:
            if number not in self._group_of:
                self.group(number, anew=True)
        return {number: self._group_of[number] for number in numbers if number in self._group_of}

    def read_people(self, number: str) -> None:
        """Whoever is billed to a company, or was as last read, read now (R2)."""
        found = self._client.search(self._client.features.users, self.places.place("billed"), number) or ()
        for resource in found:
            self.keep_user(resource)
        named = {resource["id"] for resource in found}
        for id_, user in self.state.users.items():
            if user.billed == number and user.is_open and id_ not in named:
                self.user(id_)

    def read_administrator(self, number: str, but: str = "") -> None:
        """An administrator of a company, read now; all its people where none is as we knew him (R2)."""
        for id_, user in self.state.users.items():
            if id_ != but and user.billed == number and user.is_open and user.is_administrator:
                found = self._client.read(self._client.features.users, id_)
                if found is None:
                    self.forget_user(id_)
                else:
                    self.keep_user(found)
                if self._census.get(user_address(id_)) == user:
                    return
        self.read_people(number)

    def has_versions(self) -> bool:
        """Whether the server gives versions with what is read singly; where nothing is, it is believed."""
        endpoints = self._client.features
        for endpoint, held in ((endpoints.users, self._users), (endpoints.groups, self._groups)):
            for id_, listed in held.items():
                one = listed if version_of(listed) else self._client.read(endpoint, id_)
                if one is not None:
                    return bool(version_of(one))
        return True

    def require_members(self) -> None:
        """Raises :class:`PortalError` where the server says of no company who its members are.

        There everybody would join with every plan, and whoever writes a whole group would empty it.
        """
        if any(self._members_of.values()):
            return
        for resource in self.users():
            user = self.as_user(resource)
            if user is not None and user.status is Status.ACTIVE and self.places.pending(resource) is None:
                name = self.state.companies[user.billed].name
                raise PortalError(
                    f"This SCIM server says of no company who its members are; {user.email} is billed to "
                    f"{name} ({user.billed}), and should be one of them.",
                    "Have it return members of groups; if there are none yet, make him a member by hand.",
                )

    # --- keeping ---

    def keep_user(self, resource: Resource) -> None:
        """A user as he was read or written just now."""
        self._users[resource["id"]] = resource
        self._census.place(user_address(resource["id"]), self.as_user(resource))

    def keep_group(self, resource: Resource) -> None:
        """A group as it was read or written just now; of two with one number the older one counts."""
        id_, number = resource["id"], self.places.number(resource)
        company = self.as_company(resource)
        if company is None or self._group_of.setdefault(number, id_) != id_:
            return
        self._groups[id_] = resource
        self._census.place(company_address(number), company)
        members = {str(one.get("value")) for one in Path("", "members").elements(resource)}
        known = self._members_of.get(number, set())
        for user in known - members:
            self.moved(user, (), (number,))
        for user in members - known:
            self.moved(user, (number,), ())

    def forget_group(self, number: str) -> None:
        """A company that is no more, and has no members."""
        self._groups.pop(self._group_of.pop(number), None)
        for user in set(self._members_of.get(number, ())):
            self.moved(user, (), (number,))
        self._census.place(company_address(number), None)

    def forget_user(self, id_: str) -> None:
        """A user who is no more."""
        self._users.pop(id_, None)
        self._census.place(user_address(id_), None)

    def moved(self, id_: str, add: Collection[str], remove: Collection[str]) -> None:
        """A user has joined some companies and left others."""
        numbers = self._companies_of.setdefault(id_, set())
        numbers.difference_update(remove)
        numbers.update(add)
        for number in remove:
            self._members_of.get(number, set()).discard(id_)
        for number in add:
            self._members_of.setdefault(number, set()).add(id_)

    # --- in our words ---

    def companies_of(self, id_: str) -> frozenset[str]:
        """The dossiers of a user, as last read."""
        return frozenset(self._companies_of.get(id_, ()))

    def as_user(self, resource: Resource) -> User | None:
        """The client user that this is; None for somebody else's user."""
        companies = self.companies_of(resource["id"])
        return self.places.user(resource, companies, self._group_of, self.user_version(resource))

    def as_company(self, resource: Resource) -> Company | None:
        """The company that this is; None for somebody else's group."""
        return self.places.company(resource, self.group_version(resource))

    def user_version(self, resource: Resource) -> int:
        """Another number after each change of a user or his dossiers.

        It is made of what is held, our receipts included, so that no earlier one comes back; the server's own
        version (ETag) guards the moment between reading and writing.
        """
        return _number([self.places.content(resource), sorted(self.companies_of(resource["id"]))])

    def group_version(self, resource: Resource) -> int:
        """Another number after each change of a company; who its members are is the users' affair."""
        return _number(self.places.content(resource))

    def user_given(self, resource: Resource, key: str) -> StoredReceipt | None:
        """What is kept on a user of a write with this key."""
        return self.places.given("receipts", resource, key, self.user_version(resource))

    def group_given(self, resource: Resource, key: str) -> StoredReceipt | None:
        """Likewise on a group."""
        return self.places.given("company_receipts", resource, key, self.group_version(resource))

    def with_receipt(self, resource: Resource, key: str, ledger: str) -> Resource:
        """A user who remembers a write."""
        return self.places.with_receipt("receipts", resource, key, ledger, self.user_version)

    # --- the rules ---

    def faults(self, address: Address, wanted: Held) -> list[Diagnostic]:
        """The rules that a resource would break as it is wanted."""
        before = self._census.get(address)
        faults = self._census.place(address, wanted)
        self._census.place(address, before)
        return faults

    def is_billed(self, number: str) -> bool:
        """Whether somebody who is not closed is billed to a company (R15)."""
        return self._census.billed_counts(number)[0] > 0

    # --- details ---

    def _listed_groups(self) -> list[Resource]:
        endpoint = self._client.features.groups
        try:
            return self._client.listing(endpoint)
        except ResponseTooLarge:
            # somebody else's group has everybody in it
            return self._client.listing(endpoint, without="members")

    def _with_members(self, groups: list[Resource]) -> list[Resource]:
        """The groups as listed, but companies read singly where no list tells who their members are."""
        companies = [group for group in groups if self.places.number(group)]
        if any(_MEMBER.elements(group) for group in companies):
            return groups
        endpoint = self._client.features.groups
        single = {group["id"]: self._client.read(endpoint, group["id"]) for group in companies}
        return [one for group in groups if (one := single.get(group["id"], group)) is not None]

    def _companies_read(self, id_: str) -> set[str]:
        parts = ["displayName", str(self.places.place("number"))]
        found = None
        if self._finds_members:
            found = self._client.search(self._client.features.groups, _MEMBER, id_, parts)
        if found is not None:
            numbers = {number for group in found if (number := self.places.number(group))}
            if all(self._confirms(number, id_, numbers) for number in numbers ^ self.companies_of(id_)):
                return numbers
            self._finds_members = False
        # without filters those that he was in; one that somebody gave him meanwhile is not seen
        for number in self.companies_of(id_):
            self.group(number, anew=False)
        return set(self.companies_of(id_))

    def _confirms(self, number: str, id_: str, numbers: Collection[str]) -> bool:
        """Whether a group is as the filter says: there are servers that ignore it, or find nothing by it."""
        group = self.group(number, anew=False)
        return group is None or (number in self.companies_of(id_)) == (number in numbers)


def _age(resource: Resource) -> tuple[str, str]:
    meta = resource.get("meta")
    created = meta.get("created") if isinstance(meta, dict) else None
    return str(created or ""), resource["id"]


def _number(content: object) -> int:
    try:
        words = canonical(content)
    except (TypeError, ValueError):
        raise PortalError("The SCIM server gave a resource that is no JSON.") from None
    return int(hashlib.sha256(words.encode()).hexdigest()[:_VERSION_DIGITS], 16)
