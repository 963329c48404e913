"""Activation links. Each link can be used only once. The portal stores only the hash of a link.

A link is computed each time that its letter is sent. It consists of the user's id, a generation number and an
expiry time, signed with a key of the portal. These values are stored, so a letter that is sent again contains
the same link. A new generation revokes the previous link.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

INVITATION_DAYS = 30
"""The number of days for which an activation link is valid."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """The data that the portal stores about a user's activation link. Generation 0 means no link yet."""

    user_id: str
    generation: int = 0
    expires: int = 0
    """The time at which the link expires, in seconds since 1970."""
    hashed: str = ""


def invite(before: Invitation, secret: bytes, now: int) -> tuple[str, Invitation]:
    """Return the token of a user's activation link, and the data to store about the link.

    ``before`` is the data stored so far. If its link has expired, the new link gets a new generation.
    ``secret`` is the portal's key. ``now`` is the time in seconds since 1970.
    """
    renewed = before.expires <= now
    later = now + int(timedelta(days=INVITATION_DAYS).total_seconds())
    parts = (before.user_id, before.generation + renewed, later if renewed else before.expires)
    token = _token(secret, *parts)
    return token, Invitation(*parts, hash_of(token))


def hash_of(link: str) -> str:
    """Return the hash under which a link is stored; ``link`` is the whole link, or only its token."""
    from hashlib import sha256

    return sha256(link.rstrip("/").rpartition("/")[2].encode()).hexdigest()


def _token(secret: bytes, user_id: str, generation: int, expires: int) -> str:
    import hmac

    # join with underscores: spam filters see one word then, and do not take the id for an account number
    signed = f"{user_id}_{generation}_{expires}"
    return f"{signed}_{hmac.digest(secret, signed.encode(), 'sha256').hex()[:40]}"
