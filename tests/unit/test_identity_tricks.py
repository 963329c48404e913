"""Two spellings of one address mean one account. A look-alike is refused or means another account."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_support import codes, make_workspace, manifest, problems_of, user

from provisioner.cli import run
from provisioner.embedded.portal import SqlPortal
from provisioner.model import Operator, Status, User, email_key
from provisioner.planning.steps import CloseUser, CreateCompany, CreateUser, EditProfile, SetBilling, Step
from provisioner.portal import Call, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import ESSENTIEL, NOW, TERMS
from provisioner.testing.people import user as person

KNOWN = "klara@exakple.fr"
TWINS = {
    "case": "Klara@EXAKPLE.fr",
    "Kelvin sign in the domain": "klara@exa\u212aple.fr",
    "wide dot": "klara@exakple\uff0efr",
    "ideographic full stop": "klara@exakple\u3002fr",
    "wide letter": "klara@\uff45xakple.fr",
    "mathematical letter": "klara@exa\U0001d424ple.fr",
    "small capital domain": "klara@exakple.FR",
}
"""Other spellings of ``KNOWN`` that a manifest can contain, by the name of the trick."""

BORDER_TWINS = {
    **TWINS,
    "Kelvin sign before the @": "\u212alara@exakple.fr",
    "wide letters before the @": "\uff4blara@exakple.fr",
    "mathematical letters before the @": "\U0001d424lara@exakple.fr",
}
"""Other spellings of ``KNOWN`` that a portal can contain, by the name of the trick.

A portal can contain more spellings than a manifest, because other programs also write to the portal.
"""

INTERNATIONAL = {
    "NFC and NFD": ("klara@caf\u00e9.fr", "klara@cafe\u0301.fr"),
    "punycode": ("klara@caf\u00e9.fr", "klara@xn--caf-dma.fr"),
    "case of an accent": ("klara@caf\u00e9.fr", "klara@CAF\u00c9.fr"),
    "punycode and its case": ("klara@caf\u00e9.fr", "klara@XN--CAF-DMA.fr"),
}
LOOK_ALIKES = {
    "Cyrillic а before the @": "kl\u0430ra@exakple.fr",
    "dotless i before the @": "klar\u0131@exakple.fr",
    "Kelvin sign before the @": "\u212alara@exakple.fr",
    "Cyrillic а in the domain": "klara@ex\u0430kple.fr",
    "the same in punycode": "klara@xn--exkple-6nf.fr",
    "zero-width space": "kla\u200bra@exakple.fr",
    "zero-width joiner in the domain": "klara@exa\u200dkple.fr",
    "soft hyphen": "klara@exa\u00adkple.fr",
    "byte-order mark": "\ufeffklara@exakple.fr",
    "right-to-left mark": "klara\u200f@exakple.fr",
    "wide at sign": "klara\uff20exakple.fr",
    "a space behind": "klara@exakple.fr ",
    "no-break space": "klara\u00a0@exakple.fr",
    "a dot behind": "klara@exakple.fr.",
    "a comment": "klara(x)@exakple.fr",
    "quotes": '"klara"@exakple.fr',
    "a name before it": "Klara <klara@exakple.fr>",
}
"""Texts that look like ``KNOWN`` and are refused in a manifest, by the name of the trick."""


def written(email: str) -> str:
    """Return the address as a YAML text in double quotes, with escapes for hidden characters."""
    return '"' + email.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def two(first: str, second: str) -> str:
    """Return a manifest of two users with these addresses."""
    paul = user("paul@example.fr").replace("paul@example.fr", written(second))
    return manifest(user(first, type="administrator") + paul)


# --- validate ---


@pytest.mark.parametrize("trick", TWINS)
def test_other_spelling_in_a_manifest_is_a_duplicate(tmp_path: Path, trick: str) -> None:
    """Another spelling of a declared address is a duplicate."""
    root = make_workspace(tmp_path, two(KNOWN, TWINS[trick]))
    (problem,) = problems_of(root)
    assert problem.code == "R1"
    assert problem.source is not None
    assert run(["-C", str(root), "validate"]) == 3
    assert run(["-C", str(root), "plan"]) == 3


@pytest.mark.parametrize("trick", INTERNATIONAL)
def test_other_spelling_of_an_international_domain_is_a_duplicate(tmp_path: Path, trick: str) -> None:
    """Another spelling of an address with an international domain is a duplicate."""
    first, second = INTERNATIONAL[trick]
    root = make_workspace(tmp_path, two("a@example.fr", first).replace("a@example.fr", written(second)))
    assert codes(problems_of(root)) == ["R1"]


@pytest.mark.parametrize("trick", LOOK_ALIKES)
def test_look_alike_address_in_a_manifest_is_refused(tmp_path: Path, trick: str) -> None:
    """A text that only looks like a declared address is refused."""
    (problem,) = problems_of(make_workspace(tmp_path, two(KNOWN, LOOK_ALIKES[trick])))
    assert problem.is_error
    assert problem.code in ("wrong-value", "email", "yaml-unsafe")


def test_dotless_i_makes_another_domain_in_ascii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A domain with a dotless ı is another domain, because Unicode does not fold ı into i.

    The plan shows this domain in ASCII.
    """
    root = make_workspace(tmp_path, two("klara@exikple.fr", "klara@ex\u0131kple.fr"))
    assert run(["-C", str(root), "plan"]) == 0
    said = capsys.readouterr().out
    assert "klara@xn--exkple-q9a.fr" in said
    assert "\u0131" not in said


# --- plan: an account with another spelling ---


def portal_at(root: Path) -> SqlPortal:
    return SqlPortal(
        SqliteDatabase(root / "portal.db"), Operator.PARTNER, TERMS, "https://example.com/a", lambda: NOW
    )


def open_with(portal: SqlPortal, *people: User) -> None:
    steps: tuple[Step, ...] = (CreateCompany("004217", "Martin"), SetBilling("004217", ESSENTIEL))
    for version, step in enumerate(steps):
        assert portal.execute([Call("", step, "", version)])[0].verdict is Verdict.APPLIED
    for someone in people:
        assert create(portal, someone).verdict is Verdict.APPLIED


def create(portal: SqlPortal, someone: User) -> Receipt:
    return portal.execute([Call("", CreateUser(email_key(someone.email), someone))])[0]


@pytest.mark.parametrize("trick", BORDER_TWINS)
def test_account_with_another_spelling_is_adopted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trick: str
) -> None:
    """An account whose address has another spelling is adopted. No second account is created."""
    root = make_workspace(tmp_path, manifest(user(KNOWN, type="administrator")))
    portal = portal_at(root)
    open_with(portal, person("klara", "004217", email=BORDER_TWINS[trick]))
    portal.close()
    assert run(["-C", str(root), "plan"]) == 0
    said = capsys.readouterr().out
    assert "Plan: 0 to add" in said.rstrip().splitlines()[-1] or "No changes" in said
    assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    portal = portal_at(root)
    assert len(portal.snapshot().state.users) == 1
    portal.close()


# --- the portal ---


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[SqlPortal]:
    """A portal with one administrator, Klara, and one standard user, Bob."""
    made = portal_at(tmp_path)
    open_with(made, person("klara", "004217", email=KNOWN), person("bob", "004217", "standard"))
    yield made
    made.close()


def is_r1(receipt: Receipt) -> bool:
    return receipt.verdict in (Verdict.FAILED, Verdict.CONFLICT) and receipt.problem.startswith("R1")


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("trick", BORDER_TWINS)
def test_portal_refuses_a_second_account_with_another_spelling(
    portal: SqlPortal, trick: str, closed: bool
) -> None:
    """The portal refuses a second account whose address is another spelling of an existing address.

    The second address comes from the program, from a client administrator or from a user. The first account
    can be open or closed.
    """
    twin = BORDER_TWINS[trick]
    users = portal.snapshot().state.users
    klara, bob = users[KNOWN], users["bob@example.fr"]
    ann = person("ann", "004217")
    assert create(portal, ann).verdict is Verdict.APPLIED
    if closed:
        close: Step = CloseUser(KNOWN)
        assert portal.execute([Call("", close, klara.id, klara.version)])[0].verdict is Verdict.APPLIED
    assert is_r1(create(portal, person("eve", "004217", "standard", email=twin)))
    rename = EditProfile("bob@example.fr", twin, "Bob", "Martin", None)
    assert is_r1(portal.execute([Call("", rename, bob.id, bob.version)])[0])
    assert is_r1(portal.user_changes_profile(bob.id, email=twin))
    after = portal.snapshot().state.users
    ann = after["ann@example.fr"]
    assert is_r1(portal.client_creates_user(ann.id, person("eve", "004217", "standard", email=twin)))
    assert set(portal.snapshot().state.users) == {KNOWN, "bob@example.fr", "ann@example.fr"}
    assert portal.snapshot().state.users[KNOWN].status is (Status.CLOSED if closed else Status.ACTIVE)


@pytest.mark.parametrize("trick", BORDER_TWINS)
def test_user_may_change_the_spelling_of_their_own_email(portal: SqlPortal, trick: str) -> None:
    """A user may change the spelling of their own e-mail. The account stays the same."""
    klara = portal.snapshot().state.users[KNOWN]
    assert portal.user_changes_profile(klara.id, email=BORDER_TWINS[trick]).verdict is Verdict.APPLIED
    assert portal.snapshot().state.users[KNOWN].id == klara.id


@given(
    st.text(max_size=20),
    st.sampled_from(["", "@exakple.fr", "@caf\u00e9.fr", "@xn--caf-dma.fr", "@\u0130.fr"]),
)
def test_email_key_ignores_case_and_unicode_form(local: str, domain: str) -> None:
    """The key of an e-mail ignores case and Unicode form.

    Otherwise an account would be found under only one of its spellings.
    """
    email = local + domain
    key = email_key(email)
    assert email_key(key) == key
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert email_key(unicodedata.normalize(form, email)) == key
    assert email_key(email.casefold()) == key
