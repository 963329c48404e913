"""The states of a letter in the outbox, and the legal transitions between them.

owed ─▶ connecting ─▶ body ─▶ sent
  ▲         │           ├──▶ failed
  └─────────┴───────────┤
                        └──▶ unknown
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class OutboxState(StrEnum):
    """How far a letter got. The values are stored in the ledger."""

    OWED = "owed"
    """Not sent yet."""
    CONNECTING = "connecting"
    """A run has it in hand; nothing of it has left, so a later run may send it."""
    BODY = "body"
    """Its body is being sent; if the run ends here, whether it was accepted is not known."""
    SENT = "sent"
    """The mail server accepted it."""
    FAILED = "failed"
    """Refused for good."""
    UNKNOWN = "unknown"
    """It may or may not have been accepted; a person decides."""


TRANSITIONS: Mapping[OutboxState, frozenset[OutboxState]] = {
    OutboxState.OWED: frozenset({OutboxState.CONNECTING}),
    OutboxState.CONNECTING: frozenset(
        {OutboxState.OWED, OutboxState.BODY, OutboxState.SENT, OutboxState.FAILED, OutboxState.UNKNOWN}
    ),
    OutboxState.BODY: frozenset(
        {OutboxState.OWED, OutboxState.SENT, OutboxState.FAILED, OutboxState.UNKNOWN}
    ),
    OutboxState.SENT: frozenset(),
    OutboxState.FAILED: frozenset({OutboxState.OWED}),
    OutboxState.UNKNOWN: frozenset({OutboxState.OWED, OutboxState.SENT}),
}


class IllegalTransition(Exception):
    """A defect of the program: it moved a letter to a state that its present one does not lead to."""

    def __init__(self, key: str, before: OutboxState | None, after: OutboxState) -> None:
        super().__init__(f"letter {key}: {before or 'not in the outbox'} ▸ {after}")


def require_transition(key: str, before: OutboxState | None, after: OutboxState) -> None:
    """Raise :class:`IllegalTransition` unless a letter may go from one state to the other."""
    if before is None or after not in TRANSITIONS[before]:
        raise IllegalTransition(key, before, after)
