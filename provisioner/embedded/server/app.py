"""The border: every request is checked here, in one order, before anything is done about it.

found? ─▶ acceptable? ─▶ token ─▶ rate ─▶ scope, role ─▶ size, time ─▶ parameters ─▶ body ─▶ done
 404        400, 406      401      429       403           413, 408      400, 428     415, 400, 422
 405
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from provisioner.embedded.server import activation_page, oauth
from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.api_clients import Session
from provisioner.embedded.server.handlers import HANDLERS
from provisioner.embedded.server.problem_details import MEDIA_TYPE, Problem, unavailable
from provisioner.embedded.server.rate_limit import TokenBuckets
from provisioner.embedded.server.request_body import (
    MAX_BODY,
    read_body,
    read_headers,
    read_parameter,
    read_query,
)
from provisioner.embedded.server.routes import ROUTES, Operation
from provisioner.embedded.server.schemas import Nothing
from provisioner.embedded.server.service import CheckedRequest, Service, ServiceResponse, no_token
from provisioner.errors import Locked, PortalError, ProvisionerError

ANSWER_SECONDS = 60.0
"""How long a database may take; what it does later is found by whoever asks again with the same key."""

ANONYMOUS_RATE = 50.0
"""Requests a second from one address with no token, or an invented one; four times as many at once.

Whether the service is up and ready is answered to everybody: whoever watches it may share an address.
"""

MOST_AT_ONCE = 1_000
"""Requests under way; one more is told to come back."""

SHORT_BODY = 16 * 1024
"""Bytes that are read in no time."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class ServerLimits:
    """What one client may ask for."""

    rate: float = 2_000
    """Requests a second, in the long run; twice as many at once."""
    failed_logins: float = 30
    """A minute from one address, and at once."""
    logins: float = 300
    """A minute by one client, and at once: each leaves a token in the database."""
    token_seconds: int = 900
    body_seconds: float = 30
    behind_proxy: bool = False
    """The last entry of X-Forwarded-For is the address, as the proxy before us saw it; where that is none,
    the proxy's own counts."""


class PortalApp:
    """The ASGI application."""

    def __init__(self, service: Service, bounds: ServerLimits, log: AccessLog) -> None:
        self._service = service
        self._bounds = bounds
        self._log = log
        self._rates = TokenBuckets(bounds.rate, 2 * bounds.rate, time.monotonic)
        self._failures = TokenBuckets(bounds.failed_logins / 60, bounds.failed_logins, time.monotonic)
        self._logins = TokenBuckets(bounds.logins / 60, bounds.logins, time.monotonic)
        self._strangers = TokenBuckets(ANONYMOUS_RATE, 4 * ANONYMOUS_RATE, time.monotonic)
        self._under_way = 0
        paths: dict[str, dict[str, Operation]] = {}
        for entry in ROUTES:
            paths.setdefault(entry.path, {})[entry.method] = entry
        routes = [Route(path, self._endpoint(by), methods=list(by)) for path, by in paths.items()]
        self._app = Starlette(
            routes=routes,
            exception_handlers={HTTPException: self._nowhere, Problem: _refused, Exception: _failed},
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; it is answered, whatever happens, and logged."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        begun, told = time.monotonic(), {"status": 0, "bytes": 0}
        scope["told"] = told

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                if scope["scheme"] == "https":
                    message = {**message, "headers": [*message["headers"], _HSTS]}
            told["bytes"] += len(message.get("body", b""))
            await send(message)

        self._under_way += 1
        try:
            if self._under_way > MOST_AT_ONCE:
                raise unavailable("Too many requests are under way.")
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            pass
        except Exception as problem:  # noqa: BLE001  (a defect is answered and told, and ends nothing else)
            if not told["status"]:
                await _response(_problem_of(problem))(scope, receive, noting)
        finally:
            self._under_way -= 1
            self._note(scope, begun, told)

    def _note(self, scope: Scope, begun: float, told: dict[str, int]) -> None:
        entry: Operation | None = scope.get("entry")
        session: Session | None = scope.get("session")
        self._log.tell(
            method=scope["method"] if scope["method"] in _METHODS else "other",
            endpoint=entry.name if entry else scope.get("page", ""),
            path=entry.path if entry else "",
            status=told["status"],
            ms=(time.monotonic() - begun) * 1000,
            client=session.client if session else scope.get("client_id", ""),
            bytes=0 if scope["method"] == "HEAD" else told["bytes"],
        )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._service.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self._service.close)
        await send({"type": "lifespan.shutdown.complete"})

    # --- one request ---

    def _endpoint(self, by: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            entry = by[method]
            request.scope["entry"] = entry
            return _response(await self._answer(entry, request))

        return endpoint

    async def _answer(self, entry: Operation, request: Request) -> ServiceResponse:
        try:
            headers = read_headers(request.scope["headers"])
            _require_acceptable(headers.get("accept"))
            if entry.name == "token":
                async with asyncio.timeout(self._bounds.body_seconds + ANSWER_SECONDS):
                    return await self._log_in(request, headers)
            session = None
            if entry.access:
                async with asyncio.timeout(ANSWER_SECONDS):
                    session = await self._admit(entry, request, headers)
            elif entry.name not in _WATCHED:
                self._meet(self._address(request, headers))
            asked = await self._check(entry, request, headers, session)
            async with asyncio.timeout(ANSWER_SECONDS):
                return await HANDLERS[entry.name](self._service, asked)
        except ProvisionerError as problem:
            raise _problem_of(problem) from problem
        except TimeoutError:
            raise unavailable("The database does not answer.") from None

    def _meet(self, address: str) -> None:
        """Somebody who has not logged in: every answer costs us something, too."""
        if wait := self._strangers.take(address):
            raise _busy("Too many requests come from this address.", wait)

    async def _recognize(self, token: str, address: str) -> Session:
        """Whose token it is; whoever invents some is a stranger like others."""
        if not self._service.knows(token) and (wait := self._strangers.wait(address)):
            raise _busy("Too many requests come from this address.", wait)
        try:
            return await self._service.session(token)
        except Problem:
            self._strangers.take(address)
            raise

    async def _admit(self, entry: Operation, request: Request, headers: Any) -> Session:
        """Whose request it is, and that he may do this."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        address = self._address(request, headers)
        if scheme.lower() != "bearer" or not token.strip():
            self._meet(address)
            challenge = {"WWW-Authenticate": 'Bearer realm="provisioner"'}
            raise Problem("token", "Log in first, at /oauth/token.", headers=challenge)
        if len(token) > 200:
            self._meet(address)
            raise no_token("The access token is unknown, or its client was disabled.")
        session = await self._recognize(token.strip(), address)
        request.scope["session"] = session
        if wait := self._rates.take(session.client):
            raise _busy("This client sends too many requests.", wait)
        if entry.access not in session.scopes:
            raise Problem("scope", f"This needs the scope {entry.access}.", headers={
                "WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{entry.access}"'
            })  # fmt: skip
        if session.role not in entry.roles:
            roles = " or ".join(sorted(role.replace("_", " ") for role in entry.roles))
            raise Problem("forbidden", f"Only the role {roles} may do this.")
        return session

    async def _check(
        self, entry: Operation, request: Request, headers: Any, session: Session | None
    ) -> CheckedRequest:
        content = await self._body(request, headers)
        given = _parameters(entry, request, headers)
        if len(content) > SHORT_BODY:
            # others are answered meanwhile
            body = await asyncio.to_thread(_said, entry, headers, content)
        else:
            body = _said(entry, headers, content)
        return CheckedRequest(entry, session, given["path"], given["query"], given["header"], body)

    async def _body(self, request: Request, headers: Any) -> bytes:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            raise _too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(self._bounds.body_seconds):
                async for part in request.stream():
                    content += part
                    if len(content) > MAX_BODY:
                        raise _too_large()
        except TimeoutError:
            raise Problem(
                "timeout", "The body did not arrive in time.", headers={"Connection": "close"}
            ) from None
        except ClientDisconnect:
            # nobody reads this any more; it is no defect
            raise Problem("malformed", "The body is not whole.") from None
        return bytes(content)

    async def _log_in(self, request: Request, headers: Any) -> ServiceResponse:
        address = self._address(request, headers)
        if wait := self._failures.wait(address):
            raise _busy("Too many log-ins failed from this address.", wait)
        if wait := self._strangers.wait(address):
            raise _busy("Too many requests come from this address.", wait)
        content = await self._body(request, headers)
        try:
            reply, client = await oauth.give_token(
                self._service, headers, content, self._bounds.token_seconds, self._admit_again
            )
        except oauth.OAuthError as refused:
            refusals = self._failures if refused.status == 401 else self._strangers
            refusals.take(address)
            return refused.reply
        request.scope["client_id"] = client
        return reply

    def _admit_again(self, client: str) -> None:
        if wait := self._logins.take(client):
            raise _busy("This client logs in too often: a token lasts for many requests.", wait)

    def _address(self, request: Request, headers: Any) -> str:
        peer = request.client.host if request.client else ""
        if self._bounds.behind_proxy and headers.get("x-forwarded-for"):
            seen = _network(headers["x-forwarded-for"].rpartition(",")[2].strip())
            return seen or _network(peer) or peer
        return _network(peer) or peer

    # --- what is not in the table ---

    async def _nowhere(self, request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)
        try:
            self._meet(self._address(request, read_headers(request.scope["headers"])))
            if problem.status_code == 405:
                allowed = (problem.headers or {}).get("Allow", "")
                allow = ", ".join(sorted(method.strip() for method in allowed.split(",")))
                raise Problem("method", f"This address takes {allow}.", headers={"Allow": allow})
            async with asyncio.timeout(ANSWER_SECONDS):
                page = await activation_page.visit(self._service, request)
        except (PortalError, Problem) as trouble:
            return _refused(request, _problem_of(trouble))
        except TimeoutError:
            return _refused(request, unavailable("The database does not answer."))
        return page or _refused(request, Problem("not-found", "There is nothing at this address."))


_WATCHED = ("healthz", "readyz")

_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])


def _parameters(entry: Operation, request: Request, headers: Any) -> dict[str, dict[str, Any]]:
    """What is given for the endpoint's parameters, by place and name. Raises :class:`Problem`."""
    query = read_query(request.scope.get("query_string", b""))
    given: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    missing = []
    for parameter in entry.parameters:
        name = parameter.name
        if parameter.place == "path":
            text = request.path_params[name]
        elif parameter.place == "query":
            text = query.pop(name, None)
        else:
            text = headers.get(name.lower())
        if text is not None:
            value = _version(text) if name == "If-Match" else read_parameter(parameter, text)
            given[parameter.place][name] = value
        elif parameter.required:
            missing.append(parameter)
    if query:
        raise Problem("malformed", "There is a query parameter that is not known here.")
    for parameter in missing:
        code = "version-missing" if parameter.name == "If-Match" else "malformed"
        raise Problem(code, f"The {parameter.place} parameter {parameter.name} is missing.")
    if ("Lease" in given["header"]) != ("Fencing-Token" in given["header"]):
        raise Problem("lease-missing", "Lease and Fencing-Token come together or not at all.")
    return given


def _said(entry: Operation, headers: Any, content: bytes) -> Any:
    """The body as the endpoint's model; None where it takes none. Raises :class:`Problem`."""
    if entry.takes is None:
        if content:
            raise Problem("malformed", "This request has no body.")
        return None
    if entry.takes is Nothing and not content:
        return None
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("media-type", "The body is to be application/json.")
    return read_body(content, entry.takes)


def _version(text: str) -> int:
    """The version that If-Match names: the ETag of a read, or the version alone."""
    found = re.fullmatch(r'"([0-9]{1,15})(?:\.[0-9-]*)?"', text)
    if found is None:
        raise Problem("malformed", 'If-Match names one version, such as "3".')
    return int(found[1])


def _network(text: str) -> str:
    """What stands for an address: itself, or of the many that one has in IPv6 their first 64 bits.

    Empty where it is none.
    """
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


def _busy(sentence: str, wait: int) -> Problem:
    """429: come again after so many seconds."""
    return Problem("busy", sentence, headers={"Retry-After": str(wait)})


def _too_large() -> Problem:
    return Problem("too-large", f"The body has more than {MAX_BODY} bytes.", headers={"Connection": "close"})


def _require_acceptable(accept: str | None) -> None:
    if accept is None or not accept.strip():
        return
    for part in accept.split(","):
        kind, _, rest = part.strip().partition(";")
        if kind.strip().lower() in ("*/*", "application/*", "application/json"):
            weight = rest.replace(" ", "").lower()
            if not (weight.startswith("q=0") and not weight.strip("q=0.")):
                return
    raise Problem("not-acceptable", "Answers are application/json.")


def _problem_of(problem: BaseException) -> Problem:
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, Locked):
        return Problem("locked", problem.sentence)
    if isinstance(problem, ProvisionerError):
        # where the database lies is nobody's business out there
        return unavailable("The portal's database is away or busy. Try again in a moment.")
    last = traceback.extract_tb(problem.__traceback__)[-1:]
    where = f"{last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else "?"
    # the kind and the place, and nothing that a request brought along
    sys.stderr.write(f"A defect of this program: {type(problem).__name__} at {where}\n")
    return Problem("defect", "This is a defect of the program; its log says where.")


def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return _response(problem)


def _failed(request: Request, problem: Exception) -> Response:
    return _response(_problem_of(problem))


def _response(answer: ServiceResponse | Problem) -> Response:
    if isinstance(answer, Problem):
        headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **answer.headers}
        return Response(answer.body(), answer.status, headers={**_ALWAYS, **headers})
    headers = dict(answer.headers)
    if answer.body:
        headers.setdefault("Content-Type", "application/json")
    headers.setdefault("Cache-Control", "private, no-cache" if "ETag" in headers else "no-store")
    return Response(answer.body, answer.status, headers={**_ALWAYS, **headers})


_ALWAYS = {"X-Content-Type-Options": "nosniff"}

_HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Where this service speaks TLS itself; otherwise that is for the proxy to say."""
