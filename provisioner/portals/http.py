"""An HTTP client for one server, with limits on the time and size of responses.

The client ignores proxies, certificates and credentials in environment variables. It does not follow
redirects, does not decompress responses, and always verifies certificates. It sends repeatable requests again
while the server is down or busy, until a deadline.

All requests run in one event loop in a separate thread. Synchronous code in any thread can send requests.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from provisioner import __version__, limits
from provisioner.errors import PortalError
from provisioner.portals.http_messages import (
    HttpResponse,
    NoResponse,
    Request,
    ResponseTooLarge,
    invalid_response,
    without_query_values,
)
from provisioner.trace import Exchange, exchange

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TOO_MANY = 429
_BUSY = (_TOO_MANY, 503)
"""The HTTP statuses of a busy server. After status 429, the request had no effect. After status 503, it is
unknown whether the request had an effect."""
_NO_ANSWER = {
    408: "the request did not arrive in time",
    502: "what stands before it has no answer",
    504: "what stands before it has no answer",
}
"""The HTTP statuses after which it is unknown whether the request had an effect, each with the reason for
error messages. 408 is included, because some proxies return 408 for a request that they have forwarded."""
_EXCERPT_LENGTH = 300
"""The maximum number of characters of a server's text that a message quotes."""
_KEEPALIVE_SECONDS = 4.0
"""The time in seconds after which the client closes an idle connection. Most servers close it later."""
_GRACE_SECONDS = 0.1
_CONNECT_SHARE = 0.8
"""The connect timeout as a fraction of the timeout of the whole attempt. The connect timeout must be shorter,
because a socket leaks if the whole attempt times out while it is still connecting."""


class Credential(Protocol):
    """A source of bearer tokens for requests."""

    async def token(self, refused: str, deadline: float) -> str:
        """Return a bearer token, if possible a different one from ``refused``.

        ``refused`` is the token with which the server has just rejected the request; it is "" if the server
        has rejected no token. ``deadline`` is the time, on the event loop's clock, until which the token must
        be available. Raises :class:`PortalError`.
        """
        ...


@dataclass(slots=True)
class _Attempts:
    """The state that all attempts at one request share."""

    deadline: float
    """The time, on the event loop's clock, after which no new attempt is started."""
    outcome_unknown: bool = False
    """True if one of the failed attempts may have taken effect on the server."""


class _Retryable(Exception):
    """The failure of one attempt after which another attempt may succeed. ``wait`` is the delay in seconds
    that the server requests, or None if the server requests no delay.
    """

    def __init__(self, why: str, *, outcome_unknown: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.outcome_unknown = outcome_unknown
        self.wait = wait


class HttpClient:
    """An HTTP client for one server. It uses a thread and connections until :meth:`close` is called."""

    def __init__(
        self,
        address: str,
        *,
        ca_file: Path | None = None,
        proxy: str = "",
        connections: int = 10,
        secrets: Collection[str] = (),
        kind: str = "http",
    ) -> None:
        """Start the thread of the client, without sending anything.

        ``ca_file`` contains the certificates to trust instead of the default ones. ``proxy`` is the URL of an
        HTTP proxy, or "" for none. ``connections`` is the maximum number of steps in progress at the same
        time. The client opens at most two connections more, because the lease is renewed meanwhile. Error
        messages and the trace never contain the texts in ``secrets``. ``kind`` is the protocol that the trace
        names for the requests: ``http`` or ``scim``. Raises :class:`PortalError` if ``address`` is an
        ``http://`` address of another machine, if ``proxy`` is set for an ``http://`` address, or if the
        certificates in ``ca_file`` cannot be read.
        """
        parts = urlsplit(address)
        self.address = address.rstrip("/")
        self.server = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _LOOPBACK):
            raise PortalError(f"Over {self.server} the secret would travel unprotected.", "Write https://…")
        if parts.scheme == "http" and proxy:
            raise PortalError(
                f"Through the proxy, the secret for {self.server} would travel unprotected.",
                "Remove proxy: from provisioner.yaml, or write https://…",
            )
        self._kind = kind
        self._proxy = proxy
        self._ca_file = ca_file
        self._connections = connections
        self._secrets = {secret for secret in secrets if secret}
        self._answered = False
        self._transport = self._open_transport(parts.scheme)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"web {self.server}", daemon=True)
        self._thread.start()

    # --- from synchronous code ---

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the event loop's thread and return its result. Never call this in that thread."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel the running coroutines, close the connections and end the event loop's thread."""
        if not self._loop.is_closed():
            self.run(self._close_connections())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def redact(self, secret: str) -> None:
        """Add ``secret`` to the secrets that :meth:`redacted` removes from texts."""
        self._secrets.add(secret)

    def redacted(self, text: object) -> str:
        """Return the server's ``text`` for messages: on one line, shortened, and without secrets."""
        words = str(text)
        for secret in self._secrets:
            words = words.replace(secret, "…")
        words = " ".join(words.split())
        return words if len(words) <= _EXCERPT_LENGTH else f"{words[:_EXCERPT_LENGTH]}…"

    # --- within the loop ---

    async def request(
        self, request: Request, credential: Credential | None = None, deadline: float | None = None
    ) -> HttpResponse:
        """Send a request, if necessary several times, and return the response.

        A response with the status 408, 429, 502, 503 or 504 counts as a failed attempt. If an attempt may
        have taken effect, only a ``repeatable`` request is sent again. If the server rejects the token
        (status 401) and ``credential`` has a different token, the request is sent once more with that token.
        ``deadline`` is the time, on the event loop's clock, after which no new attempt is started. Raises
        :class:`NoResponse` if the last attempt fails, and :class:`PortalError` for a redirect and for other
        errors that a retry cannot correct.
        """
        attempts = _Attempts(deadline or asyncio.get_running_loop().time() + limits.CALL_SECONDS)
        if credential is None:
            return await self._request_with_retries(request, "", attempts)
        token = await self._fetch_token(credential, "", attempts)
        reply = await self._request_with_retries(request, token, attempts)
        if reply.status == 401:
            other = await self._fetch_token(credential, token, attempts)
            if other != token:
                reply = await self._request_with_retries(request, other, attempts)
        return reply

    async def gather_limited(self, works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
        """Call the functions ``works``, at most ``most`` at a time, and return their results in the order of
        ``works``. If one fails, call no further function, wait for the running ones, and raise the failure.
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
                except Exception as problem:  # noqa: BLE001  (raised below, once all have finished)
                    failures.append(problem)

        await asyncio.gather(*(worker() for _ in range(min(most, len(works)))))
        if failures:
            raise failures[0]
        return [results[at] for at in range(len(works))]

    async def _fetch_token(self, credential: Credential, refused: str, attempts: _Attempts) -> str:
        try:
            return await credential.token(refused, attempts.deadline)
        except NoResponse as problem:
            raise NoResponse(
                problem.sentence, problem.remedy, outcome_unknown=attempts.outcome_unknown
            ) from None

    async def _request_with_retries(self, request: Request, token: str, attempts: _Attempts) -> HttpResponse:
        import stamina

        loop = asyncio.get_running_loop()
        deadline = attempts.deadline
        last = "it gave no answer in time"

        def again(problem: Exception) -> bool | float:
            nonlocal last
            if not isinstance(problem, _Retryable):
                return False
            attempts.outcome_unknown, last = attempts.outcome_unknown or problem.outcome_unknown, problem.why
            if problem.outcome_unknown and not request.repeatable:
                return False
            if problem.wait is None:
                return loop.time() < deadline
            # the random part prevents clients that were rejected together from returning together
            wait = problem.wait + random.random() * limits.RETRY_JITTER_SECONDS  # noqa: S311
            return wait if loop.time() + wait < deadline else False

        with suppress(_Retryable):
            async for attempt in stamina.retry_context(
                on=again,
                attempts=limits.CALL_TRIES,
                timeout=max(0.01, deadline - loop.time()),
                wait_initial=limits.RETRY_FIRST_SECONDS,
                wait_jitter=limits.RETRY_JITTER_SECONDS,
            ):
                with attempt:
                    return await self._try(request, token, deadline)
        how = "gave no usable answer" if attempts.outcome_unknown else "cannot be reached"
        remedy = "Try again in a while."
        if not self._answered:
            remedy = "Check that it runs, and portal: url: in provisioner.yaml. Then try again."
        if attempts.outcome_unknown and not self._answered and self.server.startswith("http://"):
            remedy += " If it speaks TLS, its address begins with https://."
        raise NoResponse(
            f"{self.server} {how}: {last}.", remedy, outcome_unknown=attempts.outcome_unknown
        ) from None

    async def _try(self, request: Request, token: str, deadline: float) -> HttpResponse:
        import anyio
        import httpx2

        # the timeout of the whole attempt; connecting has a shorter one, because cancelling it leaks a socket
        seconds = max(0.01, min(limits.REPLY_SECONDS, deadline - asyncio.get_running_loop().time()))
        try:
            with self._traced(request) as done, anyio.fail_after(seconds):
                reply = await self._send(self._build_request(request, token, seconds))
                done.result = str(reply.status)
                done.size = f"{len(request.content):,} B sent, {len(reply.content):,} B received"
        except TimeoutError:
            raise _Retryable(
                f"no whole reply within {limits.REPLY_SECONDS:g} seconds", outcome_unknown=True
            ) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as problem:
            raise self._connection_error(problem) from None
        except (httpx2.TransportError, OSError) as problem:
            raise _Retryable(self._cause_text(problem), outcome_unknown=True) from None
        self._require_answer(reply)
        self._answered = True
        return reply

    def _require_answer(self, reply: HttpResponse) -> None:
        if reply.status in _BUSY:
            pause = reply.retry_after()
            asks = f" and asks to be left alone for {pause:g} seconds" if pause else ""
            why = f"it is busy (HTTP {reply.status}){asks}"
            raise _Retryable(why, outcome_unknown=reply.status != _TOO_MANY, wait=pause)
        if reply.status in _NO_ANSWER:
            raise _Retryable(f"{_NO_ANSWER[reply.status]} (HTTP {reply.status})", outcome_unknown=True)
        if 300 <= reply.status < 400 and reply.status != 304:
            raise self._redirect_error(reply)

    def _traced(self, request: Request) -> AbstractContextManager[Exchange]:
        """Return a context manager that records one attempt in the trace, without the values of the query."""
        what = f"{request.method} {self.address}{without_query_values(request.path)}"
        return exchange(self._kind, self.redacted(what))

    def _build_request(self, request: Request, token: str, seconds: float) -> httpx2.Request:
        import httpx2

        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"provisioner/{__version__}",
            **request.headers,
        }
        if token:
            # checked here because the error message of httpx2 would contain the token
            if not re.fullmatch(r"[!-~]+", token):
                raise PortalError("The portal's token has characters that no token has.", "Check the secret.")
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.Request(
            request.method,
            self.address + request.path,
            headers=headers,
            content=request.content or None,
            extensions={"timeout": {"connect": seconds * _CONNECT_SHARE}},
        )

    async def _send(self, asked: httpx2.Request) -> HttpResponse:
        async with aclosing(await self._transport.handle_async_request(asked)) as response:
            headers = {name.lower(): text for name, text in response.headers.items()}
            coding = headers.get("content-encoding", "identity").strip().lower()
            if coding != "identity":
                raise invalid_response(
                    self.server, f"it is packed ({self.redacted(coding)[:20]}), which was not asked for"
                )
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > limits.MAX_REPLY_BYTES:
                    raise ResponseTooLarge(
                        f"{self.server} gave a reply that is longer than {limits.MAX_REPLY_BYTES:,} bytes."
                    )
        return HttpResponse(response.status_code, headers, bytes(content), self.server)

    # --- errors ---

    def _connection_error(self, problem: Exception) -> Exception:
        import httpx2

        for cause in _causes(problem):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return PortalError(
                    f"{self.server} cannot prove who it is: {cause.verify_message.rstrip('.')}. "
                    "Nothing was sent.",
                    "If its certificate comes from an authority of your own, name that: "
                    "portal: {ca_file: FILE}",
                )
            # an SSLError with another number only means that the handshake was interrupted
            if isinstance(cause, ssl.SSLError) and cause.errno in (ssl.SSL_ERROR_SSL, ssl.SSL_ERROR_EOF):
                reason = cause.reason or cause.strerror
                return PortalError(
                    f"{self.server} does not speak TLS as it should ({reason}). Nothing was sent.",
                    "Check the host and the port of portal: url:",
                )
            if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                return PortalError(
                    f"There is no server {urlsplit(self.server).hostname}.", "Check portal: url:"
                )
        if isinstance(problem, httpx2.ProxyError):
            return PortalError(
                f"The proxy {self._proxy} does not lead to {self.server}: {self.redacted(problem)}.",
                "Check portal: proxy:",
            )
        return _Retryable(self._cause_text(problem), outcome_unknown=False)

    def _cause_text(self, problem: Exception) -> str:
        """Return the cause of a failure, without httpx2's text, because that text may contain the request."""
        import httpx2

        for cause in _causes(problem):
            if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
                return os.strerror(cause.errno)
        if isinstance(problem, httpx2.ProtocolError):
            return "its reply breaks off or is not HTTP"
        return "the connection broke"

    def _redirect_error(self, reply: HttpResponse) -> PortalError:
        named = ""
        with suppress(ValueError):
            where = urlsplit(self.redacted(reply.headers.get("location", "")))
            named = f"{where.scheme}://{where.netloc}{where.path}" if where.netloc else where.path
        return PortalError(
            f"{self.server} sends us on to {named or 'nowhere'}. Nothing was sent there.",
            "If that is the portal's address, write it under portal: url:",
        )

    # --- thread, loop and connections ---

    async def _close_connections(self) -> None:
        left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if left:
            # tasks get a moment to finish, because httpcore2 leaks a connection whose connecting is cancelled
            _, left = await asyncio.wait(left, timeout=_GRACE_SECONDS)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # closing a broken connection may raise an exception
        with suppress(Exception):
            await self._transport.aclose()
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _open_transport(self, scheme: str) -> httpx2.AsyncBaseTransport:
        import httpx2
        from stamina.instrumentation import set_on_retry_hooks

        # no hooks, because stamina logs retries by default
        set_on_retry_hooks(())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._ca_file is not None:
            self._trust(context, self._ca_file)
        elif scheme == "https":
            context = httpx2.create_ssl_context(trust_env=False)
        proxy = None
        if self._proxy:
            tls = context if self._proxy.startswith("https:") else None
            proxy = httpx2.Proxy(self._proxy, ssl_context=tls)
        # two more connections than parallel steps, because the lease is renewed while steps are in progress
        most = self._connections + 2
        return httpx2.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            proxy=proxy,
            limits=httpx2.Limits(
                max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEEPALIVE_SECONDS
            ),
        )

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
    causes: list[BaseException] = []
    while problem is not None and problem not in causes:
        causes.append(problem)
        if isinstance(problem, BaseExceptionGroup):
            causes.extend(problem.exceptions)
        problem = problem.__cause__ or problem.__context__
    return causes
