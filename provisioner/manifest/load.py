"""From documents to what is declared: each read once, in passing, and let go.

What can be said of one manifest alone is said here, where its positions are at hand: words that the
catalogue does not have, the production trio among the applications (R3), a type that nobody gives. What takes
all manifests together is for check.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.manifest.declared import (
    CompanyReference,
    Conflicts,
    Declared,
    DeclaredCompany,
    DeclaredUser,
    FixedSource,
)
from provisioner.manifest.fields import did_you_mean, is_production
from provisioner.manifest.quoting_lint import missing_quotes
from provisioner.manifest.settings import CheckSettings, Preset
from provisioner.manifest.validate import Validated, read_model
from provisioner.model import Billing, Production, UserType, company_address, email_key, user_address
from provisioner.yaml_source.document import Document, digest_of

if TYPE_CHECKING:
    from provisioner.manifest import models


def load(
    documents: Iterable[Document], settings: CheckSettings, *, digests: bool = True
) -> tuple[Declared, list[Diagnostic]]:
    """Everything that the manifests declare, and every problem that one of them shows by itself.

    Takes a stream: no document is kept. Faults hide nothing beside them: what they leave usable is
    declared, for the checks to see, and the errors keep anybody from planning it.
    """
    hall = _Hall(settings, digests)
    for document in documents:
        hall.admit(document)
    return hall.declared(), hall.problems


def app_problem(whose: str, app: str, apps: Collection[str], source: Source, address: str = "") -> Diagnostic:
    """An application that is not in the catalogue, or that is one of the production trio (R3)."""
    if is_production(app):
        return error(
            "R3",
            f'{whose} has "{app}" among apps; production applications come as one whole trio.',
            "Write production: full or production: consultation instead.",
            source,
            address,
        )
    return error(
        "unknown-app",
        f'{whose} has "{app}", which the catalogue does not have.{did_you_mean(app, apps)}',
        _choice("apps", apps),
        source,
        address,
    )


class _Hall:
    """Where manifests come in one by one."""

    def __init__(self, settings: CheckSettings, digests: bool) -> None:
        self._digesting = digests
        self.problems: list[Diagnostic] = []
        self._settings = settings
        self._companies: dict[str, DeclaredCompany] = {}
        self._users: dict[str, DeclaredUser] = {}
        self._digests: dict[str, str] = {}
        self._more_users: list[DeclaredUser] = []
        self._more_companies: list[DeclaredCompany] = []
        self._mentions: list[CompanyReference] = []
        self._incomplete: set[str] = set()
        self._unread = False
        self._sets: dict[tuple[str, ...], frozenset[str]] = {}
        self._told_mentions: set[tuple[str, Source]] = set()

    def admit(self, document: Document) -> None:
        """Read one manifest."""
        self._digests[document.file] = digest_of(document.data) if self._digesting else ""
        reading = read_model("client", document)
        self.problems.extend(reading.problems)
        self.problems.extend(missing_quotes(document))
        if reading.model is None:
            self._unread = True
            return
        number = reading.model.company.number
        if reading.lost:
            self._incomplete.add(number)
        self._company(document, reading.model)
        self._people(document, reading, number)

    def declared(self) -> Declared:
        """What was read, once everything was."""
        mentions = tuple(mention for mention in self._mentions if mention.number not in self._companies)
        return Declared(
            self._companies,
            self._users,
            self._digests,
            Conflicts(
                tuple(self._more_users),
                tuple(self._more_companies),
                mentions,
                frozenset(self._incomplete),
                self._unread,
            ),
        )

    # --- companies ---

    def _company(self, document: Document, manifest: models.ClientManifest) -> None:
        entry, billing = manifest.company, manifest.billing
        company = DeclaredCompany(
            entry.number,
            entry.name,
            entry.siren,
            Billing(billing.mode, billing.offer) if billing is not None else None,
            document.places,
        )
        if self._companies.setdefault(entry.number, company) is not company:
            self._more_companies.append(company)
        if billing is not None and billing.offer not in self._settings.terms.offers:
            self.problems.append(self._unknown_offer(document, billing.offer, entry.number))

    def _unknown_offer(self, document: Document, offer: str, number: str) -> Diagnostic:
        offers = self._settings.terms.offers
        return error(
            "unknown-offer",
            f'Dossier {number} has the offer "{offer}", which the catalogue does not have.'
            f"{did_you_mean(offer, offers)}",
            _choice("offers", offers),
            document.source("billing", "offer"),
            str(company_address(number)),
        )

    # --- users ---

    def _people(self, document: Document, reading: Validated[models.ClientManifest], number: str) -> None:
        assert reading.model is not None
        users = self._users
        for at, entry in zip(reading.users, reading.model.users, strict=True):
            preset = self._preset(document, at, entry)
            below = preset or self._settings.defaults
            type_, production = entry.type or below.type, entry.production or below.production
            if type_ is None or production is None:
                # declared all the same, as the least there is, so that what else is wrong is told
                self._incomplete.add(number)
                if preset is not None and at not in reading.faulty:
                    self.problems.extend(self._untyped(document, at, entry, preset))
            removal, welcome = entry.removal, entry.welcome_email
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
                below.apps if entry.apps is None else self._apps(document, at, entry.email, entry.apps),
                below.immediate_removal if removal is None else removal == "immediate",
                entry.activation or below.activation,
                below.welcome if welcome is None else welcome,
                entry.language or below.language,
                entry.status == "closed",
                document.places,
                at,
            )
            if users.setdefault(email_key(user.email), user) is not user:
                self._more_users.append(user)

    def _preset(self, document: Document, at: int, entry: models.User) -> Preset | None:
        """The user's profile, or the defaults alone; None for a profile that does not exist."""
        if entry.profile is None:
            return self._settings.defaults
        profiles = self._settings.profiles
        if entry.profile not in profiles:
            self.problems.append(
                error(
                    "unknown-profile",
                    f'{entry.email} has the profile "{entry.profile}", which the catalogue does not have.'
                    f"{did_you_mean(entry.profile, profiles)}",
                    _choice("profiles", profiles),
                    document.source("users", at, "profile"),
                    str(user_address(email_key(entry.email))),
                )
            )
            return None
        return profiles[entry.profile]

    def _untyped(
        self, document: Document, at: int, entry: models.User, preset: Preset
    ) -> Iterator[Diagnostic]:
        silent = f'nor the profile "{entry.profile}" ' if entry.profile is not None else ""
        for key, choices in (("type", UserType), ("production", Production)):
            if getattr(entry, key) is None and getattr(preset, key) is None:
                yield error(
                    "missing-key",
                    f"{entry.email} has no {key}: neither this entry {silent}nor defaults: gives one.",
                    f"Add {key}: {' or '.join(choices)}, or a profile: that has it.",
                    document.source("users", at, "email"),
                    str(user_address(email_key(entry.email))),
                )

    def _folders(
        self, document: Document, at: int, entry: models.User, number: str, preset: Preset
    ) -> frozenset[str] | None:
        """The dossiers he sees, the billed one with them (R5); None: unmanaged."""
        if entry.companies is None:
            if preset.companies is None:
                return None
            for other in preset.companies:
                self._mention(other, entry.email, preset)
            return self._shared((*sorted(preset.companies), number))
        for position, other in enumerate(entry.companies):
            if other not in self._companies:
                path = ("users", at, "companies", position)
                self._mentions.append(CompanyReference(other, entry.email, document.places, path))
        return self._shared((*entry.companies, number))

    def _mention(self, number: str, email: str, preset: Preset) -> None:
        """A dossier that a profile gives is told once, however many have that profile."""
        source = preset.sources[number]
        if (number, source) not in self._told_mentions:
            self._told_mentions.add((number, source))
            self._mentions.append(CompanyReference(number, email, FixedSource(source)))

    def _apps(self, document: Document, at: int, email: str, apps: tuple[str, ...]) -> frozenset[str]:
        """The applications are those of the catalogue (A9), and none of the production trio (R3)."""
        wanted = self._shared(apps)
        if not wanted <= self._settings.terms.apps:
            address = str(user_address(email_key(email)))
            for position, app in enumerate(apps):
                if app not in self._settings.terms.apps:
                    source = document.source("users", at, "apps", position)
                    self.problems.append(app_problem(email, app, self._settings.terms.apps, source, address))
        return wanted

    def _shared(self, names: tuple[str, ...]) -> frozenset[str]:
        """One set for all users with the same list: they are many, the lists are few."""
        found = self._sets.get(names)
        if found is None:
            found = self._sets[names] = frozenset(names)
        return found


def _choice(what: str, words: Iterable[str]) -> str:
    known = ", ".join(sorted(words))
    if not known:
        return f"Add it under catalogue: {what}: in provisioner.yaml, which has none."
    return f"The {what} are: {known}. Correct the name, or add it under catalogue: in provisioner.yaml."
