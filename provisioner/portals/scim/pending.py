"""The announcement that is stored on a user while a step that needs several writes is unfinished."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from provisioner.model import Status, User, UserType
from provisioner.planning.codec import parse_json, reader, writer
from provisioner.portal import Call


@dataclass(frozen=True, slots=True)
class Pending:
    """The changes that an unfinished step must still make to a user. "" or None means no change."""

    key: str
    ledger: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    status: Status | None = None
    billed: str = ""
    type: UserType | None = None
    created: bool = False
    """True if the first write of the step created the account."""

    def to_json(self) -> str:
        """Return the announcement as the JSON text that the server stores."""
        return writer(Pending)(self)

    def apply_to(self, user: User, waiting: Status = Status.TO_VALIDATE) -> User:
        """Return ``user`` with the remaining changes of the step. Other changes made meanwhile are preserved.

        The status is changed only if the user still has the status ``waiting``, which a new account has
        until the last write of the step that creates the account.
        """
        companies = (user.companies | set(self.add)) - set(self.remove)
        status = user.status
        if self.status is not None and status is waiting:
            status = self.status
        return replace(
            user,
            companies=companies,
            status=status,
            billed=self.billed or user.billed,
            type=self.type or user.type,
        )


def parse_pending(written: Any) -> Pending | None:
    """Parse a text that :meth:`Pending.to_json` has made. Return None for every other value."""
    try:
        found: Pending | None = reader(Pending)(parse_json(written)) if isinstance(written, str) else None
    except ValueError:
        return None
    return found


def pending_for(call: Call, ledger: str, before: User | None, wanted: User) -> Pending:
    """Return the changes that the step of ``call`` has yet to make after its first write. ``before`` is the
    user before the step (None for a new user), and ``wanted`` the user after the step.
    """
    was = before.companies if before else frozenset()
    return Pending(
        call.key,
        ledger,
        add=tuple(sorted(wanted.companies - was, key=lambda number: (number != wanted.billed, number))),
        remove=tuple(sorted(was - wanted.companies)),
        status=wanted.status if before is None and wanted.status is not Status.TO_VALIDATE else None,
        billed=wanted.billed if before is None or before.billed != wanted.billed else "",
        type=wanted.type if before is not None and before.type is not wanted.type else None,
        created=before is None,
    )
