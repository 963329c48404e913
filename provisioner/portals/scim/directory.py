"""A cache of the users, groups and memberships of a SCIM server. The driver checks the rules on this cache.

The rules need all users and companies, but SCIM cannot read several resources at the same instant. The cache
contains the last complete reading, updated with each resource that has been read or written since then.
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
from provisioner.portals.http_messages import ResponseTooLarge
from provisioner.portals.scim.client import ScimClient, version_of
from provisioner.portals.scim.mapping import AttributeMap
from provisioner.portals.scim.path import Path, Resource
from provisioner.rules import StateIndex

_VERSION_DIGITS = 13
"""The number of hexadecimal digits of a version: 52 bits, which every JSON parser represents exactly."""

_USER_NAME = Path("", "userName")
_MEMBER = Path("", "members", part="value")


class Directory:
    """The cached users, groups and memberships of one server."""

    def __init__(self, client: ScimClient, mapping: AttributeMap, terms: PortalTerms) -> None:
        self.mapping = mapping
        self._client = client
        self._terms = terms
        self._users: dict[str, Resource] = {}
        self._groups: dict[str, Resource] = {}
        self._group_of: dict[str, str] = {}
        self._companies_of: dict[str, set[str]] = {}
        self._members_of: dict[str, set[str]] = {}
        self._index = StateIndex(State(), terms)
        self._read = False

    @property
    def state(self) -> State:
        """The cached companies and users as a state of the model. The users have their ids as keys."""
        return self._index.state

    def users(self) -> list[Resource]:
        """Return all cached user resources, including users who are not client users."""
        return list(self._users.values())

    def groups(self) -> list[Resource]:
        """Return the group resources of all cached companies."""
        return list(self._groups.values())

    # --- reading ---

    def read_if_needed(self) -> None:
        """Read all users and groups, unless this has been done before."""
        if not self._read:
            self.read_everything()

    def read_everything(self) -> None:
        """Read into the cache all users and then all groups, so that no group of a cached user is missing."""
        users = self._client.listing(self._client.features.users)
        groups = self._with_members(self._listed_groups())
        self._users, self._groups = {}, {}
        self._group_of, self._companies_of, self._members_of = {}, {}, {}
        self._index = StateIndex(State(), self._terms)
        for group in sorted(groups, key=_age):
            self.cache_group(group)
        for user in sorted(users, key=_age):
            self.cache_user(user)
        self._read = True
        self.require_members()

    def user(self, id_: str) -> Resource | None:
        """Read a user and the user's memberships from the server; return None if there is no such user."""
        found = self._client.read(self._client.features.users, id_) if id_ else None
        if found is None:
            self.evict_user(id_)
            return None
        self._read_companies(id_)
        self.cache_user(found)
        return found

    def find_user(self, email: str, *, reread: bool) -> Resource | None:
        """Return the user with this e-mail, as :meth:`user` reads it from the server; None if there is no
        such user. If the server cannot search for the e-mail, the cache is searched. Before this search,
        all users and groups are read into the cache if ``reread`` is True.
        """
        found = self._client.search(self._client.features.users, _USER_NAME, email)
        if found is None and reread:
            self.read_everything()
        for candidate in self.users() if found is None else found:
            if email_key(str(candidate.get("userName", ""))) == email_key(email):
                return self.user(candidate["id"])
        return None

    def group(self, number: str, *, reread: bool) -> Resource | None:
        """Read the group of the company with this number from the server. Return None if there is none.

        If the cache contains the group, the group is read by its id. Otherwise, :meth:`find_groups` searches
        for it; :meth:`find_user` explains ``reread``.
        """
        known = self._group_of.get(number)
        if known is not None:
            found = self._client.read(self._client.features.groups, known)
            if found is not None and self.mapping.number(found) == number:
                self.cache_group(found)
                return found
            self.evict_group(number)
        for candidate in self.find_groups(number, reread=reread):
            # each candidate is read by itself, because a list may lack members or versions
            found = self._client.read(self._client.features.groups, candidate["id"])
            if found is not None and self.mapping.number(found) == number:
                self.cache_group(found)
                return found
        return None

    def find_groups(self, number: str, *, reread: bool) -> list[Resource]:
        """Return all groups with this dossier number, oldest first. :meth:`find_user` explains ``reread``."""
        place = self.mapping.path_of("number")
        found = self._client.search(self._client.features.groups, place, number, without="members")
        if found is None:
            if reread:
                self.read_everything()
            found = self.groups()
        unique = {group["id"]: group for group in found if self.mapping.number(group) == number}
        return sorted(unique.values(), key=_age)

    def group_ids(self, numbers: Collection[str]) -> dict[str, str]:
        """Return the group ids of those companies that have a group, by dossier number."""
        for number in numbers:
            if number not in self._group_of:
                self.group(number, reread=True)
        return {number: self._group_of[number] for number in numbers if number in self._group_of}

    def read_billed_users(self, number: str) -> None:
        """Read the users billed to a company (R2) into the cache. The users are searched on the server. Then
        each other open user who is billed to the company according to the cache is read from the server.
        """
        found = self._client.search(self._client.features.users, self.mapping.path_of("billed"), number) or ()
        for resource in found:
            self.cache_user(resource)
        named = {resource["id"] for resource in found}
        for id_, user in self.state.users.items():
            if user.billed == number and user.is_open and id_ not in named:
                self.user(id_)

    def read_administrator(self, number: str, but: str = "") -> None:
        """Check on the server that a cached administrator of a company is still its administrator (R2).

        The open administrators in the cache, except the user with the id ``but``, are read one by one until
        one of them is unchanged. If none of them is unchanged, :meth:`read_billed_users` is called.
        """
        for id_, user in self.state.users.items():
            if id_ != but and user.billed == number and user.is_open and user.is_administrator:
                found = self._client.read(self._client.features.users, id_)
                if found is None:
                    self.evict_user(id_)
                else:
                    self.cache_user(found)
                if self._index.get(user_address(id_)) == user:
                    return
        self.read_billed_users(number)

    def has_versions(self) -> bool:
        """Return True if the server gives resources versions (ETags), or if there is no resource to check."""
        endpoints = self._client.features
        for endpoint, held in ((endpoints.users, self._users), (endpoints.groups, self._groups)):
            for id_, listed in held.items():
                one = listed if version_of(listed) else self._client.read(endpoint, id_)
                if one is not None:
                    return bool(version_of(one))
        return True

    def require_members(self) -> None:
        """Raise :class:`PortalError` if no company has members in the cache, although there are active users.
        Without this check, each plan would add all members again, and a PUT of a group would remove them.
        """
        if any(self._members_of.values()):
            return
        for resource in self.users():
            user = self.as_user(resource)
            if user is not None and user.status is Status.ACTIVE and self.mapping.pending(resource) is None:
                name = self.state.companies[user.billed].name
                raise PortalError(
                    f"This SCIM server says of no company who its members are; {user.email} is billed to "
                    f"{name} ({user.billed}), and should be one of them.",
                    "Have it return members of groups; if there are none yet, make them a member by hand.",
                )

    # --- caching ---

    def cache_user(self, resource: Resource) -> None:
        """Store in the cache a user resource that was just read or written."""
        self._users[resource["id"]] = resource
        self._index.put(user_address(resource["id"]), self.as_user(resource))

    def cache_group(self, resource: Resource) -> None:
        """Store a group in the cache, unless the cache contains an older group with the same number."""
        id_, number = resource["id"], self.mapping.number(resource)
        company = self.as_company(resource)
        if company is None or self._group_of.setdefault(number, id_) != id_:
            return
        self._groups[id_] = resource
        self._index.put(company_address(number), company)
        members = {str(one.get("value")) for one in Path("", "members").elements(resource)}
        known = self._members_of.get(number, set())
        for user in known - members:
            self.update_membership(user, (), (number,))
        for user in members - known:
            self.update_membership(user, (number,), ())

    def evict_group(self, number: str) -> None:
        """Remove a company that no longer exists, and its memberships, from the cache."""
        self._groups.pop(self._group_of.pop(number), None)
        for user in set(self._members_of.get(number, ())):
            self.update_membership(user, (), (number,))
        self._index.put(company_address(number), None)

    def evict_user(self, id_: str) -> None:
        """Remove a user who no longer exists from the cache."""
        self._users.pop(id_, None)
        self._index.put(user_address(id_), None)

    def update_membership(self, id_: str, add: Collection[str], remove: Collection[str]) -> None:
        """Record in the cache that a user joins the companies ``add`` and leaves the companies ``remove``."""
        numbers = self._companies_of.setdefault(id_, set())
        numbers.difference_update(remove)
        numbers.update(add)
        for number in remove:
            self._members_of.get(number, set()).discard(id_)
        for number in add:
            self._members_of.setdefault(number, set()).add(id_)

    # --- as values of the model ---

    def companies_of(self, id_: str) -> frozenset[str]:
        """Return the numbers of the companies of which this user is a member, according to the cache."""
        return frozenset(self._companies_of.get(id_, ()))

    def as_user(self, resource: Resource) -> User | None:
        """Translate a resource into a user of the model; None if the resource is not a client user."""
        companies = self.companies_of(resource["id"])
        return self.mapping.user(resource, companies, self._group_of, self.user_version(resource))

    def as_company(self, resource: Resource) -> Company | None:
        """Translate a resource into a company of the model; None if the resource is not a company."""
        return self.mapping.company(resource, self.group_version(resource))

    def user_version(self, resource: Resource) -> int:
        """Return a version number that changes with each change of a user or of the user's companies.

        The number is a digest of the content and of the keys of the receipts. The number cannot detect a
        change between a read and the next write. The server's ETag detects such a change.
        """
        return _number([self.mapping.content(resource), sorted(self.companies_of(resource["id"]))])

    def group_version(self, resource: Resource) -> int:
        """Return a version number that changes with each change of a company, but not of its members."""
        return _number(self.mapping.content(resource))

    def user_receipt(self, resource: Resource, key: str) -> StoredReceipt | None:
        """Return the receipt that a user stores for this idempotency key; None if the user has none."""
        return self.mapping.receipt("receipts", resource, key, self.user_version(resource))

    def group_receipt(self, resource: Resource, key: str) -> StoredReceipt | None:
        """Return the receipt that a group stores for this idempotency key; None if the group has none."""
        return self.mapping.receipt("company_receipts", resource, key, self.group_version(resource))

    def with_receipt(self, resource: Resource, key: str, ledger: str) -> Resource:
        """Return a copy of a user's resource with the receipt of the call ``key`` for ``ledger`` added."""
        return self.mapping.with_receipt("receipts", resource, key, ledger, self.user_version)

    # --- the rules ---

    def violations(self, address: Address, wanted: Held) -> list[Diagnostic]:
        """Return the rule violations that would result if ``wanted`` replaced the resource at ``address``."""
        before = self._index.get(address)
        violations = self._index.put(address, wanted)
        self._index.put(address, before)
        return violations

    def is_billed(self, number: str) -> bool:
        """Return True if at least one open user is billed to the company (R15)."""
        return self._index.billed_counts(number)[0] > 0

    # --- details ---

    def _listed_groups(self) -> list[Resource]:
        endpoint = self._client.features.groups
        try:
            return self._client.listing(endpoint)
        except ResponseTooLarge:
            # a group that is not a company may have all users as members, which makes the response too large
            return self._client.listing(endpoint, without="members")

    def _with_members(self, groups: list[Resource]) -> list[Resource]:
        """Return ``groups`` with members. If the server's list omits members, read each company by its id."""
        companies = [group for group in groups if self.mapping.number(group)]
        if any(_MEMBER.elements(group) for group in companies):
            return groups
        endpoint = self._client.features.groups
        single = {group["id"]: self._client.read(endpoint, group["id"]) for group in companies}
        return [one for group in groups if (one := single.get(group["id"], group)) is not None]

    def _read_companies(self, id_: str) -> None:
        found = self._client.search(self._client.features.groups, _MEMBER, id_, without="members")
        named = {number for group in found or () if (number := self.mapping.number(group))}
        # some servers ignore this filter or find nothing with it, so the groups themselves decide; without
        # filters only the cached memberships are checked, and a membership added meanwhile goes unnoticed
        for number in named ^ self.companies_of(id_):
            self.group(number, reread=False)


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
