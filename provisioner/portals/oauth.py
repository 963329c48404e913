"""The HTTP client of a portal, and the bearer tokens: a fixed token, or tokens fetched with OAuth 2.0."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from urllib.parse import quote_plus, urlencode

from typing_extensions import override

from provisioner.errors import PortalError
from provisioner.portal import Access
from provisioner.portals.http import Credential, HttpClient
from provisioner.portals.http_messages import HttpResponse, NoResponse, Request, invalid_response

USUAL_SECONDS = 300
"""The lifetime in seconds of a token, if the response with the token does not contain ``expires_in``."""

MARGIN_SECONDS = 30.0
"""A token is renewed this number of seconds before it expires. If a tenth of the token's lifetime is shorter
than this, the token is renewed only a tenth of its lifetime before it expires."""

_WHERE = "Set PROVISIONER_PORTAL_CLIENT and PROVISIONER_PORTAL_SECRET, or portal: client_id: and secret_env:."

_CHECK = (
    "Check the client and its secret, in PROVISIONER_PORTAL_CLIENT and PROVISIONER_PORTAL_SECRET, or where "
    "portal: client_id:, secret_env: and secret_file: say; the client may be disabled."
)


def open_http_client(access: Access, address: str, *, kind: str = "http") -> HttpClient:
    """Create the HTTP client for the portal at ``address``. Raises :class:`PortalError`.

    ``kind`` is the protocol that the trace names for the requests: ``http`` or ``scim``.
    """
    return HttpClient(
        address,
        ca_file=access.root / access.ca_file if access.ca_file else None,
        proxy=access.proxy,
        connections=max(1, access.parallelism),
        secrets=(access.secret,),
        kind=kind,
    )


class BearerToken(Credential):
    """A source that always returns the same bearer token."""

    def __init__(self, token: str) -> None:
        self._token = token

    @override
    async def token(self, refused: str, deadline: float) -> str:
        return self._token


class ClientCredentials(Credential):
    """A source of OAuth 2.0 tokens (client credentials, RFC 6749, 4.4). A token is renewed before it expires.

    If several requests need a new token at the same time, only the first request fetches the token. If the
    token cannot be fetched, the waiting requests fail with the same error.
    """

    def __init__(
        self, web: HttpClient, path: str, client_id: str, secret: str, scopes: Sequence[str]
    ) -> None:
        self._http = web
        self._path = path
        self._scopes = tuple(scopes)
        words = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        self._basic = base64.b64encode(words.encode()).decode()
        for hidden in (secret, quote_plus(secret), self._basic):
            web.redact(hidden)
        self._token = ""
        self._renew_at = 0.0
        self._fetching = asyncio.Lock()
        self._failures = 0
        self._failure: PortalError | None = None

    @override
    async def token(self, refused: str, deadline: float) -> str:
        failures = self._failures
        try:
            async with asyncio.timeout_at(deadline):
                await self._fetching.acquire()
        except TimeoutError:
            raise NoResponse(
                f"{self._http.server} gave no token in time.", "Try again in a while.", outcome_unknown=False
            ) from None
        try:
            now = asyncio.get_running_loop().time()
            if not self._token or self._token == refused or now >= self._renew_at:
                if self._failure is not None and self._failures > failures:
                    # the fetch that this request waited for has failed, so another fetch would fail too
                    raise self._failure
                await self._fetch(deadline)
            return self._token
        finally:
            self._fetching.release()

    async def _fetch(self, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        headers = {
            "Authorization": f"Basic {self._basic}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        said = urlencode({"grant_type": "client_credentials", "scope": " ".join(self._scopes)})
        request = Request("POST", self._path, headers, said.encode())
        try:
            self._token, seconds = self._read(await self._http.request(request, deadline=deadline))
        except PortalError as problem:
            self._failures, self._failure = self._failures + 1, problem
            raise
        self._renew_at = now + seconds - min(MARGIN_SECONDS, seconds / 10)

    def _read(self, reply: HttpResponse) -> tuple[str, float]:
        if reply.status != 200:
            raise self._refusal(reply)
        answer = reply.json()
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not token or not isinstance(token, str):
            raise invalid_response(reply.server, "it holds no access_token")
        self._http.redact(token)
        if str(answer.get("token_type", "")).lower() != "bearer":
            raise invalid_response(reply.server, "its access token is not of the type Bearer")
        seconds = answer.get("expires_in", USUAL_SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
            raise invalid_response(reply.server, "its access token lasts no number of seconds")
        granted = answer.get("scope", " ".join(self._scopes))
        if not isinstance(granted, str) or not set(self._scopes) <= set(granted.split()):
            raise self._short_of_scopes()
        return token, float(seconds)

    def _refusal(self, reply: HttpResponse) -> PortalError:
        try:
            answer = reply.json()
        except PortalError:
            answer = None
        code = answer.get("error") if isinstance(answer, dict) else None
        if code == "invalid_scope":
            return self._short_of_scopes()
        if code in ("invalid_client", "unauthorized_client") or reply.status == 401:
            return PortalError(f"{reply.server} does not know this client, or its secret is wrong.", _CHECK)
        if reply.status == 404:
            return PortalError(
                f"{reply.server} gives out no tokens at {self._path}.",
                "Check portal: url: in provisioner.yaml, which ends before /v1, and paths: token: there.",
            )
        said = self._http.redacted(code) if isinstance(code, str) else "no reason given"
        return PortalError(f"{reply.server} refuses to log us in (HTTP {reply.status}, {said}).", _CHECK)

    def _short_of_scopes(self) -> PortalError:
        return missing_scope(self._http.server, self._scopes[-1])


def missing_scope(server: str, scope: str) -> PortalError:
    """Return the error for an OAuth client of ``server`` that does not have the necessary ``scope``."""
    return PortalError(
        f"This client of {server} has not the scope {scope}, so nothing was written.",
        "Use a client that has it: PROVISIONER_PORTAL_CLIENT and PROVISIONER_PORTAL_SECRET say which.",
    )


def rejected_token(server: str, said: str, *, given: bool) -> PortalError:
    """Return the error for a token that ``server`` rejects; ``said`` is the server's explanation. ``given``
    is True if the token is the configured secret itself, and not a token fetched with that secret.
    """
    if given:
        return PortalError(
            f"{server} does not take the secret, which was sent as a token since no client is named: {said}",
            "Set PROVISIONER_PORTAL_CLIENT as well, or portal: client_id:.",
        )
    return PortalError(f"{server} does not take our token: {said}", _CHECK)


def no_secret() -> PortalError:
    """Return the error for a portal that needs a secret, if no secret is configured."""
    return PortalError("The portal asks who we are, and no secret is named.", _WHERE)
