"""Each kind of value has one normal form. The fast patterns give the same results as the libraries."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import phonenumbers
import pytest
from email_validator import validate_email
from hypothesis import given
from hypothesis import strategies as st
from manifest_support import codes, make_workspace, manifest, problems_of, user

from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.manifest import fields, urls
from provisioner.manifest.fields import InvalidField
from provisioner.model import email_key
from provisioner.spelling import did_you_mean, near_dossier

Normal = Callable[[str], str]


def refusal(normal: Normal, text: str) -> str:
    with pytest.raises(InvalidField) as caught:
        normal(text)
    assert caught.value.remedy
    return caught.value.reason


# --- e-mail ---

LOCAL = st.text("aA0_+'-.é @", min_size=1, max_size=8) | st.from_regex(r"[a-z.]{60,66}", fullmatch=True)
LABEL = st.text("aAz09-_", min_size=1, max_size=5) | st.from_regex(r"[a-z]{62,64}", fullmatch=True)
TOP = st.sampled_from(
    ["fr", "com", "FR", "test", "local", "arpa", "x", "c", "123", "expert", "xn--p1ai", "f-r"]
)


@given(LOCAL, st.lists(LABEL, max_size=3), TOP)
def test_email_pattern_accepts_only_what_the_library_accepts(local: str, labels: list[str], top: str) -> None:
    text = f"{local}@{'.'.join([*labels, top])}"
    try:
        address = fields.email(text)
    except InvalidField:
        return
    found = validate_email(text, strict=True, check_deliverability=False, allow_smtputf8=False)
    assert address == found.ascii_email
    assert fields.email(address) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("claire.martin@example.fr", "claire.martin@example.fr"),
        ("Claire.Martin@EXAMPLE.fr", "Claire.Martin@example.fr"),
        ("o'brien+portal@les-deux-freres.example.com", "o'brien+portal@les-deux-freres.example.com"),
        ("claire@boulangerie-pâtisserie.fr", "claire@xn--boulangerie-ptisserie-80b.fr"),
        ("claire@пример.рф", "claire@xn--e1afmkfd.xn--p1ai"),
    ],
)
def test_email_has_an_ascii_domain_in_lower_case(text: str, address: str) -> None:
    assert fields.email(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "claire", "claire@", "@example.fr", "claire@example", "claire@@example.fr", "a..b@example.fr",
        ".a@example.fr", "Claire <claire@example.fr>", "claire@example.fr ", " claire@example.fr",
        "claire@example.fr\n", "claire@example.fr\r\nBcc: x@example.fr", "claire@[127.0.0.1]",
        '"a b"@example.fr',
        "claire@example.test", "claire@localhost", "claire@-example.fr", "claire@exa_mple.fr",
        "claire@1.2.3.4", "=?utf-8?q?claire?=@example.fr",
        "clairé@example.fr", "a;b@example.fr", "a,b@example.fr",
    ],
)  # fmt: skip
def test_text_that_is_not_a_bare_address_is_refused(text: str) -> None:
    assert refusal(fields.email, text)


def test_email_has_at_most_254_bytes() -> None:
    domain = ".".join(["a" * 62] * 2 + ["b" * 60, "fr"])
    longest = f"{'c' * (MAX_EMAIL_BYTES - len(domain) - 1)}@{domain}"
    assert len(longest) == MAX_EMAIL_BYTES
    assert fields.email(longest) == longest
    assert "longer" in refusal(fields.email, f"c{longest}")


# two spellings with one key are duplicates; look-alike addresses are refused
SAME_PERSON = "claire@exakple.fr"


@pytest.mark.parametrize(
    "twin",
    [
        "Claire@EXAKPLE.FR",
        "claire@exa\u212aple.fr",  # Kelvin sign
        "claire@exakple\uff0efr",  # wide dot
        "claire@exakple\u3002fr",  # ideographic full stop
        "claire@\uff45xakple.fr",  # wide e
    ],
)
def test_other_spelling_of_an_email_is_a_duplicate(tmp_path: Path, twin: str) -> None:
    assert email_key(fields.email(twin)) == SAME_PERSON
    quoted = '"' + twin.encode("unicode_escape").decode() + '"'
    users = user(SAME_PERSON, type="administrator") + user("paul@example.fr").replace(
        "paul@example.fr", quoted
    )
    assert codes(problems_of(make_workspace(tmp_path, manifest(users)))) == ["R1"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("claire@caf\u00e9.fr", "claire@cafe\u0301.fr"),  # NFC, NFD
        ("claire@caf\u00e9.fr", "claire@xn--caf-dma.fr"),  # punycode
        ("claire@CAF\u00c9.fr", "claire@caf\u00e9.fr"),
    ],
)
def test_spellings_of_an_international_domain_have_one_key(one: str, other: str) -> None:
    assert fields.email(one) == fields.email(other)
    assert email_key(one) == email_key(other) == email_key(fields.email(one))


@pytest.mark.parametrize(
    "text",
    [
        "cl\u0430ire@example.fr",  # Cyrillic а before the @
        "clair\u0131e@example.fr",  # dotless i before the @
        "\u212alaire@example.fr",  # Kelvin sign before the @
        "claire@ex\u0430mple.fr",  # one Cyrillic а in a Latin domain
        "claire@xn--exmple-4nf.fr",  # the same in punycode
        "claire@\u0430\u0440\u0440\u04cf\u0435.com",  # all Cyrillic, before a Latin end
        "claire@xn--80ak6aa92e.com",
        "claire@exampl\u03b5.fr",  # Greek
        "claire@exa\u00admple.fr",  # soft hyphen
    ],
)
def test_look_alike_address_is_refused(text: str) -> None:
    assert refusal(fields.email, text)


def test_dotless_i_in_a_domain_is_visible_and_another_address() -> None:
    assert fields.email("claire@ex\u0131mple.fr") == "claire@xn--exmple-q9a.fr"
    assert email_key(fields.email("claire@ex\u0131mple.fr")) != email_key("claire@eximple.fr")


# --- phones ---


def library_reading(text: str) -> str | None:
    try:
        number = phonenumbers.parse(text, "FR")
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def test_phone_pattern_agrees_with_the_library_on_french_ranges() -> None:
    chance = random.Random(7)
    settled = 0
    for head in range(1000):
        digits = f"{head:03d}{chance.randrange(10**6):06d}"
        for text in (f"0{digits}", f"+33 {digits}"):
            if fields._USUAL_PHONE.fullmatch(text.translate(fields._SEPARATORS)) is not None:
                settled += 1
                assert fields.phone(text) == library_reading(text), text
    assert settled > 1000


@pytest.mark.parametrize(
    "text",
    ["+33 6 12 34 56 78", "06 12 34 56 78", "0612345678", "06.12.34.56.78", "06-12-34-56-78",
     "+33612345678",
     "+33 (0)6 12 34 56 78", "0033 6 12 34 56 78", "(06) 12 34 56 78", "06/12/34/56/78",
     "+33.6.12.34.56.78"],
)  # fmt: skip
def test_french_spellings_of_a_phone_give_one_number(text: str) -> None:
    assert fields.phone(text) == "+33612345678"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("01 42 68 53 00", "+33142685300"),
        ("0262 12 34 56", "+262262123456"),
        ("0692 12 34 56", "+262692123456"),
        ("0590 12 34 56", "+590590123456"),
        ("0690 12 34 56", "+590690123456"),
        ("0596 60 12 34", "+596596601234"),
        ("0696 30 12 34", "+596696301234"),
        ("0594 12 34 56", "+594594123456"),
        ("0694 20 12 34", "+594694201234"),
        ("87 12 34 56", "+68987123456"),
        ("+687 41 12 34", "+687411234"),
        ("+508 41 12 34", "+508411234"),
        ("0800 12 34 56", "+33800123456"),
        ("09 72 12 34 56", "+33972123456"),
        ("+32 470 12 34 56", "+32470123456"),
        ("+1 202 456 1111", "+12024561111"),
    ],
)
def test_phone_of_an_overseas_territory_gets_its_country_code(text: str, number: str) -> None:
    assert fields.phone(text) == number


@pytest.mark.parametrize("text", ["41 12 34", "0598 78 34 56"])
def test_phone_that_is_valid_in_two_territories_is_refused(text: str) -> None:
    assert " or +" in refusal(fields.phone, text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "06 12 34 56", "06 12 34 56 78 9", "0612345678\r\n", "0612345678\n", "\u0660612345678",
     "٠٦١٢٣٤٥٦٧٨", "０６１２３４５６７８",
     "06 12 34 56 7O", "06\u00a012\u00a034\u00a056\u00a078", "+33+612345678",
     "06 12 34 56 78 ext. 5", "tel:0612345678", "+999 123456", "3639", "0596 12 34 56", "-",
     "+" * 20, "0" * 40,
     "0612345678" + "-" * 30],
)  # fmt: skip
def test_text_that_is_not_a_phone_is_refused(text: str) -> None:
    assert refusal(fields.phone, text)


# --- SIREN, dossier numbers, names ---


@pytest.mark.parametrize("text", ["732829320", "732 829 320", "356000000", "552100554"])
def test_siren_is_nine_digits_with_a_luhn_checksum(text: str) -> None:
    assert fields.siren(text) == text.replace(" ", "")


@given(st.integers(0, 8), st.integers(1, 9))
def test_siren_with_one_wrong_digit_is_refused(place: int, shift: int) -> None:
    digits = "732829320"
    wrong = digits[:place] + str((int(digits[place]) + shift) % 10) + digits[place + 1 :]
    assert "check digit" in refusal(fields.siren, wrong)


@pytest.mark.parametrize(
    "text",
    ["000000000", "", "73282932", "7328293200", "73282932000074", "732 829 320 00074", "73 28 29 320",
     "٧٣٢٨٢٩٣٢٠",
     "732829320\n", "FR40732829320"],
)  # fmt: skip
def test_text_that_is_not_a_siren_is_refused(text: str) -> None:
    assert refusal(fields.siren, text)


@pytest.mark.parametrize("text", ["004217", "4", "A-12.b_3", "9" * 20])
def test_dossier_number_is_unchanged(text: str) -> None:
    assert fields.dossier(text) == text


@pytest.mark.parametrize("text", ["", "9" * 21, "00 42", "-1", "1-", "a/b", "..", "é1", "42\n"])
def test_text_that_is_not_a_dossier_number_is_refused(text: str) -> None:
    assert refusal(fields.dossier, text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Claire", "Claire"),
        ("  Jean-Paul  ", "Jean-Paul"),
        ("N'Guyen", "N'Guyen"),
        ("E\u0301lodie", "Élodie"),
        ("Société  Générale\u00a0SA", "Société Générale SA"),
        ("3M", "3M"),
        ("Müller & Söhne (Paris)", "Müller & Söhne (Paris)"),
        ("山田", "山田"),
        ("Łukasz", "Łukasz"),
    ],
)
def test_name_is_composed_trimmed_and_single_spaced(text: str, shown: str) -> None:
    assert fields.name(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "   ", "-", "...", "Clai\u200bre", "\u202eeriaC", "Claire\n", "Cla\tire", "Claire\x1b[31m",
     "a\u2028b",
     "\ufeffClaire", "\u2066x", "x\x00", "\u3164", "Clai\u00adre", "C\ue000", "x" * 101],
)  # fmt: skip
def test_name_with_hidden_characters_or_without_letters_is_refused(text: str) -> None:
    assert refusal(fields.name, text)


def test_name_has_at_most_100_characters() -> None:
    assert fields.name("x" * fields.MAX_NAME) == "x" * fields.MAX_NAME
    assert fields.name("é" * fields.MAX_NAME)
    assert "longer" in refusal(fields.name, "é" * (fields.MAX_NAME + 1))


@given(st.text(max_size=20) | st.text("aé '-&  \u00a0e\u0301", max_size=12))
def test_normalizing_a_name_twice_changes_nothing(text: str) -> None:
    try:
        plain = fields.name(text)
    except InvalidField:
        return
    assert fields.name(plain) == plain
    assert unicodedata.is_normalized("NFC", plain)
    assert plain.isprintable()


NORMAL_FORMS: tuple[Normal, ...] = (
    fields.email, fields.phone, fields.siren, fields.dossier, fields.name, fields.other_app,
    urls.domain, urls.mailbox, urls.database, urls.transport, urls.web_address,
)  # fmt: skip


@pytest.mark.parametrize("normal", NORMAL_FORMS)
@given(text=st.text(max_size=30) | st.text("sqlite:/maildhtp@.<>\"' 0123456789+-()[]#?", max_size=30))
def test_any_text_has_a_stable_normal_form_or_is_refused(normal: Normal, text: str) -> None:
    try:
        plain = normal(text)
    except InvalidField as refused:
        plain = refused.reason
        assert plain
    else:
        assert normal(plain) == plain


# --- suggestions ---


@pytest.mark.parametrize(
    ("word", "meant"),
    [("scan", "Scan"), ("Documments", "Documents"), ("tresorerie", "Trésorerie"), ("SCANS", "Scan")],
)
def test_word_near_a_known_one_is_suggested(word: str, meant: str) -> None:
    assert did_you_mean(word, ["Documents", "Scan", "Trésorerie"]) == f' Did you mean "{meant}"?'


def test_word_near_no_known_one_gets_no_suggestion() -> None:
    assert did_you_mean("Paie", ["Documents", "Scan"]) == ""
    assert did_you_mean("x" * 10_000, ["x" * 10_000]) == ""
    assert did_you_mean("Scan", []) == ""


@pytest.mark.parametrize(
    ("number", "meant"),
    [("4217", "004217"), ("0004217", "004217"), ("002417", "004217"), ("04217", "004217"), ("a12", "A12")],
)
def test_typing_mistake_in_a_dossier_number_gets_a_suggestion(number: str, meant: str) -> None:
    assert near_dossier(number, {"004217", "009000", "A12"}) == f' Did you mean "{meant}"?'


def test_several_near_dossier_numbers_give_no_suggestion() -> None:
    series = {f"{number:06d}" for number in range(4210, 4220) if number != 4217}
    assert near_dossier("004217", series) == ""


# --- URLs, senders, domains ---


@pytest.mark.parametrize(
    "text", ["sqlite:///portal.db", "sqlite:////srv/p.db", "sqlite:///../other/portal.db"]
)
def test_sqlite_url_has_a_relative_or_absolute_path(text: str) -> None:
    assert urls.database(text) == text


@pytest.mark.parametrize(
    "text",
    ["portal.db", "sqlite:portal.db", "sqlite://portal.db", "sqlite:///", "sqlite:///:memory:",
     "mysql://h/db",
     "sqlite:///a.db?mode=ro", "sqlite:///folder/", "https://x.fr", "", "sqlite:///\u202ea"],
)  # fmt: skip
def test_text_that_is_not_a_database_url_is_refused(text: str) -> None:
    assert refusal(urls.database, text)


def test_unknown_url_scheme_names_the_known_ones() -> None:
    assert "sqlite" in refusal(urls.database, "oracle://x")
    assert "maildir, smtp, smtps" in refusal(urls.transport, "sendmail:")


@pytest.mark.parametrize(
    ("check", "text", "meant"),
    [
        (urls.portal, "https//portal", "https://portal"),
        (urls.portal, "HTTPS://x", "https://x"),
        (urls.portal, "https//portal.example.fr/acces/", "https://portal.example.fr/acces"),
        (urls.portal, "SCIM+HTTPS://x.fr/scim", "scim+https://x.fr/scim"),
        (urls.portal, "sqlite///portal.db", "sqlite:///portal.db"),
        (urls.database, "PostgreSQL://firm@db/ledger", "postgresql://firm@db/ledger"),
        (urls.transport, "smtp//mail.example.fr:587", "smtp://mail.example.fr:587"),
        (urls.transport, "SMTPS://mail.example.fr", "smtps://mail.example.fr"),
    ],
)
def test_miswritten_scheme_gets_the_url_that_was_meant(
    check: Callable[[str], str], text: str, meant: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        check(text)
    assert refused.value.remedy == f'Did you mean "{meant}"?'
    assert check(meant) == meant


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (urls.portal, "https//me:hunter2@portal"),
        (urls.portal, "POSTGRESQL://me:hunter2@db/portal"),
        (urls.database, "HTTPS://me:hunter2@x"),
        (urls.transport, "smtp//me:hunter2@mail"),
        (urls.transport, "SMTP://me:hunter2@mail"),
    ],
)
def test_miswritten_url_with_a_password_is_not_repeated(check: Callable[[str], str], text: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check(text)
    assert "hunter2" not in f"{refused.value.reason} {refused.value.remedy}"


@pytest.mark.parametrize(
    "text",
    ["maildir:outbox", "maildir:/var/spool/out", "smtp://mail.example.com:587", "smtps://mail.example.com",
     "smtp://127.0.0.1:2525", "smtp://localhost:25", "smtp://[::1]:25"],
)  # fmt: skip
def test_transport_is_maildir_or_smtp(text: str) -> None:
    assert urls.transport(text) == text


@pytest.mark.parametrize(
    "text",
    ["maildir:", "smtp:", "smtp://", "smtp:mail.example.com", "smtp://mail.example.com:0", "smtp://h:99999",
     "smtp://h:x", "smtp://h/path", "smtp://user@h", "smtp://user:secret@h:587", "smtp://h h",
     "smtp://h\r\n"],
)  # fmt: skip
def test_text_that_is_not_a_transport_is_refused(text: str) -> None:
    assert "secret" not in refusal(urls.transport, text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("acces@example.fr", "acces@example.fr"),
        ("Cabinet Durand & Associés <acces@Example.FR>", "Cabinet Durand & Associés <acces@example.fr>"),
        ('"Durand, Associés" <acces@example.fr>', "Durand, Associés <acces@example.fr>"),
        ("<acces@example.fr>", "acces@example.fr"),
    ],
)
def test_sender_is_an_address_with_or_without_a_name(text: str, plain: str) -> None:
    assert urls.mailbox(text) == plain


@pytest.mark.parametrize(
    "text",
    ["", "Durand", "a@example.fr, b@example.fr", "Durand <a@example.fr> <b@example.fr>",
     "D\r\nBcc: x <a@example.fr>",
     "Durand <a@example.fr>\n", "a@example.fr\nBcc: b@example.fr"],
)  # fmt: skip
def test_text_that_could_end_a_header_is_refused_as_sender(text: str) -> None:
    assert refusal(urls.mailbox, text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("https://portail.example.fr", "https://portail.example.fr"),
        ("https://portail.example.fr/acces/", "https://portail.example.fr/acces"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_web_address_has_no_last_slash(text: str, plain: str) -> None:
    assert urls.web_address(text) == plain


@pytest.mark.parametrize(
    "text",
    ["portail.example.fr", "http://portail.example.fr", "https://u:p@example.fr", "https://x.fr/?a",
     "https://x.fr#a",
     "javascript:alert(1)", "https://", "ftp://x.fr", "https://x.fr/\n"],
)  # fmt: skip
def test_web_address_without_https_or_with_a_query_is_refused(text: str) -> None:
    assert refusal(urls.web_address, text)


@pytest.mark.parametrize("text", ["@example.fr", "a b.fr", "example", "example.fr\n", ""])
def test_text_that_is_not_a_mail_domain_is_refused(text: str) -> None:
    assert refusal(urls.domain, text)


def test_mail_domain_is_in_lower_case() -> None:
    assert urls.domain("Durand-Associes.FR") == "durand-associes.fr"
