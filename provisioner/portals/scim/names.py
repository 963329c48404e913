"""One spelling for each attribute name: they are case-insensitive (RFC 7643, section 2.1)."""

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
"""The names from the RFCs that this program uses."""


def _names(attributes: Iterable[Attribute]) -> Iterator[str]:
    for attribute in attributes:
        yield attribute.name
        yield from _names(attribute.parts)


class Names(dict[str, str]):
    """The spelling used here, by any other spelling of a name."""

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
        """Use these spellings; names that are known keep theirs."""
        for name in names:
            self._spelled.setdefault(name.lower(), name)
        self.clear()

    def path(self, place: Path) -> Path:
        """The path with the spelling used here."""
        return replace(
            place, urn=self[place.urn], name=self[place.name], by=self[place.by], part=self[place.part]
        )

    def normalized(self, found: Any) -> Any:
        """JSON from a server in the spelling used here, without nulls, which mean absent (section 2.5)."""
        kind = type(found)
        if kind is dict:
            return {
                self[name]: held if type(held) is str else self.normalized(held)
                for name, held in found.items()
                if held is not None
            }
        if kind is list:
            return [self.normalized(one) for one in found if one is not None]
        return found
