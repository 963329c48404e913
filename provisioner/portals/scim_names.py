"""One spelling of each name that a SCIM server says: they are case-insensitive (RFC 7643, section 2.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from provisioner.portals.scim_paths import CORE, Path
from provisioner.portals.scim_schema import COMPANY, TABLE, USER, Attribute

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


class Names:
    """How each name is spelled here, whoever spells it otherwise."""

    def __init__(self) -> None:
        self._spelled: dict[str, str] = {}
        self.learn(_CORE.split())
        self.learn((USER, COMPANY, f"{CORE}User", f"{CORE}Group"))
        for _, _, attributes in TABLE.values():
            self.learn(_names(attributes))

    def learn(self, names: Iterable[str]) -> None:
        """Spell these so from now on; those that are known stay as they are."""
        for name in names:
            self._spelled.setdefault(name.lower(), name)

    def spelled(self, name: str) -> str:
        """Its one spelling; its own where nobody has said another one."""
        return self._spelled.get(name.lower(), name)

    def path(self, place: Path) -> Path:
        """A path in the one spelling of its names."""
        urn, name, by, part = map(self.spelled, (place.urn, place.name, place.by, place.part))
        return replace(place, urn=urn, name=name, by=by, part=part)

    def arrived(self, found: Any) -> Any:
        """What a server said, in the one spelling, and without nulls: those are like absent (section 2.5)."""
        if isinstance(found, dict):
            spelled = self._spelled
            return {
                spelled.get(name.lower(), name): self.arrived(held)
                for name, held in found.items()
                if held is not None
            }
        if isinstance(found, list):
            return [self.arrived(one) for one in found if one is not None]
        return found
