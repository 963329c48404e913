"""Activation links: derived when a letter is sent, stored only as a hash, usable once.

A link consists of the user, a generation and an expiry, signed with a key of the portal, so that a letter
that is sent again carries the same link. A new generation revokes the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

INVITATION_DAYS = 30
"""How long an activation link works."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the portal stores of a user's link; generation 0 before the first."""

    user_id: str
    generation: int = 0
    expires: int = 0
    """In seconds since 1970."""
    hashed: str = ""


def invite(before: Invitation, secret: bytes, now: int) -> tuple[str, Invitation]:
    """The token of this user's link, and what to store of it: a new generation if the last has expired."""
    renewed = before.expires <= now
    later = now + int(timedelta(days=INVITATION_DAYS).total_seconds())
    parts = (before.user_id, before.generation + renewed, later if renewed else before.expires)
    token = _token(secret, *parts)
    return token, Invitation(*parts, hash_of(token))


def hash_of(link: str) -> str:
    """The hash under which a link, or its last part, the token, is stored."""
    from hashlib import sha256

    return sha256(link.rstrip("/").rpartition("/")[2].encode()).hexdigest()


def _token(secret: bytes, user_id: str, generation: int, expires: int) -> str:
    import hmac

    # spam filters do not end a word at an underscore, so they do not take an id for an account number
    signed = f"{user_id}_{generation}_{expires}"
    return f"{signed}_{hmac.digest(secret, signed.encode(), 'sha256').hex()[:40]}"
