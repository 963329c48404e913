"""Rules over all manifests together. Each yields what it finds and decides nothing.

They need no portal: with one, ``known_companies`` turns a doubt about a dossier into an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, TypeAlias

from provisioner.diagnostics import Diagnostic, Severity, error, in_source_order, plural, warning
from provisioner.manifest.declared import Activation, Declared, DeclaredUser
from provisioner.manifest.fields import near_dossier
from provisioner.model import UserType, company_address, email_key, user_address

if TYPE_CHECKING:
    from provisioner.manifest.models import WorkspaceFile

GENERIC = frozenset({
    "accueil", "achat", "achats", "admin", "administratif", "administration", "administrateur", "agence",
    "assistance", "atelier", "boite", "bonjour", "boutique", "bureau", "cabinet", "caisse", "client",
    "clients", "commande", "commandes", "commercial", "communication", "compta", "comptabilite",
    "comptable", "contact", "contacts", "devis", "direction", "drh", "ecole", "email", "equipe", "factu",
    "factures", "facturation", "facture", "finance", "finances", "fournisseurs", "gerance", "gestion",
    "hello", "hotel", "info", "information", "informations", "infos", "juridique", "logistique", "magasin",
    "mail", "mairie", "marketing", "noreply", "office", "paie", "paye", "planning", "postmaster",
    "presidence", "production", "reception", "recrutement", "reservation", "reservations", "restaurant",
    "rh", "sav", "secretaire", "secretariat", "service", "services", "siege", "social", "standard",
    "support", "syndic", "technique", "tresorerie", "vente", "ventes", "webmaster",
})  # fmt: skip
"""First words of addresses that belong to nobody in particular (S1)."""


def check(
    declared: Declared, settings: WorkspaceFile, known_companies: Collection[str] | None = None
) -> list[Diagnostic]:
    """All that the rules find, in source order. ``known_companies``: the portal's, where it was asked."""
    found = [problem for rule in RULES for problem in rule(declared, settings)]
    found.extend(unknown_companies(declared, known_companies))
    return in_source_order(found)


def repeated_emails(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """R1: an e-mail is declared once. R4: nobody is billed to two companies."""
    for user in declared.remainder.users:
        key = email_key(user.email)
        first = declared.users[key]
        if user.billed == first.billed:
            yield error(
                "R1",
                f"{user.email} is declared already at {first.source}, for {_full_name(first)}.",
                "Keep one of the two, or give each person an address of his own.",
                user.source,
                str(user_address(key)),
            )
        else:
            yield error(
                "R4",
                f"{user.email}, billed to {user.billed} here, is billed to {first.billed} at {first.source}.",
                "A user is billed to one company. Keep him in one manifest and give him the other dossier "
                f'there, companies: ["{user.billed}"] or ["{first.billed}"].',
                user.source,
                str(user_address(key)),
            )


def former_addresses(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """A former address is nobody's address now, and one person's only: it says which account is meant."""
    claims: dict[str, DeclaredUser] = {}
    for user in declared.users.values():
        if user.previous_key is None:
            continue
        other = declared.users.get(user.previous_key) or claims.setdefault(user.previous_key, user)
        if other is not user:
            yield error(
                "ambiguous-user",
                f"{user.email} was declared as {user.previous_key}, says previous_email; "
                f"{other.email} at {other.source} claims that same account.",
                "Remove previous_email here, or the other declaration.",
                user.source,
                str(user_address(email_key(user.email))),
            )
        elif user.previous_key == email_key(user.email):
            yield warning(
                "wrong-value",
                f"The previous_email of {user.email} is his address of today.",
                "Remove previous_email.",
                user.source,
                str(user_address(email_key(user.email))),
            )


def repeated_dossiers(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """R13: a dossier number is declared once."""
    for company in declared.remainder.companies:
        first = declared.companies[company.number]
        yield error(
            "R13",
            f"Dossier {company.number}, {company.name} here, is declared already at {first.source}, "
            f"as {first.name}.",
            "Put all its users into one manifest, or correct the number.",
            company.source,
            str(company_address(company.number)),
        )


def firm_addresses(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """R1: the firm's staff have accounts of their own. R14: so have all addresses at its mail domains.

    A domain below one of these is likely the firm's too, which is for the firm to say: a warning.
    """
    staff, domains = settings.terms.staff, settings.terms.email_domains
    for key, user in declared.users.items():
        if key in staff:
            yield error(
                "R1",
                f"{user.email} belongs to a member of the firm's staff.",
                "Give the client's own address; firm: staff: in provisioner.yaml lists the firm's.",
                user.source,
                str(user_address(key)),
            )
        domain = key.rpartition("@")[2]
        if domain in domains:
            yield error(
                "R14",
                f"{user.email} is an address of the firm itself ({domain}).",
                "Give the client's own address; firm: email_domains: in provisioner.yaml lists the firm's.",
                user.source,
                str(user_address(key)),
            )
        elif domains and (above := _domain_above(domain, domains)):
            yield warning(
                "R14",
                f"{user.email} is at {domain}, which lies below the firm's own domain {above}.",
                "If that is the firm's too, add it to firm: email_domains: in provisioner.yaml.",
                user.source,
                str(user_address(key)),
            )


def generic_addresses(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """S1: a person's address rather than one that several people read."""
    severity = Severity.ERROR if settings.safety.generic_addresses == "error" else Severity.WARNING
    for key, user in declared.users.items():
        word = _FIRST_WORD.match(key)
        if word is not None and word[0] in GENERIC:
            yield Diagnostic(
                severity,
                "S1",
                f"{user.email} is nobody's in particular: whoever reads that mailbox gets "
                f"{_full_name(user)}'s access.",
                "Give the person's own address.",
                user.source,
                str(user_address(key)),
            )


def administrators(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """R2: of the open users billed to a company one is an administrator. A billed company has users."""
    people: dict[str, list[DeclaredUser]] = {number: [] for number in declared.companies}
    for user in declared.users.values():
        if not user.closed:
            people.setdefault(user.billed, []).append(user)
    # a second declaration is told as such, and still counts where it stands
    for user in declared.remainder.users:
        if not user.closed:
            people.setdefault(user.billed, []).append(user)
    for number, company in declared.companies.items():
        if number in declared.remainder.incomplete:
            continue
        users, title = people[number], f"{company.name} ({number})"
        chiefs = [user for user in users if user.type is UserType.ADMINISTRATOR]
        if not users:
            if company.billing is not None:
                yield warning(
                    "no-user",
                    f"{title} is billed, and no open user is billed to it.",
                    "Add a user, or leave billing: out until there is one.",
                    company.source,
                    str(company_address(number)),
                )
        elif not chiefs:
            yield error(
                "R2",
                f"{title} has {_count(users)} billed to it and no open administrator among them.",
                "Write type: administrator for one of them.",
                company.source,
                str(company_address(number)),
            )
        elif all(user.activation is Activation.LATER for user in chiefs):
            yield warning(
                "pending-administrator",
                f"{title} has {_listed(chiefs)} as administrator, with activation: later; until somebody "
                "validates the account, no administrator of this company can log in.",
                "Write activation: immediate for one administrator, or have the account validated.",
                company.source,
                str(company_address(number)),
            )


def unknown_companies(
    declared: Declared, known_companies: Collection[str] | None = None
) -> Iterator[Diagnostic]:
    """Access is given to dossiers that exist: in a manifest, or in the portal if that was asked."""
    if declared.remainder.unread:
        return
    for mention in declared.remainder.mentions:
        number, email = mention.number, mention.email
        address = str(user_address(email_key(email)))
        if known_companies is None:
            yield warning(
                "unknown-company",
                f'{email} is given dossier "{number}", which no manifest declares; plan will ask the portal '
                f"whether it has it.{near_dossier(number, declared.companies)}",
                "If the portal does not have it either, declare the company, or correct the number.",
                mention.source,
                address,
            )
        elif number not in known_companies:
            hint = near_dossier(number, declared.companies) or near_dossier(number, known_companies)
            yield error(
                "unknown-company",
                f'{email} is given dossier "{number}", which neither the manifests nor the portal have.'
                f"{hint}",
                "Declare the company in a manifest, or correct the number.\n"
                "To see the companies that this portal has, run:\n"
                "    provisioner export FOLDER",
                mention.source,
                address,
            )


Rule: TypeAlias = "Callable[[Declared, WorkspaceFile], Iterator[Diagnostic]]"

RULES: tuple[Rule, ...] = (
    repeated_emails,
    former_addresses,
    repeated_dossiers,
    firm_addresses,
    generic_addresses,
    administrators,
)
"""Unknown companies come beside these: they alone look at the portal."""

_FIRST_WORD = re.compile("[a-z]+")


def _domain_above(domain: str, domains: Collection[str]) -> str:
    """The firm's domain below which this one lies, or nothing."""
    while (dot := domain.find(".")) >= 0:
        domain = domain[dot + 1 :]
        if domain in domains:
            return domain
    return ""


def _full_name(user: DeclaredUser) -> str:
    return f"{user.first_name} {user.last_name}"


def _count(users: Collection[DeclaredUser]) -> str:
    return f"{len(users)} {plural(len(users), 'user')}"


def _listed(users: Collection[DeclaredUser]) -> str:
    names = [_full_name(user) for user in users]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
