"""A small SCIM server in the test process. Its deviations from the usual behaviour occur in real servers.

Each argument of ``manners`` is one deviation. scim2-server has the usual behaviour.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from http_support import Asked, http_server, reply
from scim_support import published_schemas, resource_types

Resource = dict[str, Any]
Shown = Callable[[str, Resource, bool], Resource]
CORE = "urn:ietf:params:scim:schemas:core:2.0:"


def as_it_is(kind: str, one: Resource, listed: bool) -> Resource:
    """Return the resource unchanged."""
    return one


@dataclass
class Manners:
    """A SCIM server. The attribute ``held`` has its resources by kind and id."""

    patch: bool = True
    speaks: bool = True
    """True if the server has the endpoints ResourceTypes and Schemas."""
    says: Resource = field(default_factory=dict)
    """The attributes of ServiceProviderConfig that differ from the default."""
    filters: str = ""
    """The treatment of filters on complex attributes: ``refused``, ``ignored``, or ``empty`` (no result)."""
    version: str = '"{}"'
    """The format of ``meta.version``, in which ``{}`` is the version; empty if there is no version."""
    header: str = '"{}"'
    """The format of the ETag header, in which ``{}`` is the version; empty if there is no header."""
    matches: Callable[[str, str], bool] = str.__eq__
    """The function that compares an If-Match header with the current ETag."""
    shown: Shown = as_it_is
    """The function that returns a resource as the server shows it.

    Its arguments are the kind, the resource, and whether the resource is part of a list.
    """
    kept: Callable[[Resource], None] = lambda one: None
    """The function that changes a written resource before it is stored."""
    page: int = 1_000
    lying: bool = False
    """True if ``totalResults`` is the number of resources on the page instead of the total."""
    refuses: Callable[[Asked], int] = lambda asked: 0
    """The function that returns the status code of a refusal, or 0 to accept the request."""
    after: Callable[[Asked], None] = lambda asked: None
    """The function that acts as another writer. It is called after each request."""
    url: str = ""
    held: dict[str, dict[str, Resource]] = field(default_factory=lambda: {"Users": {}, "Groups": {}})
    versions: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)

    def write(self, kind: str, one: Resource) -> Resource:
        """Store a resource and give it a new version if it has changed; returns the stored resource."""
        self.kept(one)
        id_ = one.setdefault("id", f"id{next(self._count)}")
        one.setdefault("meta", {"created": f"2026-01-01T00:00:{len(self.versions):09}Z"})
        if self.held[kind].get(id_) != one:
            self.versions[id_] = next(self._count)
        self.held[kind][id_] = _assigned(one)
        return self.held[kind][id_]

    def find(self, kind: str, name: str) -> Resource:
        """Return a copy of the user or group whose name contains ``name``."""
        (found,) = [
            one
            for one in self.held[kind].values()
            if name in str(one.get("userName", one.get("displayName")))
        ]
        return deepcopy(found)

    def __call__(self, asked: Asked) -> bytes:
        self.asked.append(asked)
        refused = self.refuses(asked)
        answer = _no(refused, "Not for you") if refused else self._answer(asked)
        self.after(asked)
        return answer

    def _answer(self, asked: Asked) -> bytes:
        where = urlsplit(asked.path)
        kind, *id_ = map(unquote, where.path.removeprefix("/v2/").split("/"))
        if kind not in self.held:
            return self._self(kind)
        if not id_ and asked.method == "POST":
            return self._created(kind, asked.json)
        if not id_:
            return self._listed(kind, {name: words[0] for name, words in parse_qs(where.query).items()})
        one = self.held[kind].get(id_[0])
        if one is None:
            return _no(404, "No such thing")
        if asked.method == "GET":
            return self._returned(kind, one)
        matching = asked.headers.get("if-match")
        if matching is not None and not self.matches(matching, self._tag(self.header, one)):
            return _no(412, "It has changed")
        if asked.method == "DELETE":
            del self.held[kind][id_[0]]
            return reply(204)
        new = {
            **asked.json,
            "id": one["id"],
            "meta": one["meta"],
        }
        if asked.method == "PUT" and f"{CORE}{kind[:-1]}" not in (new.get("schemas") or ()):
            return _no(400, "schemas is required")
        if asked.method == "PATCH":
            if not self.patch:
                return _no(501, "No PATCH")
            new = deepcopy(one)
            for operation in asked.json["Operations"]:
                _patch(new, operation)
        return self._returned(kind, self.write(kind, new))

    def _self(self, kind: str) -> bytes:
        can = {
            "patch": self.patch,
            "etag": bool(self.header or self.version),
            "filter": self.filters != "none",
        }
        said: Any = {**{name: {"supported": supported} for name, supported in can.items()}, **self.says}
        if kind == "ResourceTypes":
            said = {"Resources": resource_types()}
        elif kind == "Schemas":
            said = {"Resources": published_schemas()}
        return self._ok(said) if self.speaks or kind == "ServiceProviderConfig" else _no(404, "No such thing")

    def _created(self, kind: str, one: Resource) -> bytes:
        names = [other.get("userName") for other in self.held[kind].values()]
        if kind == "Users" and one["userName"] in names:
            return _no(409, "Taken")
        return self._returned(kind, self.write(kind, one), 201)

    def _listed(self, kind: str, words: dict[str, str]) -> bytes:
        found = list(self.held[kind].values())
        if (asked := words.get("filter")) is not None:
            simple = re.match(r"(userName|displayName|externalId) eq", asked)
            if self.filters == "refused" and not simple:
                return _no(400, "No such filter")
            if self.filters == "empty" and not simple:
                found = []
            elif self.filters != "ignored" or simple:
                found = [one for one in found if _fits(one, asked)]
        start = int(words["startIndex"]) - 1
        page = found[start : start + min(int(words["count"]), self.page)]
        hidden = words.get("excludedAttributes", "").split(",")
        shown = [self._shown(kind, one, listed=True) for one in page]
        shown = [{name: what for name, what in one.items() if name not in hidden} for one in shown]
        return self._ok({"totalResults": len(page if self.lying else found), "Resources": shown})

    def _returned(self, kind: str, one: Resource, status: int = 200) -> bytes:
        header = f"ETag: {self._tag(self.header, one)}\r\n" if self.header else ""
        return self._ok(self._shown(kind, one, listed=False), status, header)

    def _shown(self, kind: str, one: Resource, *, listed: bool) -> Resource:
        one = deepcopy(one)
        if self.version:
            one["meta"]["version"] = self._tag(self.version, one)
        return self.shown(kind, one, listed)

    def _ok(self, said: object, status: int = 200, headers: str = "") -> bytes:
        return reply(status, said, headers, kind="application/scim+json")

    def _tag(self, form: str, one: Resource) -> str:
        return form.format(self.versions[one["id"]])


def _no(status: int, why: str) -> bytes:
    return reply(status, {"detail": why}, kind="application/scim+json")


def _fits(one: Resource, asked: str) -> bool:
    """True if the resource matches the filter ``asked``. Supports only the filters that the driver sends."""
    if bracketed := re.fullmatch(r'(\w+)\[(\w+) eq "(\w+)" and (\w+) eq (".*")\]', asked):
        name, by, word, part, wanted = bracketed.groups()
        chosen = [held for held in one.get(name, ()) if held.get(by) == word]
        return json.loads(wanted) in [held.get(part) for held in chosen]
    name, _, wanted = asked.partition(" eq ")
    urn, _, part = name.rpartition(":")
    if name == "members.value":
        return json.loads(wanted) in [member["value"] for member in one.get("members", ())]
    return bool((one.get(urn, {}) if urn else one).get(part) == json.loads(wanted))


def _patch(one: Resource, operation: Resource) -> None:
    """Apply one PATCH operation. Supports only the operations that the driver sends."""
    path, what = operation["path"], operation.get("value")
    if leaves := re.fullmatch(r'members\[value eq "(.*)"\]', path):
        one["members"] = [member for member in one.get("members", ()) if member["value"] != leaves[1]]
        return
    urn, _, name = path.rpartition(":")
    home = one.setdefault(urn, {}) if urn else one
    if operation["op"] == "remove":
        home.pop(name, None)
    elif operation["op"] == "add" and path == "members":
        home[name] = [
            *home.get(name, ()),
            *(member for member in what or () if member not in home.get(name, ())),
        ]
    else:
        home[name] = what


def _assigned(one: Resource) -> Resource:
    """Return the resource without nulls and empty lists (RFC 7643, section 2.5)."""
    whole = {name: _assigned(what) if isinstance(what, dict) else what for name, what in one.items()}
    return {name: what for name, what in whole.items() if what not in (None, [])}


@contextmanager
def manners(**words: Any) -> Iterator[Manners]:
    """Run a server with these values of the attributes of :class:`Manners` for this block."""
    server = Manners(**words)
    with http_server(server) as wire:
        server.url = f"{wire.url}/v2"
        yield server
