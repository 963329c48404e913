"""The ASGI application. Before the handler of a request is called, these checks are made, from left to right.
Below each check are the HTTP statuses with which the check refuses a request.

path, method ─▶ token ─▶ rate ─▶ scope, role ─▶ size, time ─▶ parameters ─▶ body ─▶ handler
  404, 405       401      429       403           413, 408      400, 428     415, 400, 422
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from provisioner.embedded.server import activation_page, oauth
from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.api_clients import ClientSession
from provisioner.embedded.server.handlers import HANDLERS
from provisioner.embedded.server.problem_details import MEDIA_TYPE, Problem, unavailable
from provisioner.embedded.server.rate_limit import ServerLimits, TokenBuckets
from provisioner.embedded.server.request_body import (
    MAX_BODY,
    read_body,
    read_form,
    read_parameter,
    require_single_headers,
)
from provisioner.embedded.server.routes import ROUTES, Operation
from provisioner.embedded.server.schemas import Nothing
from provisioner.embedded.server.service import CheckedRequest, Service
from provisioner.errors import Locked, ProvisionerError

ANSWER_SECONDS = 60.0
"""The maximum time in seconds that a request waits for the database. A longer wait gives status 503.

The database may still apply the step of the request. A client that repeats the request with the same
idempotency key gets the receipt of that step."""

ANONYMOUS_RATE = 50.0
"""The maximum number of requests per second without a valid token from one IP address.

A burst of four times this number is accepted. Health checks are not counted, because a monitoring program may
have the same address as a client."""

MAX_REQUESTS = 1_000
"""The maximum number of requests that are processed at the same time; further requests get status 503."""

INLINE_BODY = 16 * 1024
"""The maximum size in bytes of a body that the event loop parses; a larger body is parsed in a thread."""


class PortalApp:
    """The ASGI application of the portal's service."""

    def __init__(self, service: Service, limits: ServerLimits, log: AccessLog) -> None:
        self._service = service
        self._limits = limits
        self._log = log
        self._rates = TokenBuckets(limits.rate, 2 * limits.rate, time.monotonic)
        self._failures = TokenBuckets(limits.failed_logins / 60, limits.failed_logins, time.monotonic)
        self._logins = TokenBuckets(limits.logins / 60, limits.logins, time.monotonic)
        self._anonymous = TokenBuckets(ANONYMOUS_RATE, 4 * ANONYMOUS_RATE, time.monotonic)
        self._under_way = 0
        paths: dict[str, dict[str, Operation]] = {}
        for operation in ROUTES:
            paths.setdefault(operation.path, {})[operation.method] = operation
        routes = [
            Route(path, self._endpoint(by_method), methods=list(by_method))
            for path, by_method in paths.items()
        ]
        self._router = Router(routes, redirect_slashes=False, lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer and log one request; an unexpected exception becomes a response with status 500."""
        # with "app" set, the router raises HTTPException for unknown paths and methods
        scope["app"] = self
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        started, sent = time.monotonic(), {"status": 0, "bytes": 0}

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    # if a proxy terminates TLS instead, the proxy sends this header
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            sent["bytes"] += len(message.get("body", b""))
            await send(message)

        self._under_way += 1
        try:
            await self._respond(scope, receive, send_counted)
        except ClientDisconnect:
            pass
        except Exception as problem:  # noqa: BLE001  (a defect in one request must not end the service)
            if not sent["status"]:
                await _refusal(problem)(scope, receive, send_counted)
        finally:
            self._under_way -= 1
            self._log_request(scope, started, sent)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._under_way > MAX_REQUESTS:
            raise unavailable("Too many requests are under way.")
        try:
            await self._router(scope, receive, send)
        except HTTPException as unknown:
            response = await self._respond_outside_of_table(Request(scope, receive), unknown)
            await response(scope, receive, send)

    def _log_request(self, scope: Scope, started: float, sent: dict[str, int]) -> None:
        operation: Operation | None = scope.get("operation")
        session: ClientSession | None = scope.get("session")
        self._log.record(
            method=scope["method"] if scope["method"] in _METHODS else "other",
            endpoint=operation.name if operation else scope.get("page", ""),
            path=operation.path if operation else "",
            status=sent["status"],
            ms=round((time.monotonic() - started) * 1000, 1),
            client=session.client if session else scope.get("client_id", ""),
            bytes=0 if scope["method"] == "HEAD" else sent["bytes"],
        )

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self._service.close)

    # --- one request ---

    def _endpoint(self, by_method: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            operation = by_method[method]
            request.scope["operation"] = operation
            require_single_headers(request.headers)
            async with asyncio.timeout(self._limits.body_seconds + ANSWER_SECONDS):
                if operation.name == "token":
                    return await self._log_in(request)
                session = None
                if operation.access:
                    session = await self._authorise(operation, request)
                elif operation.name not in _WATCHED:
                    self._limit_anonymous(self._address(request))
                checked = await self._check(operation, request, session)
                return await HANDLERS[operation.name](self._service, checked)

        return endpoint

    def _limit_anonymous(self, address: str) -> None:
        if wait := self._anonymous.take(address):
            raise _rate_limited("Too many requests come from this address.", wait)

    async def _session_of(self, token: str, address: str) -> ClientSession:
        if not self._service.has_seen(token) and (wait := self._anonymous.wait(address)):
            raise _rate_limited("Too many requests come from this address.", wait)
        try:
            return await self._service.session(token)
        except Problem:
            self._anonymous.take(address)
            raise

    async def _authorise(self, operation: Operation, request: Request) -> ClientSession:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        address = self._address(request)
        if scheme.lower() != "bearer" or not token.strip():
            self._limit_anonymous(address)
            challenge = {"WWW-Authenticate": 'Bearer realm="provisioner"'}
            raise Problem("token", "Log in first, at /oauth/token.", headers=challenge)
        session = await self._session_of(token.strip(), address)
        request.scope["session"] = session
        if wait := self._rates.take(session.client):
            raise _rate_limited("This client sends too many requests.", wait)
        if operation.access not in session.scopes:
            raise Problem("scope", f"This needs the scope {operation.access}.", headers={
                "WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{operation.access}"'
            })  # fmt: skip
        if session.role not in operation.roles:
            roles = " or ".join(sorted(role.replace("_", " ") for role in operation.roles))
            raise Problem("forbidden", f"Only the role {roles} may do this.")
        return session

    async def _check(
        self, operation: Operation, request: Request, session: ClientSession | None
    ) -> CheckedRequest:
        content = await self._body(request)
        values = _parameters(operation, request)
        if len(content) > INLINE_BODY:
            # parse a large body in a thread, because the event loop must answer other requests meanwhile
            body = await asyncio.to_thread(_read_content, operation, request, content)
        else:
            body = _read_content(operation, request, content)
        return CheckedRequest(operation, session, values, body)

    async def _body(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            raise _too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    content += part
                    if len(content) > MAX_BODY:
                        raise _too_large()
        except TimeoutError:
            raise Problem(
                "timeout", "The body did not arrive in time.", headers={"Connection": "close"}
            ) from None
        except ClientDisconnect:
            # the client is disconnected, so it does not read this response
            raise Problem("malformed", "The body is not whole.") from None
        return bytes(content)

    async def _log_in(self, request: Request) -> Response:
        address = self._address(request)
        if wait := self._failures.wait(address):
            raise _rate_limited("Too many log-ins failed from this address.", wait)
        if wait := self._anonymous.wait(address):
            raise _rate_limited("Too many requests come from this address.", wait)
        content = await self._body(request)
        try:
            reply, client = await oauth.issue_token(
                self._service, request.headers, content, self._limits.token_seconds, self._limit_logins
            )
        except oauth.OAuthError as refused:
            refusals = self._failures if refused.status == 401 else self._anonymous
            refusals.take(address)
            return refused.reply
        request.scope["client_id"] = client
        return reply

    def _limit_logins(self, client: str) -> None:
        if wait := self._logins.take(client):
            raise _rate_limited("This client logs in too often: a token lasts for many requests.", wait)

    def _address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for") if self._limits.behind_proxy else []
        seen = _network(forwarded[-1].rpartition(",")[2].strip()) if forwarded else ""
        return seen or _network(peer) or peer

    async def _respond_outside_of_table(self, request: Request, unknown: HTTPException) -> Response:
        """Return the activation page for the path of an activation link. For any other path, raise
        :class:`Problem`: 405 if a route has the path but not the method, else 404.
        """
        self._limit_anonymous(self._address(request))
        if unknown.status_code == 405:
            allowed = (unknown.headers or {}).get("Allow", "")
            allow = ", ".join(sorted(method.strip() for method in allowed.split(",")))
            raise Problem("method", f"This address takes {allow}.", headers={"Allow": allow})
        async with asyncio.timeout(ANSWER_SECONDS):
            page = await activation_page.visit(self._service, request)
        if page is None:
            raise Problem("not-found", "There is nothing at this address.")
        return page


_WATCHED = ("healthz", "readyz")

_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])


def _parameters(operation: Operation, request: Request) -> dict[str, Any]:
    query = read_form(request.scope.get("query_string", b""), "query")
    values: dict[str, Any] = {}
    missing = []
    for parameter in operation.parameters:
        name = parameter.name
        if parameter.place == "path":
            text = request.path_params[name]
        elif parameter.place == "query":
            text = query.pop(name, None)
        else:
            text = request.headers.get(name)
        if text is not None:
            values[name] = read_parameter(parameter, text)
        elif parameter.required:
            missing.append(parameter)
    if query:
        raise Problem("malformed", "There is a query parameter that is not known here.")
    for parameter in missing:
        code = "version-missing" if parameter.name == "If-Match" else "malformed"
        raise Problem(code, f"The {parameter.place} parameter {parameter.name} is missing.")
    if ("Lease" in values) != ("Fencing-Token" in values):
        raise Problem("lease-missing", "Lease and Fencing-Token come together or not at all.")
    return values


def _read_content(operation: Operation, request: Request, content: bytes) -> Any:
    if operation.takes is None:
        if content:
            raise Problem("malformed", "This request has no body.")
        return None
    if operation.takes is Nothing and not content:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("media-type", "The body is to be application/json.")
    return read_body(content, operation.takes)


def _network(text: str) -> str:
    """Return the IPv4 address, or the first 64 bits of the IPv6 address; "" if ``text`` is no address."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


def _rate_limited(sentence: str, wait: int) -> Problem:
    return Problem("busy", sentence, headers={"Retry-After": str(wait)})


def _too_large() -> Problem:
    return Problem("too-large", f"The body has more than {MAX_BODY} bytes.", headers={"Connection": "close"})


def _problem_of(problem: BaseException) -> Problem:
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, TimeoutError):
        return unavailable("The database does not answer.")
    if isinstance(problem, Locked):
        return Problem("locked", problem.sentence)
    if isinstance(problem, ProvisionerError):
        # do not send the sentence: it may name the location of the database, which clients must not learn
        return unavailable("The portal's database is away or busy. Try again in a moment.")
    last = traceback.extract_tb(problem.__traceback__)[-1:]
    where = f"{last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else "?"
    # do not log the exception's message, because it may contain data of the request
    sys.stderr.write(f"A defect of this program: {type(problem).__name__} at {where}\n")
    return Problem("defect", "This is a defect of the program; its log says where.")


def _refusal(problem: Exception) -> Response:
    shown = _problem_of(problem)
    return Response(shown.body(), shown.status, shown.headers, MEDIA_TYPE)
