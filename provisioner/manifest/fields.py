"""The functions that validate and normalize e-mails, phone numbers, SIRENs, names and dossier numbers.

Each function returns the value in its normal form or raises :class:`InvalidField`. A regular expression
accepts the usual values. The other values go to libraries, which are ten to a hundred times slower.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.rules import is_production

MAX_NAME = 100
"""The maximum length of a first name, a last name or a company's name, in characters."""

MAX_PHONE = 32
"""The maximum length of a phone number before it is normalized, in characters."""

DOSSIER_PATTERN = r"^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,18}[0-9A-Za-z])?$"
"""The pattern of a dossier number: 1 to 20 letters and digits, with ``.``, ``_`` or ``-`` between them."""


class InvalidField(ValueError):
    """The error for an invalid value. ``reason`` is a clause ("it is empty"), ``remedy`` a sentence or ""."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.code = "wrong-value"
        self.reason = reason
        self.remedy = remedy


def described(character: str) -> str:
    """Return the code point and the Unicode name of a character, such as ``U+200B ZERO WIDTH SPACE``."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"


# --- e-mail addresses ---

_ATOM = r"[A-Za-z0-9_+'-]+"
_LABEL = r"(?=[A-Za-z0-9-]{1,63}\.)[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\."
_USUAL_EMAIL = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL})+([A-Za-z]{{2,20}}))")
_RESERVED = frozenset({"arpa", "invalid", "local", "localhost", "onion", "test"})
_ASK_FOR_EMAIL = "Write the bare address, such as claire.martin@example.fr."
# the scripts that may be mixed in one domain, because Chinese, Japanese and Korean texts mix them
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"})


def email(text: str) -> str:
    """Return the e-mail address, with its domain in lower-case ASCII. The maximum length is 254 bytes.

    An internationalized domain is returned as ``xn--…``, so that look-alike letters are visible in a plan.
    A domain that mixes scripts is refused. The part before the @ must be ASCII and keeps its case.
    """
    if len(text) > MAX_EMAIL_BYTES:
        raise InvalidField(f"it is longer than {MAX_EMAIL_BYTES} bytes", _ASK_FOR_EMAIL)
    usual = _USUAL_EMAIL.fullmatch(text)
    if usual is not None:
        local, domain, top = usual.groups()
        if len(local) <= 64 and top.lower() not in _RESERVED:
            return f"{local}@{domain.lower()}"
    return _unusual_email(text)


@lru_cache(maxsize=1024)
def _unusual_email(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(text, strict=True, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as problem:
        raise InvalidField(_as_clause(str(problem)), _ASK_FOR_EMAIL) from None
    if "=?" in found.local_part:
        raise InvalidField("mail programs would show its name as another one (=?)", _ASK_FOR_EMAIL)
    _refuse_mixed_scripts(found.domain)
    address = f"{found.local_part}@{found.ascii_domain}"
    if len(address) > MAX_EMAIL_BYTES:
        raise InvalidField(f"it is longer than {MAX_EMAIL_BYTES} bytes", _ASK_FOR_EMAIL)
    return address


def _as_clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".").replace("email", "e-mail")


def _refuse_mixed_scripts(domain: str) -> None:
    scripts = {_script(character) for character in domain if character.isalpha()}
    if len(scripts) > 1 and not scripts <= _EAST_ASIAN:
        mixture = " and ".join(sorted(script.capitalize() for script in scripts))
        raise InvalidField(
            f"its domain mixes {mixture} letters, so it may imitate another one", _ASK_FOR_EMAIL
        )


def _script(character: str) -> str:
    return unicodedata.name(character, "unknown").split(" ", 1)[0].split("-", 1)[0]


# --- phone numbers ---

_SEPARATORS = str.maketrans("", "", " .-/()")
# the number ranges used only in metropolitan France; the library checks all other numbers
_USUAL_PHONE = re.compile(r"(?:\+33|0)((?:[13][0-9]|2[0-57-9]|4[1-9]|5[0-8]|6[0-24-8]|7[3-9])[0-9]{7})")
_PHONE_CHARACTERS = re.compile(r"\+?[0-9 .\-/()]+")
_REGIONS = ("FR", "RE", "GP", "MQ", "GF", "YT", "NC", "PF", "PM", "WF")
# the French prefixes that belong to overseas territories (Réunion, Mayotte, Guadeloupe, Guyane, Martinique)
_OVERSEAS = ("0262", "0263", "0269", "0590", "0594", "0596")
_EVERYWHERE = ("08", "09")
_ASK_FOR_PHONE = 'Write it with its country code, such as "+33 6 12 34 56 78"; null means no phone.'


def phone(text: str) -> str:
    """Return the phone number in E.164 (A16).

    A number without a country code belongs to France or to an overseas territory. A number that is
    valid in several of these regions is refused, unless the number begins with 08 or 09.
    """
    if len(text) <= MAX_PHONE:
        usual = _USUAL_PHONE.fullmatch(text.translate(_SEPARATORS))
        if usual is not None:
            return f"+33{usual[1]}"
    return _unusual_phone(text)


@lru_cache(maxsize=1024)
def _unusual_phone(text: str) -> str:
    if not text.strip():
        raise InvalidField("it is empty", _ASK_FOR_PHONE)
    if len(text) > MAX_PHONE:
        raise InvalidField(f"it is longer than {MAX_PHONE} characters", _ASK_FOR_PHONE)
    if _PHONE_CHARACTERS.fullmatch(text) is None:
        raise InvalidField(f"it contains {_first_odd(text)}", _ASK_FOR_PHONE)
    readings = list(dict.fromkeys(_readings(text)))
    if not readings:
        raise InvalidField(
            "no number of France, its overseas territories or the country it names looks like this",
            _ASK_FOR_PHONE,
        )
    if len(readings) > 1 and not text.translate(_SEPARATORS).startswith(_EVERYWHERE):
        raise InvalidField(f"it could be {' or '.join(readings)}", _ASK_FOR_PHONE)
    return readings[0]


def _first_odd(text: str) -> str:
    odd = next((c for c in text if c not in "+0123456789 .-/()"), None)
    if odd is None:
        return "a + that is not at its beginning"
    return f'"{odd}"' if odd.isascii() and odd.isprintable() else described(odd)


def _readings(text: str) -> Iterator[str]:
    import phonenumbers

    regions: tuple[str, ...] = _REGIONS
    digits = text.translate(_SEPARATORS)
    if digits.startswith(("+", "00")):
        regions = _REGIONS[:1]
    elif digits.startswith(_OVERSEAS):
        regions = _REGIONS[1:]
    for region in regions:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            yield phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


# --- SIREN, dossier number ---

_SIREN = re.compile(r"[0-9]{9}|[0-9]{3} [0-9]{3} [0-9]{3}")
_DOSSIER = re.compile(DOSSIER_PATTERN)


def siren(text: str) -> str:
    """Return the nine digits of a SIREN without spaces, after a check of the Luhn checksum (A13).

    La Poste needs no exception here: some of its SIRETs fail a Luhn check, but its SIREN (356000000) passes.
    """
    digits = text.replace(" ", "")
    if re.fullmatch(r"[0-9]{14}", digits):
        raise InvalidField("it has 14 digits, as a SIRET has", f'The SIREN is its beginning: "{digits[:9]}".')
    if _SIREN.fullmatch(text) is None:
        raise InvalidField("a SIREN is nine digits", "Copy it from the company's Kbis, within quotes.")
    if digits == "000000000" or _luhn(digits) != 0:
        raise InvalidField(
            "its check digit does not hold", "Copy it again from the company's Kbis; a digit is wrong."
        )
    return digits


# maps each digit to the digit sum of its double (7 → 14 → 5), as the Luhn algorithm requires
_DOUBLED = str.maketrans("0123456789", "0246813579")


def _luhn(digits: str) -> int:
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(_DOUBLED))) % 10


def dossier(text: str) -> str:
    """Return ``text`` unchanged if it is a valid dossier number. Leading zeros and case are significant."""
    if _DOSSIER.fullmatch(text) is None:
        raise InvalidField(
            "a dossier number is 1 to 20 digits or letters, with . - _ inside",
            "Copy the number that the portal shows under Administration › Entreprises.",
        )
    return text


# --- names ---

_ALNUM = "0-9A-Za-zÀ-ÖØ-öø-ÿ"
_USUAL_NAME = re.compile(rf"[{_ALNUM}](?:[{_ALNUM} '&,().-]{{0,{MAX_NAME - 2}}}[{_ALNUM}.)])?")
# invisible characters whose Unicode category is that of letters, marks or symbols
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(point) for point in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def name(text: str) -> str:
    """Return the name of a person or a company in NFC, trimmed and with single spaces.

    A name that contains an invisible character is refused.
    """
    if _USUAL_NAME.fullmatch(text) is not None and "  " not in text:
        return text
    return _unusual_name(text)


def _unusual_name(text: str) -> str:
    hidden = next((c for c in text if is_hidden(c)), None)
    if hidden is not None:
        raise InvalidField(f"it contains {described(hidden)}", "Type the name again; do not paste it.")
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    if not any(character.isalnum() for character in plain):
        raise InvalidField("it has no letter and no digit", "Write the name as it shall read in letters.")
    if len(plain) > MAX_NAME:
        raise InvalidField(f"it is longer than {MAX_NAME} characters", "Shorten it.")
    return plain


@lru_cache(maxsize=4096)
def is_hidden(character: str) -> bool:
    """Return True if a character is invisible or reverses the direction of text (bidirectional marks)."""
    return unicodedata.category(character) in _REFUSED_CATEGORIES or character in _INVISIBLE


def nfc(text: str) -> str:
    """Return the text in NFC, in which an accented letter has only one encoding."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def other_app(text: str) -> str:
    """Return an application's name, normalized by :func:`name`. A production application is refused (R3)."""
    plain = name(text)
    if is_production(plain):
        raise InvalidField(
            "production applications are built in and come as one whole trio",
            "Leave it out here; write production: full or production: consultation for a user.",
        )
    return plain
