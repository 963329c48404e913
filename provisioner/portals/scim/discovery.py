"""What a SCIM server says of itself: what it can, where its users and groups are, and its schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.portals.scim.names import Names
from provisioner.portals.scim.path import CORE, Resource
from provisioner.portals.scim.schema import COMPANY, USER, schema_resource


@dataclass(frozen=True, slots=True)
class Definition:
    """What a schema says of one attribute."""

    many: bool
    writable: bool
    parts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a server's users and groups."""

    told: Mapping[str, Mapping[str, Definition]]
    """As it describes them, by their URNs and the names of their attributes."""
    extensions: frozenset[str] | None = None
    """Those that its resource types have; None where it does not say."""
    names: Names = field(default_factory=Names)

    def has(self, urn: str) -> bool:
        """Whether users or groups have this extension: one that it describes, where it does not say."""
        return urn in (self.told if self.extensions is None else self.extensions)

    def silent(self, urn: str) -> bool:
        """Whether nothing can be looked up of this schema, though users or groups may have it."""
        if not self.told:
            return True
        return urn not in self.told and (urn.startswith(CORE) or urn in (self.extensions or ()))

    def definition(self, urn: str, name: str) -> Definition:
        """What is said of an attribute; that it cannot be written, where nothing is."""
        return (self.told.get(urn) or _USUAL.get(urn, {})).get(name, _NOTHING)


@dataclass(frozen=True, slots=True)
class Features:
    """What the server can, as it says itself."""

    patch: bool
    etag: bool
    filter: bool
    users: str
    """The endpoint of users, below the address."""
    groups: str
    schemas: Schemas


def discover(
    config: Mapping[str, Any], kinds: Sequence[Resource], schemas: Sequence[Resource], names: Names
) -> Features:
    """What its ServiceProviderConfig, its ResourceTypes and its Schemas say; each may say nothing.

    How they spell their attributes, ``names`` learns.
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
    """Some servers write truth as a word."""
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


_NOTHING = Definition(False, False, frozenset())
_SEVERAL = Definition(True, True, frozenset({"value", "type", "display", "primary"}))
_USUAL: Mapping[str, Mapping[str, Definition]] = {
    f"{CORE}User": {
        "name": Definition(False, True, frozenset({"givenName", "familyName"})),
        "userType": Definition(False, True, frozenset()),
        **dict.fromkeys(("emails", "phoneNumbers", "roles", "entitlements"), _SEVERAL),
    },
    **{urn: dict(_definitions(schema_resource(urn)["attributes"], Names())) for urn in (USER, COMPANY)},
}
"""What RFC 7643 gives every server, and what ours say: where one has no /Schemas."""
