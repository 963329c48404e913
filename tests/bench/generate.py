"""Generates a workspace of any size, with the same content at every call. A company has about 5.5 users.

The names come from a dozen languages. A third of the manifests writes its texts plain, a third in double
quotes and a third in single quotes. ``PENDING`` is the share of users that wait for validation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

NAMES = (
    # first names and last names of one language a line
    (("Claire", "Hélène", "Théo", "François", "Gaëlle"), ("Martin", "Lefèvre", "Le Goff", "Noël", "Périer")),
    (("Jürgen", "Käthe", "Götz"), ("Müller", "Weiß", "Schröder")),
    (("Małgorzata", "Łukasz", "Zbigniew"), ("Wójcik", "Kowalczyk", "Dąbrowska")),
    (("Jiří", "Kateřina", "Zdeněk"), ("Dvořák", "Nováková", "Černý")),
    (("İbrahim", "Şule", "Çağrı"), ("Yılmaz", "Öztürk", "Doğan")),
    (("Ștefan", "Ioana", "Mădălina"), ("Popescu", "Țurcanu", "Brânză")),
    (("Γιώργος", "Ελένη", "Νίκος"), ("Παπαδόπουλος", "Οικονόμου", "Καραμανλής")),
    (("Наталья", "Дмитрий", "Юлия"), ("Иванова", "Кузнецов", "Шевченко")),
    (("محمد", "فاطمة", "سميرة"), ("بن علي", "حداد", "المنصوري")),
    (("דוד", "שרה", "יעל"), ("לוי", "כהן", "מזרחי")),
    (("伟", "小红", "建国"), ("王", "李", "欧阳")),
    (("さくら", "健太", "ユキ"), ("佐藤", "鈴木", "高橋")),
    (("Thị Hạnh", "Quốc Đạt", "Mỹ Linh"), ("Nguyễn", "Trần", "Đặng")),
)  # fmt: skip
PENDING = 0.08
"""The share of users that are created pending (``activation: later``) and are never activated."""
QUOTES = ("", '"', "'")
"""What stands around the texts of a manifest. One manifest has one kind."""
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
    """Write provisioner.yaml with these mail settings. ``mail`` contains more lines of the mail section."""
    text = SETTINGS.format(welcome=welcome, transport=transport, mail=mail)
    (folder / "provisioner.yaml").write_text(text, encoding="utf-8")


def write_manifests(folder: Path, users: int) -> int:
    """Write the manifests for this number of users. Return the number of files."""
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
    quote = chance.choice(QUOTES)

    def text(value: str) -> str:
        return f"{quote}{value}{quote}"

    owner = chance.choice(chance.choice(NAMES)[1])
    name = f"{chance.choice(TRADES)} {owner} {chance.choice(('SARL', 'SAS', 'EURL'))}"
    yield "company:"
    yield f'  number: "{number:06}"'
    yield f"  name: {text(name)}"
    yield f'  siren: "{_siren(number)}"'
    mode, offer = chance.choice(("client", "firm")), chance.choice(("Essentiel", "Confort"))
    yield f"billing: {{mode: {text(mode)}, offer: {text(offer)}}}"
    yield "users:"
    for position in range(size):
        language = chance.choice(NAMES)
        first, last = chance.choice(language[0]), chance.choice(language[1])
        yield f"  - email: {text(f'user{position}@client{number:06}.example.fr')}"
        yield f"    first_name: {text(first)}"
        yield f"    last_name: {text(last)}"
        if chance.random() < 0.7:
            digits = f"{chance.randrange(10_000):04}"
            yield f'    phone: "+33 1 99 00 {digits[:2]} {digits[2:]}"'
        yield f"    type: {text('standard' if position else 'administrator')}"
        yield f"    production: {text(chance.choice(('full', 'full', 'consultation')))}"
        if chance.random() < PENDING:
            yield "    activation: later"
        yield f"    apps: [{', '.join(text(app) for app in APPS if chance.random() < 0.5)}]"
        if position == 0 and number and chance.random() < 0.2:
            yield f'    companies: ["{chance.randrange(number):06}"]'


def _siren(number: int) -> str:
    """Return a SIREN (company number): nine digits with a valid Luhn checksum."""
    digits = f"8{number:07}"
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    total = sum(value - 9 if value > 9 else value for value in doubled)
    return f"{digits}{-total % 10}"
