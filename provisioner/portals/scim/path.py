"""Attribute paths of SCIM resources (RFC 7644, section 3.10), for example:

``userName`` · ``name.givenName`` · ``phoneNumbers[type eq "work"].value`` · ``urn:…:User:billedCompany``
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Resource = dict[str, Any]
"""A SCIM resource, as decoded from JSON."""

CORE = "urn:ietf:params:scim:schemas:core:2.0:"
USER = "urn:provisioner:schemas:portal:1.0:User"
COMPANY = "urn:provisioner:schemas:portal:1.0:Company"

_PATH = re.compile(
    r"(?:(?P<urn>(?i:urn):[^\[\]\"\s]+):)?(?P<name>[A-Za-z$][\w$-]*)"
    r"(?:\[(?P<by>[A-Za-z][\w-]*) eq \"(?P<word>[^\"\\]*)\"\])?"
    r"(?:\.(?P<part>[A-Za-z$][\w$-]*))?"
)


class InvalidPath(ValueError):
    """The error for a text that is not an attribute path in one of the supported forms."""


@dataclass(frozen=True, slots=True)
class Path:
    """The path of an attribute in a resource. ``urn`` is the extension of the attribute, or "" for none.

    If ``by`` is set, the attribute is multi-valued, and the path selects the element whose sub-attribute
    ``by`` equals ``word``. ``part`` is the sub-attribute that contains the value, or "" for none.
    """

    urn: str
    name: str
    by: str = ""
    word: str = ""
    part: str = ""

    def __str__(self) -> str:
        chosen = f'[{self.by} eq "{self.word}"]' if self.by else ""
        return f"{self.attribute}{chosen}{'.' + self.part if self.part else ''}"

    @property
    def attribute(self) -> str:
        """The path of the whole attribute, without filter and sub-attribute."""
        return f"{self.urn}:{self.name}" if self.urn else self.name

    def read(self, resource: Resource) -> Any:
        """Return the value at this path in the resource; None if there is no value."""
        held = self._home(resource).get(self.name)
        if self.by:
            held = next((one for one in _elements(held) if self._chooses(one)), None)
        if self.part:
            return held.get(self.part) if isinstance(held, dict) else None
        return held

    def write(self, resource: Resource, wanted: Any) -> None:
        """Set the value to ``wanted``; None removes the value or, if ``by`` is set, the selected element."""
        if self.urn and self.urn not in resource:
            if wanted is None:
                return
            resource[self.urn] = {}
            if self.urn not in (schemas := resource.setdefault("schemas", [])):
                schemas.append(self.urn)
        home = self._home(resource)
        if self.by:
            elements = self.all_elements(resource)
            chosen = next((one for one in _elements(elements) if self._chooses(one)), None)
            if wanted is None:
                elements = [one for one in elements if one is not chosen]
            elif chosen is None:
                elements.append({self.by: self.word, self.part or "value": wanted})
            else:
                chosen[self.part or "value"] = wanted
            _keep(home, self.name, elements)
        elif self.part:
            held = home.get(self.name)
            parts = dict(held) if isinstance(held, dict) else {}
            _keep(parts, self.part, wanted)
            _keep(home, self.name, parts)
        else:
            _keep(home, self.name, wanted)

    def elements(self, resource: Resource) -> list[Resource]:
        """Return those elements of the multi-valued attribute at this path that are JSON objects."""
        return _elements(self._home(resource).get(self.name))

    def all_elements(self, resource: Resource) -> list[Any]:
        """Return all elements of the multi-valued attribute. Some servers have strings instead of objects."""
        held = self._home(resource).get(self.name)
        return list(held) if isinstance(held, list) else []

    def _home(self, resource: Resource) -> Resource:
        home = resource.get(self.urn) if self.urn else resource
        return home if isinstance(home, dict) else {}

    def _chooses(self, element: Resource) -> bool:
        return str(element.get(self.by, "")).casefold() == self.word.casefold()


def path(text: str) -> Path:
    """Parse an attribute path. Raises :class:`InvalidPath`."""
    found = _PATH.fullmatch(text.strip())
    if found is None:
        raise InvalidPath(text)
    urn, name, by, word, part = (found[group] or "" for group in ("urn", "name", "by", "word", "part"))
    # the URN of the core schema is optional in a path
    return Path("" if urn.lower().startswith(CORE.lower()) else urn, name, by, word, part)


def attributes(resource: Resource) -> dict[str, Any]:
    """Return a resource's values by attribute path, without ``schemas`` and the values set by the server."""
    found: dict[str, Any] = {}
    for name, held in resource.items():
        if name.lower().startswith("urn:") and isinstance(held, dict):
            found |= {f"{name}:{part}": inner for part, inner in held.items()}
        elif name not in ("schemas", "id", "meta", "groups"):
            found[name] = held
    return found


def _elements(held: Any) -> list[Resource]:
    return [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []


def _keep(home: Resource, name: str, wanted: Any) -> None:
    if wanted is None or wanted == [] or wanted == {}:
        home.pop(name, None)
    else:
        home[name] = wanted
