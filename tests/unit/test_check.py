"""The checks over all manifests report each violation with its code and its position."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_support import (
    SETTINGS,
    codes,
    document_of,
    loaded,
    make_workspace,
    manifest,
    problems_of,
    settings_of,
    user,
    validated,
)

from provisioner.diagnostics import Diagnostic, Severity, Source, in_source_order
from provisioner.manifest.check import check
from provisioner.manifest.declared import Activation
from provisioner.model import Production, UserType
from provisioner.yaml_source.document import digest_of

ADMINISTRATOR = user("claire@boulangerie.fr", type="administrator")


def only(problems: list[Diagnostic]) -> Diagnostic:
    (problem,) = problems
    return problem


def place(problem: Diagnostic) -> str:
    return str(problem.source)


# --- R1, R4, R13 ---


def test_repeated_email_is_refused_with_both_positions(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, manifest(ADMINISTRATOR + user("Claire@Boulangerie.FR")))
    problem = only(problems_of(root))
    assert (problem.code, place(problem)) == ("R1", "clients/0.yaml:10:12")
    assert "clients/0.yaml:5:12" in problem.detail
    assert problem.address == "user:claire@boulangerie.fr"


def test_email_of_a_closed_user_is_taken(tmp_path: Path) -> None:
    twin = user("claire@boulangerie.fr", "    status: closed\n")
    assert codes(problems_of(make_workspace(tmp_path, manifest(ADMINISTRATOR + twin)))) == ["R1"]


def test_three_declarations_of_one_email_give_two_problems(tmp_path: Path) -> None:
    users = ADMINISTRATOR + 2 * user("claire@boulangerie.fr")
    assert codes(problems_of(make_workspace(tmp_path, manifest(users)))) == ["R1", "R1"]


def test_user_in_two_manifests_gets_companies_as_remedy(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, manifest(ADMINISTRATOR, "004217"), manifest(ADMINISTRATOR, "004218"))
    problem = only(problems_of(root))
    assert (problem.code, place(problem)) == ("R4", "clients/1.yaml:5:12")
    assert "clients/0.yaml:5:12" in problem.detail
    assert 'companies: ["004218"]' in problem.remedy


def test_repeated_dossier_number_is_refused_with_both_positions(tmp_path: Path) -> None:
    other = user("paul@example.fr", type="administrator")
    problem = only(problems_of(make_workspace(tmp_path, manifest(ADMINISTRATOR), manifest(other))))
    assert (problem.code, place(problem)) == ("R13", "clients/1.yaml:2:11")
    assert "clients/0.yaml:2:11" in problem.detail


@pytest.mark.parametrize("email", ["helene@example.com", "Helene@Example.COM"])
def test_staff_of_the_firm_cannot_be_clients(tmp_path: Path, email: str) -> None:
    problem = only(problems_of(make_workspace(tmp_path, manifest(ADMINISTRATOR + user(email)))))
    assert (problem.code, place(problem)) == ("R1", "clients/0.yaml:10:12")


# --- R2 ---


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (user("paul@x.fr"), ["R2"]),
        (user("paul@x.fr") + user("ann@x.fr", type="administrator"), []),
        (user("paul@x.fr") + user("ann@x.fr", "    status: closed\n", type="administrator"), ["R2"]),
        (user("ann@x.fr", "    status: closed\n", type="administrator"), []),
        (user("ann@x.fr", "    activation: later\n", type="administrator"), ["pending-administrator"]),
        (user("ann@x.fr", "    activation: later\n", type="administrator") + ADMINISTRATOR, []),
    ],
)
def test_company_needs_an_open_administrator_billed_to_it(
    tmp_path: Path, users: str, expected: list[str]
) -> None:
    assert codes(problems_of(make_workspace(tmp_path, manifest(users)))) == expected


def test_administrator_billed_elsewhere_does_not_count(tmp_path: Path) -> None:
    chief = user("ann@x.fr", '    companies: ["004218"]\n', type="administrator")
    root = make_workspace(tmp_path, manifest(chief, "004217"), manifest(user("paul@x.fr"), "004218"))
    problem = only(problems_of(root))
    assert (problem.code, place(problem)) == ("R2", "clients/1.yaml:2:11")
    assert problem.address == "company:004218"


@pytest.mark.parametrize("users", ["", user("paul@x.fr", "    status: closed\n")])
def test_billed_company_without_open_user_is_a_warning(tmp_path: Path, users: str) -> None:
    head = "billing: {mode: firm, offer: Confort}\n"
    text = manifest(users, head=head) if users else manifest("", head=head).replace("users:\n", "")
    problem = only(problems_of(make_workspace(tmp_path, text)))
    assert (problem.code, problem.severity) == ("no-user", Severity.WARNING)


def test_company_that_is_not_billed_needs_no_user(tmp_path: Path) -> None:
    assert problems_of(make_workspace(tmp_path, manifest("").replace("users:\n", ""))) == []


# --- R3, R5, the catalogue ---


@pytest.mark.parametrize(
    "app", ["Production Compta", "Production Paie (Consultation)", "production fiscalité"]
)
def test_production_application_is_refused_in_apps(tmp_path: Path, app: str) -> None:
    users = user("ann@x.fr", f"    apps: [Scan, {app}]\n", type="administrator")
    problem = only(problems_of(make_workspace(tmp_path, manifest(users))))
    assert (problem.code, place(problem)) == ("R3", "clients/0.yaml:10:18")


def test_billed_company_is_always_among_the_companies(tmp_path: Path) -> None:
    for position, (line, expected) in enumerate(
        [
            ("", None),
            ("    companies: []\n", {"004217"}),
            ('    companies: ["004217"]\n', {"004217"}),
        ]
    ):
        text = manifest(user("ann@x.fr", line, type="administrator"))
        declared, problems = validated(make_workspace(tmp_path / str(position), text))
        assert declared is not None
        assert problems == []
        assert declared.users["ann@x.fr"].companies == expected


@pytest.mark.parametrize(
    ("before", "after", "code", "where"),
    [
        ("Essentiel", "essentiels", "unknown-offer", "clients/0.yaml:4:32"),
        ("profile: gérant", "profile: gerand", "unknown-profile", "clients/0.yaml:9:14"),
        ("[Scan]", "[Scan, Scam]", "unknown-app", "clients/0.yaml:10:18"),
    ],
)
def test_name_outside_the_catalogue_is_reported_with_a_suggestion(
    tmp_path: Path, before: str, after: str, code: str, where: str
) -> None:
    head = "billing: {mode: client, offer: Essentiel}\n"
    person = "  - email: ann@x.fr\n    first_name: Ann\n    last_name: Lee\n    profile: gérant\n"
    person += "    apps: [Scan]\n"
    text = manifest(person, head=head)
    assert problems_of(make_workspace(tmp_path / "good", text)) == []
    assert before in text
    problem = only(problems_of(make_workspace(tmp_path / "bad", text.replace(before, after))))
    assert (problem.code, place(problem), problem.severity) == (code, where, Severity.ERROR)
    assert "Did you mean" in problem.detail


def test_accents_in_another_unicode_form_are_equal(tmp_path: Path) -> None:
    person = "  - email: ann@x.fr\n    first_name: Ann\n    last_name: Lee\n    profile: gérant\n"
    apart = "ge\u0301rant"
    one, other = manifest(person.replace("gérant", apart)), SETTINGS.replace("gérant", apart)
    assert problems_of(make_workspace(tmp_path / "manifest", one)) == []
    assert problems_of(make_workspace(tmp_path / "settings", manifest(person), settings=other)) == []


# --- unknown companies ---


def mentioning(number: str) -> str:
    return manifest(user("ann@x.fr", f'    companies: ["{number}"]\n', type="administrator"))


def test_undeclared_dossier_is_a_warning_if_the_portal_was_not_read(tmp_path: Path) -> None:
    problem = only(problems_of(make_workspace(tmp_path, mentioning("004299"))))
    assert (problem.code, problem.severity) == ("unknown-company", Severity.WARNING)
    assert "plan will ask" in problem.detail
    assert place(problem) == "clients/0.yaml:10:17"


def test_dossier_unknown_to_manifests_and_portal_is_an_error(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, mentioning("004271"))
    problem = only(problems_of(root, known_companies=["000001"]))
    assert (problem.code, problem.severity) == ("unknown-company", Severity.ERROR)
    assert 'Did you mean "004217"?' in problem.detail
    assert problems_of(root, known_companies=["004271"]) == []


def test_dossier_declared_in_a_later_file_is_known(tmp_path: Path) -> None:
    root = make_workspace(
        tmp_path, mentioning("004218"), manifest(user("b@x.fr", type="administrator"), "004218")
    )
    assert problems_of(root) == []


def test_unknown_dossier_of_a_profile_is_reported_once_in_the_profile(tmp_path: Path) -> None:
    settings = SETTINGS.replace("production: full,", 'production: full, companies: ["0099"],')
    people = "".join(
        f"  - email: {name}@x.fr\n    first_name: A\n    last_name: B\n    profile: gérant\n"
        for name in "abc"
    )
    problem = only(problems_of(make_workspace(tmp_path, manifest(people), settings=settings)))
    assert problem.code == "unknown-company"
    assert place(problem) == "provisioner.yaml:7:65"


# --- R14, S1 ---


@pytest.mark.parametrize(
    ("email", "severity"),
    [
        ("paul@durand-associes.fr", Severity.ERROR),
        ("paul@Durand-Associes.FR", Severity.ERROR),
        ("paul@paris.durand-associes.fr", Severity.WARNING),
        ("paul@notdurand-associes.fr", None),
        ("paul@durand-associes.fr.example.com", None),
    ],
)
def test_address_at_a_domain_of_the_firm_is_refused(
    tmp_path: Path, email: str, severity: Severity | None
) -> None:
    problems = problems_of(make_workspace(tmp_path, manifest(ADMINISTRATOR + user(email))))
    assert [(p.code, p.severity) for p in problems] == ([("R14", severity)] if severity else [])


@pytest.mark.parametrize(
    ("email", "generic"),
    [
        ("contact@x.fr", True), ("Compta@x.fr", True), ("compta2@x.fr", True), ("info-paris@x.fr", True),
        ("secretariat.direction@x.fr", True), ("claire.contact@x.fr", False), ("contactin@x.fr", False),
        ("infante@x.fr", False), ("rh@x.fr", True), ("r.hernandez@x.fr", False),
    ],
)  # fmt: skip
def test_generic_address_is_a_warning_or_an_error_by_setting(
    tmp_path: Path, email: str, generic: bool
) -> None:
    text = manifest(ADMINISTRATOR + user(email))
    relaxed = problems_of(make_workspace(tmp_path / "warn", text))
    strict = SETTINGS + "safety: {generic_addresses: error}\n"
    raised = problems_of(make_workspace(tmp_path / "error", text, settings=strict))
    assert [(p.code, p.severity) for p in relaxed] == ([("S1", Severity.WARNING)] if generic else [])
    assert [(p.code, p.severity) for p in raised] == ([("S1", Severity.ERROR)] if generic else [])


# --- former addresses ---


@pytest.mark.parametrize(
    ("former", "expected"),
    [
        ("old@x.fr", []),
        ("claire@boulangerie.fr", ["ambiguous-user"]),
        ("Paul@x.fr", ["wrong-value"]),
    ],
)
def test_former_address_must_not_be_declared_as_current(
    tmp_path: Path, former: str, expected: list[str]
) -> None:
    text = manifest(ADMINISTRATOR + user("paul@x.fr", f"    previous_email: {former}\n"))
    declared, problems = validated(make_workspace(tmp_path, text))
    assert codes(problems) == expected
    assert declared is not None
    assert declared.users["paul@x.fr"].previous_key == former.lower()


def test_two_users_cannot_have_the_same_former_address(tmp_path: Path) -> None:
    line = "    previous_email: old@x.fr\n"
    text = manifest(ADMINISTRATOR + user("paul@x.fr", line) + user("ann@x.fr", line))
    problem = only(problems_of(make_workspace(tmp_path, text)))
    assert (problem.code, place(problem)) == ("ambiguous-user", "clients/0.yaml:16:12")


# --- profiles and defaults ---


def test_user_values_override_profile_and_profile_overrides_defaults(tmp_path: Path) -> None:
    settings = (
        SETTINGS
        + "defaults: {type: standard, production: consultation, activation: later, language: en, "
        + "apps: [Image]}\n"
    )
    people = "".join(
        f"  - email: {email}\n    first_name: A\n    last_name: B\n{more}"
        for email, more in (
            ("none@x.fr", ""),
            ("profile@x.fr", "    profile: gérant\n"),
            (
                "own@x.fr",
                "    profile: gérant\n    type: standard\n    apps: []\n    activation: immediate\n",
            ),
        )
    )
    declared, problems = validated(make_workspace(tmp_path, manifest(people), settings=settings))
    assert declared is not None
    assert codes(problems) == ["pending-administrator"]
    rows = {
        key: (user.type, user.production, frozenset(user.apps or ()), user.activation, user.language)
        for key, user in declared.users.items()
    }
    administrator, standard = UserType.ADMINISTRATOR, UserType.STANDARD
    assert rows == {
        "none@x.fr": (standard, Production.CONSULTATION, {"Image"}, Activation.LATER, "en"),
        "profile@x.fr": (administrator, Production.FULL, {"Documents", "Scan"}, Activation.LATER, "en"),
        "own@x.fr": (standard, Production.FULL, frozenset(), Activation.IMMEDIATE, "en"),
    }


def test_default_is_immediate_activation_and_welcome_in_the_firms_language(
    tmp_path: Path,
) -> None:
    settings = SETTINGS.replace("name: Cabinet", "language: en, name: Cabinet")
    declared, problems = validated(make_workspace(tmp_path, manifest(ADMINISTRATOR), settings=settings))
    assert declared is not None
    assert problems == []
    claire = declared.users["claire@boulangerie.fr"]
    assert (claire.activation, claire.welcome, claire.language) == (Activation.IMMEDIATE, True, "en")
    assert (claire.immediate_removal, claire.closed, claire.apps, claire.companies) == (
        False,
        False,
        None,
        None,
    )


@pytest.mark.parametrize("key", ["type", "production"])
def test_type_and_production_are_required(tmp_path: Path, key: str) -> None:
    lines = [line for line in ADMINISTRATOR.splitlines(keepends=True) if not line.startswith(f"    {key}:")]
    problem = only(problems_of(make_workspace(tmp_path, manifest("".join(lines)))))
    assert (problem.code, place(problem)) == ("missing-key", "clients/0.yaml:5:12")
    assert f"has no {key}" in problem.detail


# --- digests ---


def test_digest_covers_data_but_not_comments_and_layout() -> None:
    text = manifest(ADMINISTRATOR)
    same = "# Bakery\n" + text.replace("Boulangerie Martin", '"Boulangerie Martin"').replace(
        "    first", "\n    first"
    )
    assert digest_of(document_of(text).data) == digest_of(document_of(same).data)
    for before, after in (("004217", "004218"), ("administrator", "standard"), ("email", "e_mail")):
        assert digest_of(document_of(text).data) != digest_of(document_of(text.replace(before, after)).data)


def test_digest_of_a_text_differs_from_that_of_a_boolean() -> None:
    assert digest_of(document_of('a: "true"').data) != digest_of(document_of("a: true").data)
    assert digest_of(document_of('a: ""').data) != digest_of(document_of("a:").data)


# --- all together ---

FAULTS = {
    "email": ("u{n}", ""),
    "phone": ("u{n}@x.fr", '    phone: "12"\n'),
    "unknown-app": ("u{n}@x.fr", "    apps: [Nothing]\n"),
    "R3": ("u{n}@x.fr", "    apps: [Production Paie]\n"),
    "unknown-profile": ("u{n}@x.fr", "    profile: nothing\n"),
    "unknown-key": ("u{n}@x.fr", "    nothing: 1\n"),
    "wrong-value": ("u{n}@x.fr", "    removal: never\n"),
    "unknown-company": ("u{n}@x.fr", '    companies: ["9{n}"]\n'),
    "S1": ("info{n}@x.fr", ""),
    "R14": ("u{n}@durand-associes.fr", ""),
    "quote-it": ("u{n}@x.fr", "    phone: 0612345678\n"),
    "": ("u{n}@x.fr", ""),
}


@given(st.lists(st.lists(st.sampled_from(sorted(FAULTS)), max_size=6), min_size=1, max_size=4))
def test_all_problems_are_reported_in_source_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]]
) -> None:
    texts, expected, count = [], [], 0
    for position, faults in enumerate(files):
        people = user(f"chief{position}@x.fr", type="administrator")
        for fault in faults:
            count += 1
            email, more = FAULTS[fault]
            people += user(email.format(n=count), more.format(n=count))
            expected += [fault] if fault else []
        texts.append(manifest(people, f"{position:06d}"))
    problems = problems_of(make_workspace(tmp_path_factory.mktemp("law"), *texts))
    assert codes(problems) == expected
    places = [problem.source for problem in problems]
    assert places == sorted(places, key=lambda source: source or Source("", 0, 0))
    assert all(problem.source for problem in problems)


def test_what_the_rules_find_comes_in_source_order_whatever_their_own_order() -> None:
    people = user("paul@x.fr") + user("info@x.fr") + user("paul@x.fr")
    declared, _ = loaded([document_of(manifest(people))])
    assert codes(check(declared, settings_of())) == ["R2", "S1", "R1"]


def test_the_order_of_files_does_not_change_what_is_declared_or_told() -> None:
    documents = [
        document_of(
            manifest(user(f"u{n}@x.fr", f'    companies: ["{n + 1}"]\n'), str(n)), f"clients/{n}.yaml"
        )
        for n in range(5)
    ]
    told = []
    for order in (documents, documents[::-1]):
        declared, problems = loaded(iter(order))
        told.append(in_source_order([*problems, *check(declared, settings_of())]))
        assert set(declared.users) == {f"u{n}@x.fr" for n in range(5)}
    assert told[0] == told[1]
    assert codes(told[0]) == ["R2", "R2", "R2", "R2", "R2", "unknown-company"]
