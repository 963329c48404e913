"""The token endpoint, where API clients log in: OAuth 2.0 client credentials (RFC 6749, 4.4)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote_plus

from starlette.responses import Response

from provisioner.embedded.server.api_clients import ApiClient, ApiClients
from provisioner.embedded.server.problem_details import Problem
from provisioner.embedded.server.request_body import read_form
from provisioner.embedded.server.routes import SCOPES
from provisioner.embedded.server.service import Service

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

FORM = "application/x-www-form-urlencoded"


class OAuthError(Exception):
    """An error response of the token endpoint (RFC 6749, 5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status

    @property
    def reply(self) -> Response:
        """The HTTP response that reports this error."""
        body = json.dumps({"error": self.error, "error_description": self.description})
        challenge = {"WWW-Authenticate": 'Basic realm="provisioner", charset="UTF-8"'}
        headers = {**NO_STORE, **(challenge if self.status == 401 else {})}
        return Response(body, self.status, headers, "application/json")


async def issue_token(
    service: Service,
    headers: Mapping[str, str],
    content: bytes,
    seconds: int,
    limit: Callable[[str], None],
) -> tuple[Response, str]:
    """Return the response with a new token that is valid for ``seconds``, and the id of the API client.

    ``headers`` and ``content`` are those of the request. ``limit`` is called with the id of the authenticated
    client, and raises an error if the client logs in too often. Raises :class:`OAuthError` for a refusal.
    """
    form = _form(headers, content)
    client = await _authenticated_client(service, headers, form)
    limit(client.id)
    scopes = _requested_scopes(form, client)
    token = await service.issue(client, scopes, seconds)
    answer = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": " ".join(sorted(scopes)),
    }
    return Response(json.dumps(answer), 200, NO_STORE, "application/json"), client.id


def _form(headers: Mapping[str, str], content: bytes) -> Mapping[str, str]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"The body is not of the type {FORM}.")
    try:
        # drop empty fields, because an empty field counts as absent (RFC 6749, 3.2)
        return {name: value for name, value in read_form(content, "form").items() if value}
    except Problem as problem:
        raise OAuthError("invalid_request", problem.detail) from None


async def _authenticated_client(
    service: Service, headers: Mapping[str, str], form: Mapping[str, str]
) -> ApiClient:
    client_id, secret = _credentials(headers.get("authorization"), form)
    if re.fullmatch("[!-~]{1,100}", client_id) is None:
        raise OAuthError("invalid_client", "There is no such client, or the secret is wrong.", 401)
    grant = form.get("grant_type", "")
    if not grant:
        raise OAuthError("invalid_request", "grant_type is missing.")
    if grant != "client_credentials":
        raise OAuthError("unsupported_grant_type", "Only client_credentials are taken here.")
    client = await service.read(lambda portal: ApiClients(portal).log_in(client_id, secret))
    if client is None:
        raise OAuthError("invalid_client", "There is no such client, or the secret is wrong.", 401)
    return client


def _requested_scopes(form: Mapping[str, str], client: ApiClient) -> frozenset[str]:
    if not form.get("scope", "").strip():
        return client.scopes
    requested = frozenset(form["scope"].split())
    if not requested <= SCOPES.keys():
        raise OAuthError("invalid_scope", f"The scopes are {' and '.join(SCOPES)}.")
    if not requested <= client.scopes:
        raise OAuthError("invalid_scope", "This client has not all of these scopes.")
    return requested


def _credentials(authorization: str | None, form: Mapping[str, str]) -> tuple[str, str]:
    if authorization is None and "client_id" in form:
        return form["client_id"], form.get("client_secret", "")
    if authorization is not None and ("client_id" in form or "client_secret" in form):
        raise OAuthError("invalid_request", "Credentials come either by HTTP Basic or in the form.")
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError(
            "invalid_client", "Log in with HTTP Basic, or with client_id and client_secret.", 401
        )
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise OAuthError("invalid_client", "The credentials are malformed.", 401) from None
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)
