"""One spelling of each name that a SCIM server says: they are case-insensitive (RFC 7643, section 2.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from provisioner.portals.scim.path import CORE, Path
from provisioner.portals.scim.schema import COMPANY, TABLE, USER, Attribute

_CORE = (
    "schemas id externalId meta created version members value type display primary $ref "
    "userName name givenName familyName displayName emails phoneNumbers roles entitlements "
    "userType active groups "
    "Resources totalResults detail patch etag filter supported "
    "schema endpoint schemaExtensions attributes subAttributes multiValued mutability"
)
"""The names of the RFCs that are written down in this program."""


def _names(attributes: Iterable[Attribute]) -> Iterator[str]:
    for attribute in attributes:
        yield attribute.name
        yield from _names(attribute.parts)


class Names(dict[str, str]):
    """How each name is spelled here, by how anybody spells it."""

    def __init__(self) -> None:
        self._spelled: dict[str, str] = {}
        self.learn(_CORE.split())
        self.learn((USER, COMPANY, f"{CORE}User", f"{CORE}Group"))
        for _, _, attributes in TABLE.values():
            self.learn(_names(attributes))

    def __missing__(self, name: str) -> str:
        self[name] = spelled = self._spelled.get(name.lower(), name)
        return spelled

    def learn(self, names: Iterable[str]) -> None:
        """Spell these so from now on; those that are known stay as they are."""
        for name in names:
            self._spelled.setdefault(name.lower(), name)
        self.clear()

    def path(self, place: Path) -> Path:
        """A path in the one spelling of its names."""
        return replace(
            place, urn=self[place.urn], name=self[place.name], by=self[place.by], part=self[place.part]
        )

    def arrived(self, found: Any) -> Any:
        """What a server said, in the one spelling, and without nulls: those are like absent (section 2.5)."""
        kind = type(found)
        if kind is dict:
            return {
                self[name]: held if type(held) is str else self.arrived(held)
                for name, held in found.items()
                if held is not None
            }
        if kind is list:
            return [self.arrived(one) for one in found if one is not None]
        return found
