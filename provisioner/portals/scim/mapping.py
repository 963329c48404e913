"""The mapping between the fields of the model and the SCIM attributes of one server, in both directions.

Fields have the names that ``portal: {scim: …}`` uses. A field is stored at its first possible attribute path
that the server's schemas contain. If the schemas contain no such path, the field is not stored.

    fields of users      names, phone, type, apps, production, billed …     ─▶ attributes of the User
    fields of companies  number, siren, billing_mode, offer …               ─▶ attributes of the Group
    companies of users                                                      ─▶ members of the Groups
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import date
from typing import Any

from provisioner.embedded.decide import StoredReceipt
from provisioner.errors import PortalError
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Production,
    Status,
    User,
    UserType,
)
from provisioner.planning.codec import canonical
from provisioner.portals.scim.discovery import Definition, Schemas
from provisioner.portals.scim.path import COMPANY, CORE, USER, InvalidPath, Path, Resource, attributes, path
from provisioner.portals.scim.pending import Pending, parse_pending

USER_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "first_name": ("name.givenName",),
    "last_name": ("name.familyName",),
    "work_email": ('emails[type eq "work"].value',),
    "phone": ('phoneNumbers[type eq "work"].value',),
    "type": ("roles",),
    "apps": ("entitlements",),
    "production": ('entitlements[type eq "production"].value',),
    "billed": (f"{USER}:billedCompany", 'entitlements[type eq "billed"].value'),
    "status": (f"{USER}:status",),
    "endings": (f"{USER}:applicationEndings",),
    "pending": (f"{USER}:pending",),
    "receipts": (f"{USER}:receipts",),
}

COMPANY_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "number": (f"{COMPANY}:number", "externalId"),
    "siren": (f"{COMPANY}:siren",),
    "billing_mode": (f"{COMPANY}:billingMode",),
    "offer": (f"{COMPANY}:offer",),
    "billing_ends": (f"{COMPANY}:billingEnds",),
    "company_receipts": (f"{COMPANY}:receipts",),
}

NEEDED = ("first_name", "last_name", "type", "billed", "number")
"""The fields that a server must be able to store."""

RECEIPTS = 5
"""The maximum number of receipts that a resource stores. The recovery of a run needs at most one."""

_TAKEN = {
    f"{CORE}User": frozenset({"id", "meta", "schemas", "externalId", "userName", "active", "groups"}),
    f"{CORE}Group": frozenset({"id", "meta", "schemas", "displayName", "members"}),
}
"""The attributes that no override may name: they have another meaning, or only the server writes them."""

_ENDING, _REQUESTED = str(AppState.ENDING), str(AppState.REQUESTED)


class AttributeMap:
    """The SCIM path of each field on one server, and the translation between resources and the model."""

    def __init__(self, overrides: Mapping[str, str], schemas: Schemas, apps: Collection[str]) -> None:
        """Choose the path of each field. If ``overrides`` has a path for the field, choose that path.
        Otherwise, choose the first possible path that is writable according to ``schemas``.

        ``apps`` is the catalogue of applications; entitlements to other applications never change. Raises
        :class:`PortalError` if an override is invalid or a needed field has no path.
        """
        self._apps = frozenset(apps)
        self._schemas = schemas
        self._paths: dict[str, Path] = {}
        known = {**USER_ATTRIBUTES, **COMPANY_ATTRIBUTES}
        for name in overrides:
            if name not in known:
                raise PortalError(
                    f"portal: scim: {name} is nothing that a SCIM server is asked to hold.",
                    f"It is one of: {', '.join(known)}.",
                )
        for name, places in known.items():
            core = f"{CORE}{'User' if name in USER_ATTRIBUTES else 'Group'}"
            if name in overrides:
                found = self._overridden_path(name, overrides[name], core)
            else:
                found = next((place for place in map(path, places) if self._is_writable(place, core)), None)
            if found is not None:
                self._paths[name] = found
        missing = [name for name in NEEDED if name not in self._paths]
        if missing:
            raise PortalError(
                f"This SCIM server has no place for: {', '.join(missing)}.",
                f"Say where it holds that, for example portal: {{scim: {{{missing[0]}: ATTRIBUTE}}}}, "
                "or have it load schemas/scim-user.schema.json and schemas/scim-company.schema.json.",
            )

    def has(self, name: str) -> bool:
        """Return True if the server can store the field ``name``."""
        return name in self._paths

    def path_of(self, name: str) -> Path:
        """Return the attribute path of the field ``name``, which the server must be able to store."""
        return self._paths[name]

    @property
    def enforces_unique_numbers(self) -> bool:
        """True if the server itself rejects a second company with the same dossier number (R13)."""
        return str(self.path_of("number")) == COMPANY_ATTRIBUTES["number"][0]

    @property
    def keeps_receipts(self) -> bool:
        """True if the server can store the receipts, the unfinished step and the status of each user."""
        return self.has("receipts") and self.has("pending") and self.has("status")

    # --- reading ---

    def number(self, group: Resource) -> str:
        """Return the dossier number of a group; "" if the group is not a company."""
        found = self._text("number", group)
        return found if found and found == found.strip() and found.isprintable() else ""

    def company(self, group: Resource, version: int) -> Company | None:
        """Translate a group into a company of the model; return None if the group is not a company."""
        number = self.number(group)
        name = group.get("displayName")
        if not number or not isinstance(name, str):
            return None
        billing = None
        mode, offer = self._text("billing_mode", group), self._text("offer", group)
        if mode in tuple(BillingMode) and offer:
            billing = Billing(BillingMode(mode), offer)
        ends = _day(self._text("billing_ends", group))
        return Company(number, name, self._text("siren", group) or None, billing, ends, version)

    def user(
        self, resource: Resource, companies: frozenset[str], known: Collection[str], version: int
    ) -> User | None:
        """Translate a resource into a user of the model; return None if it is not a client user.

        If the user has an unfinished step, the result is the state after the step. ``companies`` are the
        numbers of the companies of which the user is a member, ``known`` the numbers of all companies.
        """
        email = resource.get("userName")
        if not isinstance(email, str) or email.count("@") != 1 or not isinstance(resource.get("id"), str):
            return None
        pending = self.pending(resource)
        billed = self._text("billed", resource)
        if billed not in known:
            billed = min(companies, default="")
        if not billed and pending is not None:
            billed = pending.billed
        if not billed:
            return None
        full = self._text("production", resource) == Production.FULL
        user = User(
            email=email,
            first_name=self._text("first_name", resource),
            last_name=self._text("last_name", resource),
            phone=_phone(self._text("phone", resource)),
            type=self._type(resource),
            billed=billed,
            companies=companies,
            production=Production.FULL if full else Production.CONSULTATION,
            apps=frozenset(self._grants(resource)),
            status=self._status(resource),
            id=resource["id"],
            version=version,
        )
        return user if pending is None else pending.apply_to(user)

    def pending(self, resource: Resource) -> Pending | None:
        """Return the unfinished step that is recorded on the user's resource, or None if there is none."""
        return parse_pending(self._read("pending", resource))

    def receipt(self, name: str, resource: Resource, key: str, version: int) -> StoredReceipt | None:
        """Return the receipt of the call with this idempotency key that ``resource`` stores, or None.

        ``name`` is the field with the receipts: ``receipts`` for a user, ``company_receipts`` for a group.
        ``version`` is the current version of the resource, which is used if the receipt has no version.
        """
        if not key:
            return None
        id_ = str(resource.get("id", "")) if name == "receipts" else ""
        if self.has(name):
            for receipt in self.path_of(name).elements(resource):
                if receipt.get("value") == key:
                    said = str(receipt.get("version", ""))
                    then = int(said) if said.isascii() and said.isdigit() else version
                    return StoredReceipt(id_, then, str(receipt.get("ledger", "")))
        ledger, colon, creation = str(resource.get("externalId", "")).partition(":")
        if name == "receipts" and colon and creation == key:
            return StoredReceipt(id_, version, ledger)
        return None

    # --- writing: each method returns a copy of the resource and preserves its other attributes ---

    def with_user(self, resource: Resource, before: User | None, user: User) -> Resource:
        """Return the resource with the changes from ``before`` (None for a new user) to ``user``."""
        written = deepcopy(resource)
        if before is None or before.email != user.email:
            written["userName"] = user.email
            self._write("work_email", written, user.email)
        for name in ("first_name", "last_name", "phone"):
            if before is None or getattr(before, name) != getattr(user, name):
                self._write(name, written, getattr(user, name))
        if self._text("billed", resource) != user.billed:
            self._write("billed", written, user.billed)
        if before is None or before.type is not user.type:
            self._write_type(written, user.type)
        if before is None or before.apps != user.apps:
            self._write_grants(written, user.apps)
        if before is None or before.production is not user.production:
            self._write("production", written, str(user.production))
        if before is None or before.status is not user.status:
            written["active"] = user.status is Status.ACTIVE
            self._write("status", written, str(user.status))
        return written

    def with_company(self, resource: Resource, company: Company) -> Resource:
        """Return the resource with the name, number, SIREN and billing of ``company``."""
        written = deepcopy(resource)
        written["displayName"] = company.name
        if self.number(resource) != company.number:
            self._write("number", written, company.number)
        self._write("siren", written, company.siren)
        self._write("billing_mode", written, str(company.billing.mode) if company.billing else None)
        self._write("offer", written, company.billing.offer if company.billing else None)
        return written

    def with_pending(self, resource: Resource, pending: Pending | None) -> Resource:
        """Return the user's resource with ``pending`` recorded as its unfinished step. If ``pending`` is
        None, return the resource without an unfinished step.
        """
        written = deepcopy(resource)
        self._write("pending", written, pending.to_json() if pending else None)
        return written

    def with_receipt(
        self, name: str, resource: Resource, key: str, ledger: str, version: Callable[[Resource], int]
    ) -> Resource:
        """Return the resource with the receipt of the call ``key`` for ``ledger`` added to the field
        ``name``. At most ``RECEIPTS - 1`` earlier receipts are kept. ``version`` computes the version of the
        written resource. The resource is returned unchanged if ``key`` is "" or the server cannot store
        receipts.
        """
        if not key or not self.has(name):
            return resource
        written = deepcopy(resource)
        place = self.path_of(name)
        kept = [one for one in place.elements(resource) if one.get("value") != key][1 - RECEIPTS :]
        receipt = {"value": key, "ledger": ledger}
        place.write(written, [*kept, receipt])
        receipt["version"] = str(version(written))
        place.write(written, [*kept, receipt])
        return written

    def with_billing_ends(self, group: Resource, day: date | None) -> Resource:
        """Return the group with ``day`` as the last day of billing, or without a last day if it is None."""
        written = deepcopy(group)
        self._write("billing_ends", written, day.isoformat() if day else None)
        return written

    def content(self, resource: Resource) -> object:
        """Return the values from which a resource's version is computed: all except ``members``, ``pending``
        and ``billing_ends``. Of each receipt, only the idempotency key is used.
        """
        held = attributes(resource)
        held.pop("members", None)
        for name in ("pending", "billing_ends"):
            if self.has(name):
                held.pop(self.path_of(name).attribute, None)
        for name in ("receipts", "company_receipts"):
            if self.has(name):
                place = self.path_of(name)
                held[place.attribute] = [one.get("value") for one in place.elements(resource)]
        # elements have no order (RFC 7643, section 2.4), and an empty attribute counts as absent
        return {
            name: sorted(map(canonical, what)) if isinstance(what, list) else what
            for name, what in held.items()
            if what not in (None, [], {})
        }

    # --- details ---

    def _overridden_path(self, name: str, override_: str, core: str) -> Path | None:
        if override_.strip() in ("", "none"):
            if name in NEEDED:
                raise PortalError(
                    f"portal: scim: {name} cannot be left out: without it there are no client accesses.",
                    "Name the attribute that holds it.",
                )
            return None
        try:
            place = path(override_)
        except InvalidPath:
            raise PortalError(
                f"portal: scim: {name}: {override_} is no attribute path.",
                'Write it like phoneNumbers[type eq "work"].value or urn:…:User:costCenter.',
            ) from None
        if not place.urn and place.name in _TAKEN[core]:
            raise PortalError(
                f"portal: scim: {name}: {place} holds something else.",
                "Name an attribute that nothing else stands in.",
            )
        is_undescribed = self._schemas.is_undescribed(place.urn or core)
        if not is_undescribed and not self._is_writable(place, core):
            raise PortalError(
                f"portal: scim: {name}: this server has no attribute {place} that can be written.",
                "Its schemas are at /Schemas; for what it does not hold, write none.",
            )
        # an override in an unpublished schema is trusted; if its value is not stored, the write reports that
        _require_shape(name, place, None if is_undescribed else self._definition(place, core))
        return place

    def _definition(self, place: Path, core: str) -> Definition:
        if not place.urn and place.name == "externalId":
            return Definition(False, True, frozenset())
        return self._schemas.definition(place.urn or core, place.name)

    def _is_writable(self, place: Path, core: str) -> bool:
        if place.urn and not self._schemas.has(place.urn):
            return False
        definition = self._definition(place, core)
        return definition.writable and {place.part, place.by} - {""} <= definition.parts

    def _read(self, name: str, resource: Resource) -> Any:
        return self._paths[name].read(resource) if self.has(name) else None

    def _text(self, name: str, resource: Resource) -> str:
        held = self._read(name, resource)
        return held if isinstance(held, str) else ""

    def _write(self, name: str, resource: Resource, wanted: str | None) -> None:
        if self.has(name):
            self.path_of(name).write(resource, wanted)

    def _type(self, resource: Resource) -> UserType:
        place = self.path_of("type")
        held: Sequence[Any] = [one.get("value") for one in place.elements(resource) if _is_role(one)]
        if not held:
            held = [place.read(resource)]
        return UserType.ADMINISTRATOR if UserType.ADMINISTRATOR in held else UserType.STANDARD

    def _write_type(self, resource: Resource, type_: UserType) -> None:
        place = self.path_of("type")
        core = f"{CORE}User"
        if place.by or place.part or not self._definition(place, core).many:
            place.write(resource, str(type_))
            return
        others = [one for one in place.all_elements(resource) if not _is_role(one)]
        place.write(resource, [*others, {"value": str(type_)}])

    def _status(self, resource: Resource) -> Status:
        """Return a user's status. An inactive user is closed, unless the stored status is *to validate*."""
        if resource.get("active", True) is True:
            return Status.ACTIVE
        waits = self._text("status", resource) == Status.TO_VALIDATE
        return Status.TO_VALIDATE if waits else Status.CLOSED

    def _grants(self, resource: Resource) -> Iterator[Grant]:
        if not self.has("apps"):
            return
        days = self._endings(resource)
        seen: dict[str, Grant] = {}
        for entry in self.path_of("apps").elements(resource):
            app, kind = str(entry.get("value", "")), str(entry.get("type") or "")
            if not self._is_grant(entry):
                continue
            if kind == _REQUESTED:
                seen.setdefault(app, Grant(app, AppState.REQUESTED))
            elif kind == _ENDING and app in days:
                seen[app] = Grant(app, AppState.ENDING, days[app])
            else:
                seen[app] = Grant(app, AppState.ACTIVE)
        yield from seen.values()

    def _endings(self, resource: Resource) -> dict[str, date]:
        if not self.has("endings"):
            return {}
        found = {
            str(entry.get("value", "")): _day(str(entry.get("ends", "")))
            for entry in self.path_of("endings").elements(resource)
        }
        return {app: day for app, day in found.items() if day is not None}

    def _write_grants(self, resource: Resource, grants: frozenset[Grant]) -> None:
        if not self.has("apps"):
            return
        place = self.path_of("apps")
        others = [entry for entry in place.all_elements(resource) if not self._is_grant(entry)]
        before = {entry["value"]: entry for entry in place.elements(resource) if self._is_grant(entry)}
        ours: list[Resource] = []
        for grant in sorted(grants, key=lambda grant: grant.app):
            # other sub-attributes of the entitlement are preserved
            kept = {name: held for name, held in before.get(grant.app, {}).items() if name != "type"}
            kind = {} if grant.state is AppState.ACTIVE else {"type": str(grant.state)}
            ours.append({**kept, "value": grant.app, **kind})
        place.write(resource, [*others, *ours])
        if self.has("endings"):
            days = [
                {"value": grant.app, "ends": grant.ends.isoformat()}
                for grant in sorted(grants, key=lambda grant: grant.app)
                if grant.ends is not None
            ]
            self.path_of("endings").write(resource, days)

    def _is_grant(self, entry: Any) -> bool:
        """Return True if ``entry`` names a catalogue application and has type "", "requested" or "ending"."""
        if not isinstance(entry, dict):
            return False
        app, kind = entry.get("value"), entry.get("type") or ""
        return isinstance(app, str) and app in self._apps and kind in ("", _REQUESTED, _ENDING)


def _require_shape(name: str, place: Path, definition: Definition | None) -> None:
    listed = name in ("apps", "endings", "receipts", "company_receipts")
    several = definition is None or (definition.many and "value" in definition.parts)
    if listed and (not several or place.part or place.by):
        raise PortalError(
            f"portal: scim: {name}: {place} is no attribute with several values.",
            "Name one like entitlements, or write none.",
        )


def _is_role(element: Any) -> bool:
    return isinstance(element, dict) and element.get("value") in tuple(UserType) and not element.get("type")


def _phone(text: str) -> str | None:
    """Convert a phone number with separators or in RFC 3966 form to E.164 (A16); keep any other text."""
    bare = re.sub(r"[\s().-]", "", re.sub(r"(?i)^tel:", "", text))
    return bare if re.fullmatch(r"\+[0-9]+", bare) else text or None


def _day(text: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(text)
    return None
