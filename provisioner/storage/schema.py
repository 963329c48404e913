"""What a database holds: the noun users read, its tables, and the marks by which a program recognises it.

The statements are the same for every database. They are written for SQLite;
:mod:`provisioner.storage.postgres_connection` translates the few words that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.errors import UPGRADE_HINT, ProvisionerError

FINGERPRINT = "tables"
"""The fact that holds the fingerprint of the tables a database was made with."""


@dataclass(frozen=True, slots=True)
class DatabaseSchema:
    """The tables of one kind of database, among them ``fact (name, value)``, and the error to raise."""

    noun: str
    """What users call it: *ledger* or *portal*."""
    application_id: int
    version: int
    """The number of the layout; a database with a higher one is refused."""
    tables: str
    """The statements that make the tables, separated by semicolons."""
    error: type[ProvisionerError]
    migrations: tuple[str, ...] = ()
    """Statements that lead from one version to the next, the first of them from version 1 to 2."""

    @property
    def fingerprint(self) -> str:
        """A value that differs between any two sets of tables, whatever their white space."""
        return hashlib.sha256(" ".join(self.tables.split()).encode()).hexdigest()[:16]

    def require_readable(self, name: object, version: int, fingerprint: str | None) -> None:
        """Refuse the database ``name`` if its tables are not those of a layout this program knows.

        Until a layout is released it may change without a new number, so the number alone does not
        tell which tables a database has. Raises :attr:`error`.
        """
        if fingerprint is not None and version > self.version:
            raise self.error(
                f"The {self.noun} {name} was written by a newer version of this program.", UPGRADE_HINT
            )
        if fingerprint is None or (version == self.version and fingerprint != self.fingerprint):
            raise self.error(
                f"The {self.noun} {name} was made by an unreleased version of this program, whose tables "
                "this version does not read.",
                "Export what you need with the version that made it (provisioner export FOLDER), remove it, "
                "then run the same command again.",
            )

    def missing(self, name: object) -> ProvisionerError:
        """The error for a database that is opened and does not exist."""
        return self.error(f"There is no {self.noun} {name}.", f"Check the {self.noun}'s url.")

    def damaged(self, name: object) -> ProvisionerError:
        """The error for a database whose content no version of this program writes."""
        return self.error(f"The {self.noun} {name} is damaged.", "Restore it from a backup.")


def statements(script: str) -> Iterator[str]:
    """The single statements of a script."""
    return (statement for statement in script.split(";") if statement.strip())
