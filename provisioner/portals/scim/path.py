"""Attribute paths of SCIM resources (RFC 7644, section 3.10): where in a resource a thing is held.

``userName`` · ``name.givenName`` · ``phoneNumbers[type eq "work"].value`` · ``urn:…:User:billedCompany``
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Resource = dict[str, Any]
"""A SCIM resource, as its JSON reads."""

CORE = "urn:ietf:params:scim:schemas:core:2.0:"

_PATH = re.compile(
    r"(?:(?P<urn>(?i:urn):[^\[\]\"\s]+):)?(?P<name>[A-Za-z$][\w$-]*)"
    r"(?:\[(?P<by>[A-Za-z][\w-]*) eq \"(?P<word>[^\"\\]*)\"\])?"
    r"(?:\.(?P<part>[A-Za-z$][\w$-]*))?"
)


class NoPath(ValueError):
    """A text that is no attribute path of the kinds above."""


@dataclass(frozen=True, slots=True)
class Path:
    """One attribute, of the resource itself or of its extension ``urn``.

    ``by`` and ``word`` choose one element of several, ``part`` is a sub-attribute.
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
        """The whole attribute that this is in."""
        return f"{self.urn}:{self.name}" if self.urn else self.name

    def read(self, resource: Resource) -> Any:
        """What the resource holds there; None for nothing."""
        held = self._home(resource).get(self.name)
        if self.by:
            held = next((one for one in _elements(held) if self._chooses(one)), None)
        if self.part:
            return held.get(self.part) if isinstance(held, dict) else None
        return held

    def write(self, resource: Resource, wanted: Any) -> None:
        """Have the resource hold this there, or nothing (None); its other elements and parts stay."""
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
        """What an attribute with several elements holds, each with its parts."""
        return _elements(self._home(resource).get(self.name))

    def all_elements(self, resource: Resource) -> list[Any]:
        """Those too that have no parts, as some servers keep plain texts."""
        held = self._home(resource).get(self.name)
        return list(held) if isinstance(held, list) else []

    def _home(self, resource: Resource) -> Resource:
        home = resource.get(self.urn) if self.urn else resource
        return home if isinstance(home, dict) else {}

    def _chooses(self, element: Resource) -> bool:
        return str(element.get(self.by, "")).casefold() == self.word.casefold()


def path(text: str) -> Path:
    """The path that a text writes down. Raises :class:`NoPath`."""
    found = _PATH.fullmatch(text.strip())
    if found is None:
        raise NoPath(text)
    urn, name, by, word, part = (found[group] or "" for group in ("urn", "name", "by", "word", "part"))
    # what is said of the resource's own schema may say so
    return Path("" if urn.lower().startswith(CORE.lower()) else urn, name, by, word, part)


def attributes(resource: Resource) -> dict[str, Any]:
    """Every attribute of a resource by its path; those that the server alone writes are left out."""
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
    """Empty is the same as absent (RFC 7643, section 2.5)."""
    if wanted is None or wanted == [] or wanted == {}:
        home.pop(name, None)
    else:
        home[name] = wanted
