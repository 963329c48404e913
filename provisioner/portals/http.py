"""One web server, asked with care: a reply is bounded in time and bytes, and no secret goes astray.

Nothing is taken from the environment: no proxy, no certificates, no log-in. No redirect is followed, no reply
is unpacked, certificates are always verified. What may be said twice is said again while the server is
away or busy, and for a bounded time only.

Everything happens in one event loop in a thread of its own, so that plain functions in any thread may ask.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar
from urllib.parse import urlsplit

from provisioner import __version__, limits
from provisioner.errors import PortalError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

Json = Any
"""What ``json.loads`` gives: None, bool, int, float, str, list or dict."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_TOO_MANY = 429
_BUSY = (_TOO_MANY, 503)
"""Come again later. Only the first says that nothing was done: one may lose its database as it writes."""
_LOST = {
    408: "the request did not arrive in time",
    502: "what stands before it has no answer",
    504: "what stands before it has no answer",
}
"""No answer to the question: it may have been done. Some say 408 of what they had passed on already."""
_SHOWN = 300
"""Characters of a server's own words that are repeated."""
_KEPT_ALIVE = 4.0
"""Seconds: less than servers commonly wait, or a request meets the end of its connection."""
_GRACE_SECONDS = 0.1
_CONNECT_PART = 0.8
"""Of the seconds for a reply, at most: a connection that is cut off sooner by its own bound is closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question."""

    method: str
    path: str
    """What follows the server's address: quoted, with its query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    repeatable: bool = True
    """It may be said again when its effect is not known: reading, or writing with a key."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; the last one of several."""
    content: bytes
    server: str
    """Who says it, for sentences."""

    def json(self) -> Json:
        """What the reply says. Raises :class:`PortalError` for what is not JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise invalid_response(
                self.server, f"it is {kind[:40] or 'of no kind'} instead of application/json"
            )
        try:
            text = self.content.decode("utf-8")
            found = json.loads(text, parse_constant=_no_constant)
            if b"\\ud" in self.content or b"\\uD" in self.content:
                # half a character pair passes here and fails wherever it is written
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise invalid_response(self.server, "it is not JSON") from None
        return found


class NoResponse(PortalError):
    """No usable answer, however often it was asked; ``unknown``: it may have taken effect all the same."""

    def __init__(self, sentence: str, remedy: str = "", *, unknown: bool) -> None:
        super().__init__(sentence, remedy)
        self.unknown = unknown


class ResponseTooLarge(PortalError):
    """A reply beyond the bound: less may be asked for."""


class Credential(Protocol):
    """What a request is authorized with."""

    async def token(self, refused: str, deadline: float) -> str:
        """The bearer token; another one than ``refused``, which the server did not take ("" at first).

        ``deadline`` is by the clock of the event loop. Raises :class:`PortalError`.
        """
        ...


def invalid_response(server: str, what: str) -> PortalError:
    """The server answers something that no such server answers."""
    return PortalError(
        f"{server} gave a reply that cannot be used: {what}.",
        "Check portal: url: in provisioner.yaml, and whether a proxy or another service answers there.",
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


@dataclass(slots=True)
class _Course:
    """How a question fares, through all its tries."""

    deadline: float
    """When it is given up, by the clock of the event loop."""
    unknown: bool = False
    """One of them may have taken effect."""


class _Passing(Exception):
    """A try that failed in a way that another one may not."""

    def __init__(self, why: str, *, unknown: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.unknown = unknown
        self.wait = wait


class HttpClient:
    """One server at an address. Close it, or its thread and connections stay."""

    def __init__(
        self,
        address: str,
        *,
        ca_file: Path | None = None,
        proxy: str = "",
        connections: int = 10,
        secrets: Collection[str] = (),
    ) -> None:
        """``secrets`` are never repeated, whoever says them.

        Raises :class:`PortalError` for an address over which secrets would travel unprotected, and for
        certificates that cannot be read.
        """
        parts = urlsplit(address)
        self.address = address.rstrip("/")
        self.server = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _THIS_MACHINE):
            raise PortalError(f"Over {self.server} the secret would travel unprotected.", "Write https://…")
        if parts.scheme == "http" and proxy:
            raise PortalError(
                f"Through the proxy, the secret for {self.server} would travel unprotected.",
                "Remove proxy: from provisioner.yaml, or write https://…",
            )
        self._proxy = proxy
        self._ca_file = ca_file
        self._connections = connections
        self._secrets = {secret for secret in secrets if secret}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._quiet_until = 0.0
        self._transport = self._connected(parts.scheme)

    # --- from plain functions ---

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives, done in the loop's thread while this one waits. Not from within the loop."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin the work; what is returned can be waited for, and cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def close(self) -> None:
        """Let go of the connections and of the thread; work in hand is cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._cleared(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def hide(self, secret: str) -> None:
        """Never repeat this either."""
        self._secrets.add(secret)

    def quoted(self, text: object) -> str:
        """What the server says, short, in one line, and without what it may have been told in confidence."""
        words = str(text)
        for secret in self._secrets:
            words = words.replace(secret, "…")
        words = " ".join(words.split())
        return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"

    # --- within the loop ---

    async def ask(self, request: Request, credential: Credential | None = None) -> HttpResponse:
        """The answer to a question, whatever its status but for redirects and a server that stays busy.

        A token that is refused is replaced once; all of it together has one deadline. Raises
        :class:`NoResponse` once the tries or the time are used up, :class:`PortalError` for what no further
        try would mend.
        """
        deadline = asyncio.get_running_loop().time() + limits.CALL_SECONDS
        return await self.ask_until(deadline, request, credential)

    async def ask_until(
        self, deadline: float, request: Request, credential: Credential | None = None
    ) -> HttpResponse:
        """Likewise for as long as somebody else has, by the clock of the loop."""
        course = _Course(deadline)
        if credential is None:
            return await self._insist(request, "", course)
        token = await self._let_in(credential, "", course)
        reply = await self._insist(request, token, course)
        if reply.status == 401:
            other = await self._let_in(credential, token, course)
            if other != token:
                reply = await self._insist(request, other, course)
        return reply

    async def gather_limited(self, works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
        """What these give, in their order, at most ``most`` under way at once.

        Once one has failed no further one is begun; those under way are finished, then the first failure
        is raised.
        """
        waiting = iter(enumerate(works))
        results: dict[int, T] = {}
        failures: list[Exception] = []

        async def worker() -> None:
            for at, work in waiting:
                if failures:
                    return
                try:
                    results[at] = await work()
                except Exception as problem:  # noqa: BLE001  (raised again below, once the others are done)
                    failures.append(problem)

        await asyncio.gather(*(worker() for _ in range(min(most, len(works)))))
        if failures:
            raise failures[0]
        return [results[at] for at in range(len(works))]

    async def _let_in(self, credential: Credential, refused: str, course: _Course) -> str:
        """A token. That none comes says nothing of what was asked with an earlier one."""
        try:
            return await credential.token(refused, course.deadline)
        except NoResponse as problem:
            raise NoResponse(problem.sentence, problem.remedy, unknown=course.unknown) from None

    async def _insist(self, request: Request, token: str, course: _Course) -> HttpResponse:
        """Ask until there is an answer, within bounds. A busy server is left alone as long as it asks for."""
        import stamina

        loop = asyncio.get_running_loop()
        deadline = course.deadline
        last = "it gave no answer in time"

        def again(problem: Exception) -> bool | float:
            nonlocal last
            if not isinstance(problem, _Passing):
                return False
            course.unknown, last = course.unknown or problem.unknown, problem.why
            if problem.unknown and not request.repeatable:
                return False
            if problem.wait is None:
                return loop.time() < deadline
            wait = problem.wait + _jitter()
            return wait if loop.time() + wait < deadline else False

        with suppress(_Passing):
            async for attempt in stamina.retry_context(
                on=again,
                attempts=limits.CALL_TRIES,
                timeout=max(0.01, deadline - loop.time()),
                wait_initial=limits.RETRY_FIRST_SECONDS,
                wait_jitter=limits.RETRY_JITTER_SECONDS,
            ):
                with attempt:
                    await self._quiet(deadline)
                    return await self._try(request, token, deadline)
        how = "gave no usable answer" if course.unknown else "cannot be reached"
        remedy = "Try again in a while."
        if course.unknown and self.server.startswith("http://"):
            remedy += " If it speaks TLS, its address begins with https://."
        raise NoResponse(f"{self.server} {how}: {last}.", remedy, unknown=course.unknown) from None

    async def _quiet(self, deadline: float) -> None:
        """Wait while the server wants to be left alone."""
        loop = asyncio.get_running_loop()
        while (rest := self._quiet_until - loop.time()) > 0:
            if self._quiet_until >= deadline:
                raise _Passing("it is busy", unknown=False, wait=rest)
            await asyncio.sleep(rest + _jitter())

    async def _try(self, request: Request, token: str, deadline: float) -> HttpResponse:
        import anyio
        import httpx2

        # the whole call ends by the bounds of its tries: one that is cut off as it connects stays half open
        seconds = max(0.01, min(limits.REPLY_SECONDS, deadline - asyncio.get_running_loop().time()))
        try:
            with anyio.fail_after(seconds):
                reply = await self._exchange(self._asked(request, token, seconds))
        except TimeoutError:
            raise _Passing(f"no whole reply within {limits.REPLY_SECONDS:g} seconds", unknown=True) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as problem:
            raise self._unconnected(problem) from None
        except (httpx2.TransportError, OSError) as problem:
            raise _Passing(self._why(problem), unknown=True) from None
        self._require_answer(reply)
        return reply

    def _require_answer(self, reply: HttpResponse) -> None:
        """Raise for a status that is no answer to what was asked."""
        if reply.status in _BUSY:
            pause = _retry_after(reply)
            if pause is not None and pause < limits.CALL_SECONDS:
                self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + pause)
            asks = f" and asks to be left alone for {pause:g} seconds" if pause else ""
            why = f"it is busy (HTTP {reply.status}){asks}"
            raise _Passing(why, unknown=reply.status != _TOO_MANY, wait=pause)
        if reply.status in _LOST:
            raise _Passing(f"{_LOST[reply.status]} (HTTP {reply.status})", unknown=True)
        if 300 <= reply.status < 400 and reply.status != 304:
            raise self._redirected(reply)

    def _asked(self, request: Request, token: str, seconds: float) -> httpx2.Request:
        import httpx2

        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"provisioner/{__version__}",
            **request.headers,
        }
        if token:
            # or the library's own complaint would repeat it
            if not re.fullmatch(r"[!-~]+", token):
                raise PortalError("The portal's token has characters that no token has.", "Check the secret.")
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.Request(
            request.method,
            self.address + request.path,
            headers=headers,
            content=request.content or None,
            extensions={"timeout": {"connect": seconds * _CONNECT_PART}},
        )

    async def _exchange(self, asked: httpx2.Request) -> HttpResponse:
        response = await self._transport.handle_async_request(asked)
        try:
            return await self._read(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpx2.Response) -> HttpResponse:
        """The whole answer, within bounds."""
        given = {name.lower(): said for name, said in response.headers.items()}
        coding = given.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise invalid_response(
                self.server, f"it is packed ({self.quoted(coding)[:20]}), which was not asked for"
            )
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > limits.MAX_REPLY_BYTES:
                raise ResponseTooLarge(
                    f"{self.server} gave a reply that is longer than {limits.MAX_REPLY_BYTES:,} bytes."
                )
        return HttpResponse(response.status_code, given, bytes(content), self.server)

    # --- what went wrong, in words ---

    def _unconnected(self, problem: Exception) -> Exception:
        """No connection, so nothing was said."""
        import httpx2

        for cause in _causes(problem):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return PortalError(
                    f"{self.server} cannot prove who it is: {cause.verify_message.rstrip('.')}. "
                    "Nothing was sent.",
                    "If its certificate comes from an authority of your own, name that: "
                    "portal: {ca_file: FILE}",
                )
            # one without a reason only says that the handshake was not over
            if isinstance(cause, ssl.SSLError) and cause.reason and "WANT" not in cause.reason:
                return PortalError(
                    f"{self.server} does not speak TLS as it should ({cause.reason}). Nothing was sent.",
                    "Check the host and the port of portal: url:",
                )
            if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                return PortalError(
                    f"There is no server {urlsplit(self.server).hostname}.", "Check portal: url:"
                )
        if isinstance(problem, httpx2.ProxyError):
            return PortalError(
                f"The proxy {self._proxy} does not lead to {self.server}: {self.quoted(problem)}.",
                "Check portal: proxy:",
            )
        return _Passing(self._why(problem), unknown=False)

    def _why(self, problem: Exception) -> str:
        """In words of ours and of the system's alone: the library's own may repeat what was said."""
        import httpx2

        for cause in _causes(problem):
            if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
                return os.strerror(cause.errno)
        if isinstance(problem, httpx2.ProtocolError):
            return "its reply breaks off or is not HTTP"
        return "the connection broke"

    def _redirected(self, reply: HttpResponse) -> PortalError:
        named = ""
        with suppress(ValueError):
            where = urlsplit(self.quoted(reply.headers.get("location", "")))
            named = f"{where.scheme}://{where.netloc}{where.path}" if where.netloc else where.path
        return PortalError(
            f"{self.server} sends us on to {named or 'nowhere'}. Nothing was sent there.",
            "If that is the portal's address, write it under portal: url:",
        )

    # --- thread, loop and connections ---

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=f"web {self.server}", daemon=True
                )
                self._thread.start()
            return self._loop

    async def _cleared(self) -> None:
        left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if left:
            # what is about to connect first does, or the library below leaves what it never began
            _, left = await asyncio.wait(left, timeout=_GRACE_SECONDS)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # connections that are broken already have nothing to say
        with suppress(Exception):
            await self._transport.aclose()
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _connected(self, scheme: str) -> httpx2.AsyncBaseTransport:
        import httpx2
        from stamina.instrumentation import set_on_retry_hooks

        # retries are told by whoever asked, if at all
        set_on_retry_hooks(())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._ca_file is not None:
            self._trust(context, self._ca_file)
        elif scheme == "https":
            context = httpx2.create_ssl_context(trust_env=False)
        # two more than steps: the lease is prolonged while all of them are under way
        most = self._connections + 2
        return httpx2.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            proxy=self._proxied(context),
            limits=httpx2.Limits(
                max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEPT_ALIVE
            ),
        )

    def _proxied(self, context: ssl.SSLContext) -> httpx2.Proxy | None:
        import httpx2

        if not self._proxy:
            return None
        return httpx2.Proxy(self._proxy, ssl_context=context if self._proxy.startswith("https:") else None)

    def _trust(self, context: ssl.SSLContext, file: Path) -> None:
        try:
            context.load_verify_locations(file)
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", "") or "it holds no certificate"
            raise PortalError(
                f"The certificates in {file} cannot be read: {why}.",
                "portal: ca_file: names a PEM file with the certificates to trust.",
            ) from problem


def _causes(problem: BaseException | None) -> list[BaseException]:
    """The exception and those it came from, the innermost last."""
    causes: list[BaseException] = []
    while problem is not None and problem not in causes:
        causes.append(problem)
        if isinstance(problem, BaseExceptionGroup):
            causes.extend(problem.exceptions)
        problem = problem.__cause__ or problem.__context__
    return causes


def _jitter() -> float:
    """Seconds by chance: those who were sent away together do not come back together."""
    return random.random() * limits.RETRY_JITTER_SECONDS  # noqa: S311


def _retry_after(reply: HttpResponse) -> float | None:
    """Seconds to wait, given as such or as a date; None where nothing usable is said."""
    said = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", said):
        return float(said)
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
