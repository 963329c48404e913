"""API clients and their access tokens. The portal's database stores only digests of secrets and tokens.

A secret or token is 32 random bytes, so a fast digest is as safe as a slow one. The database is shared by all
services of the portal. Therefore all services accept a token, also after a restart, and all services refuse a
disabled client. A log-in changes neither the change counter nor the stamp of the portal.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import UsageError
from provisioner.model import Operator

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiClient:
    """An API client: a program that can log in to the service, with its role and scopes."""

    id: str
    name: str
    role: Operator
    scopes: frozenset[str]
    created: str
    disabled: str | None = None


@dataclass(frozen=True, slots=True)
class ClientSession:
    """The rights that a valid access token gives: its API client, role and scopes."""

    client: str
    """The id of the API client."""
    role: Operator
    scopes: frozenset[str]
    expires: int
    """The time at which the token expires, in seconds since 1970."""


class ApiClients:
    """The API clients and access tokens that the database of one portal stores."""

    def __init__(self, portal: SqlPortal) -> None:
        self._portal = portal

    def add(self, name: str, role: Operator, scopes: frozenset[str], now: datetime) -> tuple[ApiClient, str]:
        """Create an API client. Return the client and its secret. Only the digest of the secret is stored.
        Raises :class:`UsageError` if another client has this name.
        """
        client = ApiClient(f"c_{secrets.token_hex(8)}", name, role, scopes, now.isoformat(timespec="seconds"))
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._portal.write_transaction() as connection:
            if connection.execute("SELECT 1 FROM api_client WHERE name = ?", (name,)).fetchone():
                raise UsageError(
                    f"There is a client called {name} already.",
                    f"Choose another name, or disable that one first: provisioner api-client disable {name}",
                )
            connection.execute(
                "INSERT INTO api_client (id, name, secret_hash, role, scopes, created) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (client.id, name, digest(secret), str(role), _joined(scopes), client.created),
            )
        return client, secret

    def all(self) -> list[ApiClient]:
        """Return all API clients, including disabled clients, sorted by name."""
        with self._portal.read_transaction() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM api_client ORDER BY name").fetchall()
        return [_client(row) for row in rows]

    def disable(self, name: str, now: datetime) -> None:
        """Disable the API client whose name or id is ``name``, and free its name for a new client. Raises
        :class:`UsageError` if no client has this name or id.
        """
        with self._portal.write_transaction() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM api_client WHERE name = ? OR id = ?", (name, name)
            ).fetchone()
            if row is None:
                raise UsageError(
                    f"There is no client called {name}.", "To see them: provisioner api-client list"
                )
            client = _client(row)
            if client.disabled is None:
                day = now.isoformat(timespec="seconds")
                connection.execute(
                    "UPDATE api_client SET disabled = ?, name = ? WHERE id = ?",
                    (day, f"{client.name} ({client.id})", client.id),
                )
            connection.execute("DELETE FROM api_token WHERE client = ?", (client.id,))

    def log_in(self, client_id: str, secret: str) -> ApiClient | None:
        """Return the API client with this id and secret; None if they are wrong or the client is disabled."""
        with self._portal.read_transaction() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS}, secret_hash FROM api_client WHERE id = ?", (client_id,)
            ).fetchone()
        # compare also for an unknown client: otherwise the response time would show that it is unknown
        known = hmac.compare_digest(digest(secret), row[-1] if row else digest(""))
        if row is None or not known:
            return None
        client = _client(row)
        return client if client.disabled is None else None

    def issue(self, client: ApiClient, scopes: frozenset[str], now: datetime, seconds: int) -> str:
        """Store and return a new access token, valid for ``seconds``. Also delete all expired tokens."""
        token = secrets.token_urlsafe(SECRET_BYTES)
        instant = int(now.timestamp())
        with self._portal.write_transaction() as connection:
            connection.execute("DELETE FROM api_token WHERE expires <= ?", (instant,))
            connection.execute(
                "INSERT INTO api_token (hash, client, scopes, expires) VALUES (?, ?, ?, ?)",
                (digest(token), client.id, _joined(scopes), instant + seconds),
            )
        return token

    def session(self, token_hash: str) -> ClientSession | None:
        """Return the session of the token with this digest, even if the token has expired. Return None if
        there is no such token or its client is disabled.
        """
        with self._portal.read_transaction() as connection:
            row = connection.execute(
                "SELECT c.id, c.role, t.scopes, t.expires FROM api_token t "
                "JOIN api_client c ON c.id = t.client WHERE t.hash = ? AND c.disabled IS NULL",
                (token_hash,),
            ).fetchone()
        return (
            ClientSession(row[0], Operator(row[1]), frozenset(row[2].split()), int(row[3])) if row else None
        )


_COLUMNS = "id, name, role, scopes, created, disabled"


def _client(row: Any) -> ApiClient:
    return ApiClient(row[0], row[1], Operator(row[2]), frozenset(row[3].split()), row[4], row[5])


def _joined(scopes: frozenset[str]) -> str:
    return " ".join(sorted(scopes))


def digest(secret: str) -> str:
    """Return the SHA-256 digest of a secret or token, which the database stores instead of the secret."""
    return sha256(secret.encode()).hexdigest()
