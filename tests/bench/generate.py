"""A workspace of any size, the same at every call: about five and a half users a company."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

FIRST_NAMES = (
    "Claire", "Julien", "Samira", "Inès", "Hélène", "Théo", "Anaïs", "Bruno", "Chloé", "Damien", "Émilie",
    "François", "Gaëlle", "Hugo", "Isabelle", "Jérôme", "Karim", "Léa", "Mathis", "Noémie", "Océane", "Paul",
)  # fmt: skip
LAST_NAMES = (
    "Martin", "Bernard", "Lefèvre", "Benali", "Moreau", "Girard", "Faure", "Roussel", "Haddad", "Nguyen",
    "Le Goff", "de la Tour", "Dubois", "Arnaud", "Caron", "Lambert", "Masson", "Noël", "Périer", "Vidal",
)  # fmt: skip
TRADES = (
    "Boulangerie", "Garage", "Pharmacie", "Menuiserie", "Crêperie", "Cabinet", "Atelier", "SCI", "Holding",
    "Librairie", "Fromagerie", "Transports", "Maçonnerie", "Fleuriste", "Imprimerie", "Hôtel",
)  # fmt: skip
APPS = ("Documents", "Scan", "Achats", "Image")

SETTINGS = """\
version: 1
firm: {{name: Cabinet Durand & Associés, language: fr, email_domains: [durand-associes.fr]}}
manifests: [clients/]
catalogue: {{offers: [Essentiel, Confort], apps: [Documents, Scan, Achats, Image]}}
portal: {{url: "sqlite:///portal.db", operator: partner, public_url: "https://portail.durand-associes.fr"}}
ledger: {{url: "sqlite:///ledger.db"}}
mail:
  transport: "{transport}"
  from: "Cabinet Durand <acces@durand-associes.fr>"
  welcome: {welcome}
{mail}"""


def write_settings(
    folder: Path, *, welcome: str = "none", transport: str = "maildir:outbox", mail: str = ""
) -> None:
    """provisioner.yaml alone; ``mail`` has further lines of its ``mail:``."""
    text = SETTINGS.format(welcome=welcome, transport=transport, mail=mail)
    (folder / "provisioner.yaml").write_text(text, encoding="utf-8")


def write_manifests(folder: Path, users: int) -> int:
    """The manifests of this many users; returns how many files they are."""
    chance = random.Random(20261124)  # the same firm at every call
    left, number = users, 0
    while left > 0:
        # 4, 5, 6, 7 in turn
        size = min(left, 4 + number % 4)
        path = folder / "clients" / f"{number // 100:03}" / f"{number:06}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(_manifest(number, size, chance)) + "\n", encoding="utf-8")
        left -= size
        number += 1
    return number


def _manifest(number: int, size: int, chance: random.Random) -> Iterator[str]:
    name = f"{chance.choice(TRADES)} {chance.choice(LAST_NAMES)} {chance.choice(('SARL', 'SAS', 'EURL'))}"
    yield "company:"
    yield f'  number: "{number:06}"'
    yield f"  name: {name}"
    yield f'  siren: "{_siren(number)}"'
    mode, offer = chance.choice(("client", "firm")), chance.choice(("Essentiel", "Confort"))
    yield f"billing: {{mode: {mode}, offer: {offer}}}"
    yield "users:"
    for position in range(size):
        first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
        yield f"  - email: user{position}@client{number:06}.example.fr"
        yield f"    first_name: {first}"
        yield f"    last_name: {last}"
        if chance.random() < 0.7:
            digits = f"{chance.randrange(10_000):04}"
            yield f'    phone: "+33 1 99 00 {digits[:2]} {digits[2:]}"'
        yield f"    type: {'standard' if position else 'administrator'}"
        yield f"    production: {chance.choice(('full', 'full', 'consultation'))}"
        yield f"    apps: [{', '.join(app for app in APPS if chance.random() < 0.5)}]"
        if position == 0 and number and chance.random() < 0.2:
            yield f'    companies: ["{chance.randrange(number):06}"]'


def _siren(number: int) -> str:
    """Nine digits with a valid Luhn sum."""
    digits = f"8{number:07}"
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    total = sum(value - 9 if value > 9 else value for value in doubled)
    return f"{digits}{-total % 10}"
