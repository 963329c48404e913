"""A small SCIM 2.0 client (RFC 7644), which discovers the features of a server and sends single requests.

The client never repeats a write. If the response is lost, the driver reads whether the write took effect.
Bulk requests are not used, for three reasons. They are not transactions: a step could still stop halfway. The
loss of one response would lose the results of all writes. Each write needs a read immediately before it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Any
from urllib.parse import quote

from provisioner import limits
from provisioner.errors import PortalError
from provisioner.portals.http import HttpClient
from provisioner.portals.http_messages import HttpResponse, Request, invalid_response
from provisioner.portals.oauth import BearerToken
from provisioner.portals.scim.discovery import Features, discover
from provisioner.portals.scim.path import Path, Resource, attributes

PAGE = 50
"""The number of resources that the client requests per page. A server may return fewer."""

READINGS = 5
"""The maximum number of attempts at reading a list that changes while it is being read."""

MEDIA = "application/scim+json"
_MEMBERS = Path("", "members")
_PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
NOT_IMPLEMENTED = 501
_MOVED = 412
_ABSENT = (404, 405, NOT_IMPLEMENTED)


class ScimError(Exception):
    """The error for a request that the server rejects.

    ``moved`` is True if the resource has changed, or was deleted, since it was read. ``broken`` is True if
    the server failed (5xx except 501), in which case the request may have taken effect nevertheless.
    """

    def __init__(self, status: int, detail: str, *, moved: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.moved = moved
        self.broken = status >= 500 and status != NOT_IMPLEMENTED


class ScimClient:
    """A client of one SCIM server."""

    def __init__(self, web: HttpClient, token: str) -> None:
        self._http = web
        self._credential = BearerToken(token) if token else None
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        """The features of the server. They are requested only at the first access."""
        if self._features is None:
            config = self._read_description("/ServiceProviderConfig")
            kinds, schemas = self._read_list("/ResourceTypes"), self._read_list("/Schemas")
            self._features = discover(config, kinds, schemas)
        return self._features

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    # --- reading ---

    def listing(self, endpoint: str, without: str = "") -> list[Resource]:
        """Return all resources of ``endpoint``. ``without`` names an attribute to omit from them, or is "".
        If the list becomes shorter during the reading, read the list again. Raises :class:`PortalError` if
        this happens in each of :data:`READINGS` attempts.
        """
        asked = f"&excludedAttributes={without}" if without else ""
        for _ in range(READINGS):
            found = self._pages(endpoint, asked)
            if found is not None:
                return found
        raise PortalError(
            f"{self._http.server} gave another list of {endpoint} each time it was read.",
            "Somebody is writing there; try again once that is over.",
        )

    def search(self, endpoint: str, place: Path, wanted: str, without: str = "") -> list[Resource] | None:
        """Return the resources of ``endpoint`` whose attribute ``place`` equals ``wanted``. ``without`` names
        an attribute to omit from them, or is "". Return None if the server does not support such a filter,
        or if the list becomes shorter during the reading. The caller then searches its own cache.
        """
        if not self.features.filter:
            return None
        word = json.dumps(wanted, ensure_ascii=False)
        words = f"{place} eq {word}"
        if place.by:
            words = f'{place.attribute}[{place.by} eq "{place.word}" and {place.part} eq {word}]'
        asked = f"&excludedAttributes={without}" if without else ""
        return self._pages(endpoint, f"&filter={quote(words)}{asked}", refusable=True)

    def read(self, endpoint: str, id_: str) -> Resource | None:
        """Read the resource with this id from the server; return None if the server has no such resource."""
        reply = self._ask("GET", f"{endpoint}/{quote(id_, safe='')}", expected=(200, 404))
        return None if reply.status == 404 else self._resource(reply)

    # --- writing; each method raises ScimError, or NoResponse if there is no usable response ---

    def delete(self, endpoint: str, resource: Resource) -> None:
        """Delete a resource, which must be one that an unfinished step has created."""
        self._write("DELETE", f"{endpoint}/{quote(resource['id'], safe='')}", None, resource)

    def create(self, endpoint: str, resource: Resource) -> Resource:
        """Create a resource and return it in the form in which the server has stored it."""
        return self._resource(self._write("POST", endpoint, resource))

    def update(self, endpoint: str, before: Resource, wanted: Resource) -> Resource:
        """Change a resource from ``before`` to ``wanted``. Return the resource that the server then stores.

        ``before`` is the resource as it was read. If the server has versions (ETags) and the version of
        ``before`` is outdated, the write fails.
        """
        operations = changes(before, wanted)
        if not operations:
            return before
        where = f"{endpoint}/{quote(str(before['id']), safe='')}"
        if self.features.patch:
            reply = self._write("PATCH", where, {"schemas": [_PATCH], "Operations": operations}, before)
        else:
            body = {name: held for name, held in wanted.items() if name not in ("meta", "groups")}
            reply = self._write("PUT", where, body, before)
        return self._read_back(endpoint, reply, wanted)

    def write_membership(self, endpoint: str, group: str, member: str, *, belongs: bool) -> None:
        """Add a user to a group if ``belongs`` is True, otherwise remove the user from the group. ``group``
        and ``member`` are the ids of the group and of the user. A repeated write changes nothing.
        """
        # one member per request, because this preserves the edits of other writers and reaches no size limit
        if self.features.patch:
            operation: dict[str, Any] = {"op": "remove", "path": f"members[value eq {json.dumps(member)}]"}
            if belongs:
                operation = {"op": "add", "path": "members", "value": [{"value": member, "type": "User"}]}
            where = f"{endpoint}/{quote(group, safe='')}"
            self._write("PATCH", where, {"schemas": [_PATCH], "Operations": [operation]})
            return
        before = self.read(endpoint, group)
        if before is None:
            raise ScimError(404, "The group is gone.")
        others = [one for one in _MEMBERS.elements(before) if one.get("value") != member]
        wanted = deepcopy(before)
        wanted["members"] = [*others, {"value": member, "type": "User"}] if belongs else others
        if len(wanted["members"]) == len(_MEMBERS.elements(before)):
            return
        after = self.update(endpoint, before, wanted)
        if belongs and all(one.get("value") != member for one in _MEMBERS.elements(after)):
            raise ScimError(NOT_IMPLEMENTED, "It does not say who the members of a group are.")

    # --- details ---

    def _read_back(self, endpoint: str, reply: HttpResponse, wanted: Resource) -> Resource:
        if reply.status == 200 and reply.content:
            return self._resource(reply)
        found = self.read(endpoint, str(wanted["id"]))
        if found is None:
            raise ScimError(404, "It is gone.", moved=True)
        version = reply.headers.get("etag")
        if version and self.features.etag and version != version_of(found):
            # another writer has changed the resource again; return what this client wrote, with its version
            return {**wanted, "meta": {**wanted.get("meta", {}), "version": version}}
        return found

    def _write(
        self, method: str, path: str, body: Resource | None, known: Resource | None = None
    ) -> HttpResponse:
        headers = {"Accept": MEDIA, "Content-Type": MEDIA}
        version = version_of(known or {})
        if version and self.features.etag:
            headers["If-Match"] = version
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        request = Request(method, path, headers, content, repeatable=False)
        reply = self._http.run(self._http.request(request, self._credential))
        if 200 <= reply.status < 300:
            return reply
        self._require_accepted_token(reply)
        if reply.status == _MOVED and version and version == self._version_now(path):
            raise PortalError(
                f"{self._http.server} takes no version for its own: it calls {path} {version}, as it stands, "
                "and refuses If-Match with that as changed meanwhile.",
                "Have it compare ETags as it gives them, also weak ones (RFC 7644, section 3.14), or say "
                "etag: {supported: false} in its ServiceProviderConfig.",
            )
        raise ScimError(reply.status, self._detail(reply), moved=reply.status in (404, _MOVED))

    def _version_now(self, path: str) -> str:
        reply = self._ask("GET", path, (200, 404))
        return version_of(self._resource(reply)) if reply.status == 200 else ""

    def _ask(self, method: str, path: str, expected: Collection[int] = (200,)) -> HttpResponse:
        reply = self._http.run(self._http.request(Request(method, path, {"Accept": MEDIA}), self._credential))
        if reply.status not in expected:
            self._require_accepted_token(reply)
            raise PortalError(
                f"{self._http.server} answers HTTP {reply.status} to {path.partition('?')[0]}: "
                f"{self._detail(reply)}",
                "Check portal: url: in provisioner.yaml; it ends where /Users begins.",
            )
        return reply

    def _require_accepted_token(self, reply: HttpResponse) -> None:
        if reply.status == 401:
            raise PortalError(
                f"{self._http.server} does not take the token: {self._detail(reply)}",
                "Put the token where secret_env or secret_file say, or into PROVISIONER_PORTAL_SECRET.",
            )

    def _detail(self, reply: HttpResponse) -> str:
        said: Any = None
        with suppress(PortalError):
            said = self._parse(reply)
        detail = said.get("detail") if isinstance(said, dict) else None
        return self._http.redacted(detail or f"HTTP {reply.status}")

    def _parse(self, reply: HttpResponse) -> Any:
        try:
            return without_nulls(reply.json())
        except RecursionError:
            raise invalid_response(self._http.server, "it is nested without end") from None

    def _resource(self, reply: HttpResponse) -> Resource:
        """Return the resource in a response. The version is the ETag header, because meta can lack it."""
        resource = self._require_resource(self._parse(reply))
        if version := reply.headers.get("etag"):
            resource["meta"] = {**resource.get("meta", {}), "version": version}
        return resource

    def _require_resource(self, found: Any) -> Resource:
        if not (
            isinstance(found, dict)
            and isinstance(found.get("id"), str)
            and isinstance(found.get("meta", {}), dict)
            and isinstance(found.get("schemas", []), list)
        ):
            raise invalid_response(self._http.server, "it is no SCIM resource")
        return found

    def _pages(self, endpoint: str, words: str, *, refusable: bool = False) -> list[Resource] | None:
        """Read all pages of a list; ``words`` is appended to the query. Return None if the list becomes
        shorter meanwhile, or if the server rejects the query and ``refusable`` is True. A deletion is not
        noticed if another resource is added during the reading. This is harmless, because each resource is
        read again before a write to it.
        """
        found: dict[str, Resource] = {}
        start, total = 1, 0
        while True:
            reply = self._ask(
                "GET",
                f"{endpoint}?startIndex={start}&count={PAGE}{words}",
                (200, 400, 403, 501) if refusable else (200,),
            )
            if reply.status != 200:
                return None
            page, of = self._page_of(reply)
            if of < total:
                return None
            total, known = of, len(found)
            found |= {resource["id"]: resource for resource in page}
            if max(total, len(found)) > limits.MAX_LISTED:
                raise PortalError(
                    f"{self._http.server} lists more than {limits.MAX_LISTED:,} {endpoint[1:]}."
                )
            start += len(page)
            # some servers wrongly return the page size as the total, so read one more page then
            counted = total > len(page) or refusable
            if len(found) == known or (start > total and counted):
                return list(found.values()) if len(found) >= total else None

    def _page_of(self, reply: HttpResponse) -> tuple[list[Resource], int]:
        said = self._parse(reply)
        held = said.get("Resources", []) if isinstance(said, dict) else None
        total = said.get("totalResults") if isinstance(said, dict) else None
        if not isinstance(held, list) or not isinstance(total, int):
            raise invalid_response(self._http.server, "it is no SCIM list")
        return list(map(self._require_resource, held)), total

    def _read_description(self, path: str) -> Mapping[str, Any]:
        reply = self._ask("GET", path, expected=(200, *_ABSENT))
        said = self._parse(reply) if reply.status == 200 else {}
        if not isinstance(said, dict):
            raise invalid_response(self._http.server, "it is no SCIM resource")
        return said

    def _read_list(self, path: str) -> list[Resource]:
        held = self._read_description(path).get("Resources") or []
        if not isinstance(held, list):
            raise invalid_response(self._http.server, "it is no SCIM list")
        return [one for one in held if isinstance(one, dict)]


def without_nulls(found: Any) -> Any:
    """Return decoded JSON without nulls, because null stands for an absent value (RFC 7643, 2.5)."""
    if isinstance(found, dict):
        return {name: without_nulls(held) for name, held in found.items() if held is not None}
    if isinstance(found, list):
        return [without_nulls(one) for one in found if one is not None]
    return found


def changes(before: Resource, wanted: Resource) -> list[dict[str, Any]]:
    """Return the PATCH operations (RFC 7644, section 3.5.2) that change ``before`` into ``wanted``."""
    was, now = attributes(before), attributes(wanted)
    operations: list[dict[str, Any]] = [
        {"op": "remove", "path": name} for name in sorted(was) if name not in now
    ]
    for name in sorted(now):
        if name not in was:
            operations.append({"op": "add", "path": name, "value": now[name]})
        elif was[name] != now[name]:
            operations.append({"op": "replace", "path": name, "value": now[name]})
    return operations


def version_of(resource: Resource) -> str:
    """Return the version (ETag) with which the resource was read; "" if the server has no versions."""
    return str(resource.get("meta", {}).get("version", ""))
