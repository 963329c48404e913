"""The discovery of the features, endpoints and schemas that a SCIM server announces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.portals.scim.path import COMPANY, CORE, USER, Resource


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of an attribute. ``many`` is True if the attribute is multi-valued. ``writable`` is True
    if a client can write the attribute. ``parts`` are the names of the sub-attributes.
    """

    many: bool
    writable: bool
    parts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a server's users and groups."""

    described: Mapping[str, Mapping[str, Definition]]
    """The attribute definitions that the server publishes, by schema URN and attribute name."""
    extensions: frozenset[str] | None = None
    """The URNs of the schema extensions that the resource types declare; None if the server does not publish
    its resource types."""

    def has(self, urn: str) -> bool:
        """Return True if users or groups can have the extension ``urn``. If the server does not publish its
        resource types, they can have each schema that the server publishes.
        """
        return urn in (self.described if self.extensions is None else self.extensions)

    def is_undescribed(self, urn: str) -> bool:
        """Return True if users or groups can have the schema ``urn``, but the server does not publish it.
        Also return True if the server publishes no schema at all.
        """
        if not self.described:
            return True
        return urn not in self.described and (urn.startswith(CORE) or urn in (self.extensions or ()))

    def definition(self, urn: str, name: str) -> Definition:
        """Return the definition of the attribute ``name`` in the schema ``urn``. If the server does not
        publish the schema, use ``_DEFAULTS``. An unknown attribute counts as read-only.
        """
        return (self.described.get(urn) or _DEFAULTS.get(urn, {})).get(name, _UNKNOWN)


@dataclass(frozen=True, slots=True)
class Features:
    """The features, endpoints and schemas that the server announces."""

    patch: bool
    etag: bool
    filter: bool
    users: str
    """The path of the users endpoint, relative to the server's address."""
    groups: str
    schemas: Schemas


def discover(config: Mapping[str, Any], kinds: Sequence[Resource], schemas: Sequence[Resource]) -> Features:
    """Return the features that a server announces in its ServiceProviderConfig, ResourceTypes and Schemas.

    ``config``, ``kinds`` and ``schemas`` are these three documents. If the server does not publish one of
    them, the parameter is empty.
    """
    endpoints = {f"{CORE}User": "/Users", f"{CORE}Group": "/Groups"}
    extensions: set[str] = set()
    for kind in kinds:
        schema = str(kind.get("schema"))
        if schema in endpoints:
            endpoints[schema] = f"/{str(kind.get('endpoint') or endpoints[schema]).strip('/')}"
            extensions.update(str(one.get("schema")) for one in _resources(kind.get("schemaExtensions")))
    described = {str(one.get("id")): definitions(one.get("attributes")) for one in schemas}
    return Features(
        patch=_supported(config, "patch"),
        etag=_supported(config, "etag"),
        filter=_supported(config, "filter"),
        users=endpoints[f"{CORE}User"],
        groups=endpoints[f"{CORE}Group"],
        schemas=Schemas(described, frozenset(extensions) if kinds else None),
    )


def _supported(config: Mapping[str, Any], feature: str) -> bool:
    said = config.get(feature)
    return isinstance(said, dict) and said.get("supported") is True


def definitions(held: Any) -> dict[str, Definition]:
    """Decode ``held``, the attributes of a Schema resource (RFC 7643, section 7), by attribute name."""
    return {
        str(one.get("name")): Definition(
            many=one.get("multiValued") is True,
            writable=one.get("mutability") != "readOnly",
            parts=frozenset(str(part.get("name")) for part in _resources(one.get("subAttributes"))),
        )
        for one in _resources(held)
    }


def _resources(held: Any) -> list[Resource]:
    return [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []


_UNKNOWN = Definition(False, False, frozenset())
_TEXT = Definition(False, True, frozenset())
_MULTI_VALUED = Definition(True, True, frozenset({"value", "type", "display", "primary"}))
_RECEIPTS = Definition(True, True, frozenset({"value", "ledger", "version"}))
_DEFAULTS: Mapping[str, Mapping[str, Definition]] = {
    f"{CORE}User": {
        "name": Definition(False, True, frozenset({"givenName", "familyName"})),
        **dict.fromkeys(("emails", "phoneNumbers", "roles", "entitlements"), _MULTI_VALUED),
    },
    USER: {
        **dict.fromkeys(("billedCompany", "status", "pending"), _TEXT),
        "applicationEndings": Definition(True, True, frozenset({"value", "ends"})),
        "receipts": _RECEIPTS,
    },
    COMPANY: {
        **dict.fromkeys(("number", "siren", "billingMode", "offer", "billingEnds"), _TEXT),
        "receipts": _RECEIPTS,
    },
}
"""The definitions to use if a server does not publish a schema of RFC 7643 or provisioner's extensions."""
