"""Converts documents into declarations, and reports the problems of each manifest.

Such problems are an invalid structure, an unknown profile or a user without a type. The checks of all
manifests together are in :mod:`provisioner.manifest.check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from provisioner.diagnostics import Diagnostic, error, warning
from provisioner.manifest.declared import (
    Activation,
    CompanyReference,
    Declared,
    DeclaredCompany,
    DeclaredUser,
)
from provisioner.manifest.models import ClientManifest, Preset, UserConfig, WorkspaceFile
from provisioner.manifest.profiles import Profiles
from provisioner.manifest.validate import Validated, read_model
from provisioner.model import Billing, Production, UserType, email_key, user_address
from provisioner.rules import choice
from provisioner.spelling import did_you_mean
from provisioner.yaml_source.document import Document, Positions, digest_of

_TEXT_FIELDS: frozenset[tuple[str, ...]] = frozenset({
    ("company", "number"), ("company", "name"), ("company", "siren"), ("billing", "offer"),
    ("users", "[]", "phone"), ("users", "[]", "last_name"), ("users", "[]", "first_name"),
    ("users", "[]", "profile"), ("users", "[]", "companies", "[]"), ("users", "[]", "apps", "[]"),
})  # fmt: skip
"""The paths of the fields that contain text; ``[]`` stands for any index of a list."""


def load(
    documents: Iterable[Document],
    settings: WorkspaceFile,
    settings_positions: Positions,
    *,
    digests: bool = True,
) -> tuple[Declared, list[Diagnostic]]:
    """Return everything that the manifests declare, and the problems of each manifest.

    ``settings_positions`` are the positions in provisioner.yaml. If ``digests`` is False, no digests of the
    documents are computed. The valid part of an invalid document is returned too, so that the checks can find
    further problems. No plan is made in this case, because the problems contain the document's errors.
    """
    loader = _Loader(settings, settings_positions, digests)
    for document in documents:
        loader.add(document)
    return loader.declared(), loader.problems


class _Loader:
    def __init__(self, settings: WorkspaceFile, settings_positions: Positions, digests: bool) -> None:
        self._digesting = digests
        self.problems: list[Diagnostic] = []
        self._settings_positions = settings_positions
        self._profiles = Profiles(settings)
        self._companies: dict[str, DeclaredCompany] = {}
        self._users: dict[str, DeclaredUser] = {}
        self._digests: dict[str, str] = {}
        self._more_users: list[DeclaredUser] = []
        self._more_companies: list[DeclaredCompany] = []
        self._references: list[CompanyReference] = []
        self._incomplete: set[str] = set()
        self._unread = False
        self._inherited: set[tuple[str | int, ...]] = set()

    def add(self, document: Document) -> None:
        self._digests[document.positions.file] = digest_of(document.data) if self._digesting else ""
        reading = read_model(ClientManifest, document)
        self.problems.extend(reading.problems)
        self.problems.extend(_missing_quotes(document))
        if reading.model is None:
            self._unread = True
            return
        number = reading.model.company.number
        if reading.lost:
            self._incomplete.add(number)
        self._company(document, reading.model)
        self._people(document, reading, number)

    def declared(self) -> Declared:
        undeclared = (reference for reference in self._references if reference.number not in self._companies)
        return Declared(
            self._companies,
            self._users,
            self._digests,
            tuple(self._more_companies),
            tuple(self._more_users),
            tuple(undeclared),
            frozenset(self._incomplete),
            self._unread,
        )

    # --- companies ---

    def _company(self, document: Document, manifest: ClientManifest) -> None:
        entry, billing = manifest.company, manifest.billing
        company = DeclaredCompany(
            entry.number,
            entry.name,
            entry.siren,
            Billing(billing.mode, billing.offer) if billing is not None else None,
            document.positions,
        )
        if self._companies.setdefault(entry.number, company) is not company:
            self._more_companies.append(company)

    # --- users ---

    def _people(self, document: Document, reading: Validated[ClientManifest], number: str) -> None:
        assert reading.model is not None
        users = self._users
        for at, entry in zip(reading.users, reading.model.users, strict=True):
            preset = self._preset(document, at, entry)
            below = preset or self._profiles.defaults
            type_, production = entry.type or below.type, entry.production or below.production
            if type_ is None or production is None:
                # the user is declared anyway, with minimal rights, so that the checks find further problems
                self._incomplete.add(number)
                if preset is not None and at not in reading.faulty:
                    self.problems.extend(self._untyped(document, at, entry, preset))
            welcome = entry.welcome_email
            user = DeclaredUser(
                entry.email,
                email_key(entry.previous_email) if entry.previous_email is not None else None,
                entry.first_name,
                entry.last_name,
                entry.phone,
                entry.phone is not None or "phone" in entry.model_fields_set,
                type_ or UserType.STANDARD,
                production or Production.CONSULTATION,
                number,
                self._folders(document, at, entry, number, below),
                below.apps if entry.apps is None else entry.apps,
                (entry.removal or below.removal) == "immediate",
                entry.activation or below.activation or Activation.IMMEDIATE,
                (below.welcome_email if welcome is None else welcome) is True,
                entry.language or below.language or "fr",
                entry.status == "closed",
                document.positions,
                at,
            )
            if users.setdefault(email_key(user.email), user) is not user:
                self._more_users.append(user)

    def _preset(self, document: Document, at: int, entry: UserConfig) -> Preset | None:
        """Return the user's profile (``defaults:`` if none is named), or None if the profile is unknown."""
        if entry.profile is None:
            return self._profiles.defaults
        profiles = self._profiles.by_name
        if entry.profile not in profiles:
            self.problems.append(
                error(
                    "unknown-profile",
                    f'{entry.email} has the profile "{entry.profile}", which the catalogue does not have.'
                    f"{did_you_mean(entry.profile, profiles)}",
                    choice("profiles", profiles),
                    document.positions.source("users", at, "profile"),
                    str(user_address(email_key(entry.email))),
                )
            )
            return None
        return profiles[entry.profile]

    def _untyped(
        self, document: Document, at: int, entry: UserConfig, preset: Preset
    ) -> Iterator[Diagnostic]:
        silent = f'nor the profile "{entry.profile}" ' if entry.profile is not None else ""
        for key, choices in (("type", UserType), ("production", Production)):
            if getattr(entry, key) is None and getattr(preset, key) is None:
                yield error(
                    "missing-key",
                    f"{entry.email} has no {key}: neither this entry {silent}nor defaults: gives one.",
                    f"Add {key}: {' or '.join(choices)}, or a profile: that has it.",
                    document.positions.source("users", at, "email"),
                    str(user_address(email_key(entry.email))),
                )

    def _folders(
        self, document: Document, at: int, entry: UserConfig, number: str, preset: Preset
    ) -> frozenset[str] | None:
        """Return all dossier numbers of the user, also the billed one (R5), or None if they are unmanaged."""
        if entry.companies is None:
            if preset.companies is None:
                return None
            for position, other in enumerate(preset.companies):
                self._refer(other, entry, position)
            return _dossiers((*preset.companies, number))
        for position, other in enumerate(entry.companies):
            if other not in self._companies:
                path = ("users", at, "companies", position)
                self._references.append(CompanyReference(other, entry.email, document.positions, path))
        return _dossiers((*entry.companies, number))

    def _refer(self, number: str, entry: UserConfig, position: int) -> None:
        """Record the dossier reference at ``position`` of an inherited list, if it is not recorded yet."""
        path = self._profiles.company_path(entry.profile, position)
        if path not in self._inherited:
            self._inherited.add(path)
            self._references.append(CompanyReference(number, entry.email, self._settings_positions, path))


@lru_cache(maxsize=4096)
def _dossiers(numbers: tuple[str, ...]) -> frozenset[str]:
    return frozenset(numbers)


def _missing_quotes(document: Document) -> Iterator[Diagnostic]:
    """Yield a ``quote-it`` warning for each unquoted text that looks like a number, a date or a boolean.

    Another YAML tool that rewrites the file may drop the leading zeros of an unquoted ``004217``.
    """
    for path, text, offset in document.unquoted:
        if tuple("[]" if isinstance(part, int) else part for part in path) in _TEXT_FIELDS:
            key = next(part for part in reversed(path) if isinstance(part, str))
            yield warning(
                "quote-it",
                f"{key}: {text} lacks its quotes. It is read as this very text here, but an editor sees "
                "a number, a date or a yes there.",
                f'Write "{text}", within quotes.',
                document.positions.at(offset),
            )
