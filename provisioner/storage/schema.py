"""What a database holds: the noun users read, its tables, and the marks by which a program recognises it.

The statements are the same for every database. They are written for SQLite;
:mod:`provisioner.storage.postgres_connection` translates the few words that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.errors import UPGRADE_HINT, ProvisionerError


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

    def require_readable(self, name: object, version: int) -> None:
        """Refuse the database ``name`` if a newer program wrote it. Raises :attr:`error`."""
        if version > self.version:
            raise self.error(
                f"The {self.noun} {name} was written by a newer version of this program.", UPGRADE_HINT
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
