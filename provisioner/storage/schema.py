"""The description of a database: its tables, its name in messages, and the numbers that identify its layout.

The SQL statements are written for SQLite. For PostgreSQL, :mod:`provisioner.storage.postgres_connection`
translates the few words that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.errors import UPGRADE_HINT, ProvisionerError

FINGERPRINT = "tables"
"""The name under which the table ``fact`` stores the fingerprint of all tables."""


@dataclass(frozen=True, slots=True)
class DatabaseSchema:
    """The tables of a database, and the exception for its errors. A table must be ``fact (name, value)``."""

    noun: str
    """The word for this database in messages to users: *ledger* or *portal*."""
    application_id: int
    version: int
    """The number of the current layout. A database with a higher number is refused."""
    tables: str
    """The statements that create the tables, separated by semicolons."""
    error: type[ProvisionerError]
    migrations: tuple[str, ...] = ()
    """The scripts that migrate a database by one version each; the first migrates version 1 to version 2."""

    @property
    def fingerprint(self) -> str:
        """A hash of the statements in :attr:`tables`. Differences in white space do not change the hash."""
        return hashlib.sha256(" ".join(self.tables.split()).encode()).hexdigest()[:16]

    def require_readable(self, name: object, version: int, fingerprint: str | None) -> None:
        """Raise :attr:`error` if this program cannot read the layout of the database ``name``. In addition to
        ``version``, compare ``fingerprint``, because unreleased changes of a layout keep the version number.
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
        """Return the error for an attempt to open the database ``name``, which does not exist."""
        return self.error(
            f"There is no {self.noun} {name}.",
            f"Check the {self.noun}'s url; to make a new {self.noun}: provisioner apply",
        )

    def damaged(self, name: object) -> ProvisionerError:
        """Return the error for the database ``name`` with content that no version of this program writes."""
        return self.error(f"The {self.noun} {name} is damaged.", "Restore it from a backup.")


def statements(script: str) -> Iterator[str]:
    """Return the statements of a script, one by one."""
    return (statement for statement in script.split(";") if statement.strip())
