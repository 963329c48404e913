"""Activation links: derived when a letter is sent, known by their hash alone, good once.

A link is made of the user, a generation and an end, signed with a key of the portal, so that whoever
sends the letter a second time sends the same link. Another generation revokes the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

INVITATION_DAYS = 30
"""How long an activation link works."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is kept of a user's link; generation 0 before the first."""

    user_id: str
    generation: int = 0
    expires: int = 0
    """In seconds since 1970."""
    hashed: str = ""


def invite(known: Invitation, secret: bytes, now: int) -> tuple[str, Invitation]:
    """The token of this user's link, and what to keep of it: a new generation where the last has ended."""
    renewed = known.expires <= now
    later = now + int(timedelta(days=INVITATION_DAYS).total_seconds())
    words = (known.user_id, known.generation + renewed, later if renewed else known.expires)
    token = _token(secret, *words)
    return token, Invitation(*words, hash_of(token))


def hash_of(link: str) -> str:
    """What is kept of a link, or of its last part, the token."""
    from hashlib import sha256

    return sha256(link.rstrip("/").rpartition("/")[2].encode()).hexdigest()


def _token(secret: bytes, user_id: str, generation: int, expires: int) -> str:
    import hmac

    # joined by what no spam filter takes for the end of a word, or an id may read as an account number there
    words = f"{user_id}_{generation}_{expires}"
    return f"{words}_{hmac.digest(secret, words.encode(), 'sha256').hex()[:40]}"
