"""How a SCIM server describes itself: features, endpoints and schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.portals.scim.names import Names
from provisioner.portals.scim.path import CORE, Resource
from provisioner.portals.scim.schema import COMPANY, USER, schema_resource


@dataclass(frozen=True, slots=True)
class Definition:
    """One attribute of a schema."""

    many: bool
    writable: bool
    parts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a server's users and groups."""

    described: Mapping[str, Mapping[str, Definition]]
    """Its own descriptions, by URN and attribute name."""
    extensions: frozenset[str] | None = None
    """The extensions of its resource types; None if it has no list of them."""
    names: Names = field(default_factory=Names)

    def has(self, urn: str) -> bool:
        """True if users or groups have this extension, or if it is described and there is no list."""
        return urn in (self.described if self.extensions is None else self.extensions)

    def is_undescribed(self, urn: str) -> bool:
        """True if users or groups may have this schema and it is not described."""
        if not self.described:
            return True
        return urn not in self.described and (urn.startswith(CORE) or urn in (self.extensions or ()))

    def definition(self, urn: str, name: str) -> Definition:
        """The definition of an attribute; without one it counts as read-only."""
        return (self.described.get(urn) or _DEFAULTS.get(urn, {})).get(name, _UNKNOWN)


@dataclass(frozen=True, slots=True)
class Features:
    """The features that the server announces."""

    patch: bool
    etag: bool
    filter: bool
    users: str
    """The endpoint of users, relative to the address."""
    groups: str
    schemas: Schemas


def discover(
    config: Mapping[str, Any], kinds: Sequence[Resource], schemas: Sequence[Resource], names: Names
) -> Features:
    """The features in ServiceProviderConfig, ResourceTypes and Schemas; each of them may be empty.

    ``names`` learns the spelling of their attributes.
    """
    endpoints = {"User": "/Users", "Group": "/Groups"}
    extensions: set[str] = set()
    for kind in kinds:
        schema, endpoint = names[str(kind.get("schema"))], str(kind.get("endpoint", ""))
        what = schema.removeprefix(CORE)
        if what not in endpoints:
            continue
        endpoints[what] = endpoint or endpoints[what]
        extensions |= {
            str(one.get("schema")) for one in kind.get("schemaExtensions") or () if isinstance(one, dict)
        }
    names.learn(sorted(extensions))
    described = {}
    for resource in schemas:
        urn = str(resource.get("id"))
        names.learn((urn,))
        described[names[urn]] = dict(_definitions(resource.get("attributes"), names))
    return Features(
        patch=_supported(config, "patch"),
        etag=_supported(config, "etag"),
        filter=_supported(config, "filter"),
        users=f"/{endpoints['User'].strip('/')}",
        groups=f"/{endpoints['Group'].strip('/')}",
        schemas=Schemas(described, frozenset(names[urn] for urn in extensions) if kinds else None, names),
    )


def is_true(said: object) -> bool:
    """True for true, "true", "True" and 1: some servers write booleans as strings."""
    return str(said).lower() in ("true", "1")


def _supported(config: Mapping[str, Any], feature: str) -> bool:
    said = config.get(feature)
    return isinstance(said, dict) and is_true(said.get("supported"))


def _definitions(held: Any, names: Names) -> Iterable[tuple[str, Definition]]:
    for one in _resources(held):
        name, parts = str(one.get("name", "")), _resources(one.get("subAttributes"))
        named = [name, *(str(part.get("name")) for part in parts)]
        names.learn(named)
        name, *spelled = (names[one] for one in named)
        writable = one.get("mutability", "readWrite") != "readOnly"
        yield name, Definition(one.get("multiValued") is True, writable, frozenset(spelled))


def _resources(held: Any) -> list[Resource]:
    return [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []


_UNKNOWN = Definition(False, False, frozenset())
_MULTI_VALUED = Definition(True, True, frozenset({"value", "type", "display", "primary"}))
_DEFAULTS: Mapping[str, Mapping[str, Definition]] = {
    f"{CORE}User": {
        "name": Definition(False, True, frozenset({"givenName", "familyName"})),
        "userType": Definition(False, True, frozenset()),
        **dict.fromkeys(("emails", "phoneNumbers", "roles", "entitlements"), _MULTI_VALUED),
    },
    **{urn: dict(_definitions(schema_resource(urn)["attributes"], Names())) for urn in (USER, COMPANY)},
}
"""The attributes of RFC 7643 and of the two extensions, for servers without /Schemas."""
