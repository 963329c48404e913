"""The checks of all manifests together. Each check yields diagnostics and does not stop the run.

One check applies the rules of :mod:`provisioner.rules` and adds source positions to the violations. The
other checks find problems that these rules do not cover, such as repeated declarations, addresses of shared
mailboxes, and dossiers that neither a manifest nor the portal has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from provisioner.diagnostics import Diagnostic, Severity, Source, error, in_source_order, warning
from provisioner.manifest.declared import Activation, Declared, DeclaredUser
from provisioner.model import UserType, company_address, email_key, user_address
from provisioner.rules import COMPANY_RULES, USER_RULES, StateIndex, app_violations, offer_known
from provisioner.spelling import near_dossier

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
"""The words with which the e-mail addresses of shared mailboxes begin (S1)."""


def check(
    declared: Declared, settings: WorkspaceFile, known_companies: Collection[str] | None = None
) -> list[Diagnostic]:
    """Return the problems that all checks find, in source order.

    ``known_companies`` are the dossier numbers on the portal, or None if the portal was not read.
    """
    found = [problem for check in CHECKS for problem in check(declared, settings)]
    found.extend(unknown_companies(declared, known_companies))
    return in_source_order(found)


def broken_rules(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield the violations of R1 (staff addresses), R2, R3, R14 and A9 (catalogue) in the declared state.

    R2 is not checked for a company whose manifest has an invalid user.
    """
    terms = settings.terms
    index = StateIndex(declared.state(), terms)
    for number, company in declared.companies.items():
        for company_rule in COMPANY_RULES:
            path = ("billing", "offer") if company_rule is offer_known else ("company", "number")
            for violation in company_rule(index.companies[number], terms):
                yield replace(violation, source=company.positions.source(*path))
        if number not in declared.incomplete:
            for violation in index.missing_administrator(number):
                yield replace(violation, source=company.source)
    for key, user in declared.users.items():
        account = index.users[key]
        for app, violation in app_violations(key, account, terms):
            yield replace(violation, source=_app_source(user, app))
        for user_rule in USER_RULES:
            for violation in user_rule(key, account, terms):
                yield replace(violation, source=user.source)


def repeated_emails(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield an error for each repeated e-mail: R4 if the users are billed to different companies, else R1."""
    for user in declared.repeated_users:
        key = email_key(user.email)
        first = declared.users[key]
        if user.billed == first.billed:
            yield error(
                "R1",
                f"{user.email} is declared already at {first.source}, for {_full_name(first)}.",
                "Keep one of the two, or give each person an address of their own.",
                user.source,
                str(user_address(key)),
                first.source,
            )
        else:
            yield error(
                "R4",
                f"{user.email}, billed to {user.billed} here, is billed to {first.billed} at {first.source}.",
                "A user is billed to one company. Keep the user in one manifest and give them the other "
                f'dossier there, companies: ["{user.billed}"] or ["{first.billed}"].',
                user.source,
                str(user_address(key)),
                first.source,
            )


def former_addresses(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield an error for each ``previous_email`` that is also another user's e-mail or ``previous_email``.

    Yield a warning for each ``previous_email`` that is the same user's present e-mail.
    """
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
                other.source,
            )
        elif user.previous_key == email_key(user.email):
            yield warning(
                "wrong-value",
                f"The previous_email of {user.email} is the address of today.",
                "Remove previous_email.",
                user.source,
                str(user_address(email_key(user.email))),
            )


def repeated_dossiers(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield an error for each company whose dossier number is already declared (R13)."""
    for company in declared.repeated_companies:
        first = declared.companies[company.number]
        yield error(
            "R13",
            f"Dossier {company.number}, {company.name} here, is declared already at {first.source}, "
            f"as {first.name}.",
            "Put all its users into one manifest, or correct the number.",
            company.source,
            str(company_address(company.number)),
            first.source,
        )


def domains_below(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield a warning for each user with an address in a subdomain of a mail domain of the firm (R14)."""
    own = settings.terms.email_domains
    for key, user in declared.users.items() if own else ():
        domain = key.rpartition("@")[2]
        if domain not in own and (above := _domain_above(domain, own)):
            yield warning(
                "R14",
                f"{user.email} is at {domain}, which lies below the firm's own domain {above}.",
                "If that is the firm's too, add it to firm: email_domains: in provisioner.yaml.",
                user.source,
                str(user_address(key)),
            )


def generic_addresses(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each e-mail of a shared mailbox (S1), with the severity set in ``safety:``."""
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


def companies_without_access(declared: Declared, settings: WorkspaceFile) -> Iterator[Diagnostic]:
    """Yield a warning (R2) for each company that declares ``billing:`` but to which no open user is billed.

    Yield a warning also for each company whose administrators must all be validated before they can log in.
    Companies whose manifest has an invalid user are not checked.
    """
    billed: dict[str, list[DeclaredUser]] = {}
    for user in (*declared.users.values(), *declared.repeated_users):
        if not user.closed:
            billed.setdefault(user.billed, []).append(user)
    for number, company in declared.companies.items():
        if number in declared.incomplete:
            continue
        title = f"{company.name} ({number})"
        users = billed.get(number, [])
        administrators = [user for user in users if user.type is UserType.ADMINISTRATOR]
        if not users and company.billing is not None:
            yield warning(
                "no-user",
                f"{title} is billed, and no open user is billed to it.",
                "Add a user, or leave billing: out until there is one.",
                company.source,
                str(company_address(number)),
            )
        elif administrators and all(user.activation is Activation.LATER for user in administrators):
            yield warning(
                "pending-administrator",
                f"{title} has {_listed(administrators)} as administrator, with activation: later; until "
                "somebody validates the account, no administrator of this company can log in.",
                "Write activation: immediate for one administrator, or have the account validated.",
                company.source,
                str(company_address(number)),
            )


def unknown_companies(
    declared: Declared, known_companies: Collection[str] | None = None
) -> Iterator[Diagnostic]:
    """Yield an error for each reference to a dossier that neither a manifest nor the portal has.

    If ``known_companies`` is None, yield a warning for each reference to a dossier that no manifest has.
    Yield nothing if the dossier number of at least one manifest is unknown because the manifest is invalid.
    """
    if declared.unread:
        return
    for reference in declared.undeclared:
        number, email = reference.number, reference.email
        address = str(user_address(email_key(email)))
        if known_companies is None:
            yield warning(
                "unknown-company",
                f'{email} is given dossier "{number}", which no manifest declares; plan will ask the portal '
                f"whether it has it.{near_dossier(number, declared.companies)}",
                "If the portal does not have it either, declare the company, or correct the number.",
                reference.source,
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
                reference.source,
                address,
            )


Check: TypeAlias = "Callable[[Declared, WorkspaceFile], Iterator[Diagnostic]]"

CHECKS: tuple[Check, ...] = (
    repeated_emails,
    former_addresses,
    repeated_dossiers,
    broken_rules,
    domains_below,
    generic_addresses,
    companies_without_access,
)
"""All checks except :func:`unknown_companies`, the only one that needs the portal."""

_FIRST_WORD = re.compile("[a-z]+")


def _app_source(user: DeclaredUser, app: str) -> Source:
    return user.positions.source("users", user.at, "apps", (user.apps or ()).index(app))


@lru_cache(maxsize=4096)
def _domain_above(domain: str, domains: frozenset[str]) -> str:
    """Return the member of ``domains`` that has ``domain`` as a subdomain, or "" if there is none."""
    while (dot := domain.find(".")) >= 0:
        domain = domain[dot + 1 :]
        if domain in domains:
            return domain
    return ""


def _full_name(user: DeclaredUser) -> str:
    return f"{user.first_name} {user.last_name}"


def _listed(users: Collection[DeclaredUser]) -> str:
    names = [_full_name(user) for user in users]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
