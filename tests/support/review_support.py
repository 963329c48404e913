"""Hand-written plans for the golden files and the property tests of the output formats."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from pathlib import Path

from strategies import planned

from provisioner.diagnostics import Source, error, warning
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Notice,
    NoticeKind,
    Production,
    State,
    Status,
    User,
    UserType,
    company_address,
    email_key,
    user_address,
)
from provisioner.planning.plan import Adoption, Change, Plan, PlannedLetter
from provisioner.testing.people import state

GOLDEN = Path(__file__).parents[1] / "golden" / "review"
NOVEMBER = date(2026, 11, 30)
CLIENT = Billing(BillingMode.CLIENT, "Essentiel")
FIRM = Billing(BillingMode.FIRM, "Confort")

BAKERY = Company("004217", "Boulangerie Martin SARL", "732829320", CLIENT)
HOLDING = Company("004301", "Lefèvre Participations SAS", "812345676", CLIENT)
SCI = Company("004302", "SCI des Tilleuls", "814003026")
GARAGE = Company("004303", "Garage Lefèvre SARL", None, FIRM)


def person(
    first: str,
    last: str,
    billed: str,
    *further: str,
    type: UserType = UserType.STANDARD,
    production: Production = Production.FULL,
    apps: tuple[str | Grant, ...] = ("Documents",),
    phone: str | None = None,
    status: Status = Status.ACTIVE,
    email: str = "",
) -> User:
    """Return a user. If ``email`` is empty, the e-mail address is made from the name.

    ``billed`` and ``further`` are the numbers of the user's companies.
    """
    return User(
        email=email or f"{first}.{last}@example.com".lower(),
        first_name=first,
        last_name=last,
        phone=phone,
        type=type,
        billed=billed,
        companies=frozenset({billed, *further}),
        production=production,
        apps=frozenset(app if isinstance(app, Grant) else Grant(app, AppState.ACTIVE) for app in apps),
        status=status,
        id=f"id-{first}",
        version=1,
    )


def matches(text: str, name: str) -> bool:
    """Return True if the text equals the golden file byte for byte. Fails if more than line ends differ.

    If the variable ``UPDATE_GOLDEN`` is 1, the text is first written to the file.
    """
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    assert text.splitlines() == file.read_bytes().decode().splitlines()
    return text.encode() == file.read_bytes()


def plan_between(
    current: State,
    desired: State,
    *notices: Notice,
    letters: dict[str, str] | None = None,
    reasons: dict[str, str] | None = None,
) -> Plan:
    """Return the plan from ``current`` to ``desired``, with a source line for each change.

    ``letters`` maps the keys of users to languages; ``reasons`` maps keys to the reasons of changes.
    """
    made = planned(current, desired)
    welcomes = letters or {}
    return replace(
        made,
        changes=tuple(
            replace(
                change,
                source=_source(change, line),
                reason=(reasons or {}).get(change.address.key, ""),
            )
            for line, change in enumerate(made.changes)
        ),
        letters=tuple(
            PlannedLetter(change.address, change.after.email, welcomes[change.address.key])
            for change in made.changes
            if isinstance(change.after, User) and change.address.key in welcomes
        ),
        notices=(*notices, *made.notices),
    )


def _source(change: Change, line: int) -> Source:
    number = change.after.billed if isinstance(change.after, User) else change.after.number
    return Source(f"clients/{number}.yaml", 2 + 8 * line, 5)


def notice(kind: NoticeKind, name: str, detail: str, on: date | None = None) -> Notice:
    return Notice(kind, user_address(f"{name}@example.com"), detail, on)


HENRI = person(
    *("Henri", "Lefevre", "004301", "004302"),
    type=UserType.ADMINISTRATOR,
    apps=("Documents", "Achats"),
    phone="+33199004301",
)
SOPHIE = person("Sophie", "Arnaud", "004301", apps=("Documents", "Scan"))
NADIA = person("Nadia", "Lefevre", "004303", type=UserType.ADMINISTRATOR)
KARIM = person(
    *("Karim", "Haddad", "004301"),
    production=Production.CONSULTATION,
    apps=(),
    phone="+441632960001",
    status=Status.TO_VALIDATE,
)
CLAIRE = person("Claire", "Martin", "004217", type=UserType.ADMINISTRATOR)
PAUL = person("Paul", "Girard", "004217", production=Production.CONSULTATION)
INES = person("Ines", "Caron", "004217", status=Status.CLOSED)
LEO = person("Leo", "Roy", "004217", "004301", apps=())
EVERYBODY = (BAKERY, HOLDING, SCI, GARAGE, HENRI, SOPHIE, NADIA, KARIM, CLAIRE, PAUL, INES, LEO)


def onboarding() -> Plan:
    """Return a plan that creates two companies and their users."""
    return plan_between(
        State(),
        state(HOLDING, SCI, HENRI, SOPHIE, KARIM),
        notice(
            NoticeKind.AWAITS_VALIDATION,
            "karim.haddad",
            "karim.haddad@example.com cannot log in until a person with the right to validate "
            "validates the account (R7).",
        ),
        letters={"henri.lefevre@example.com": "fr", "sophie.arnaud@example.com": "en"},
    )


def next_month() -> Plan:
    """Return a plan with each kind of change and each kind of notice."""
    people = {
        email_key(user.email): user
        for user in (
            replace(
                HENRI,
                companies=frozenset({"004301"}),
                apps=frozenset(
                    {Grant("Documents", AppState.ACTIVE), Grant("Achats", AppState.ENDING, NOVEMBER)}
                ),
                phone=None,
            ),
            replace(
                SOPHIE,
                type=UserType.ADMINISTRATOR,
                companies=frozenset({"004301", "004302"}),
                apps=frozenset({Grant("Documents", AppState.ACTIVE), Grant("Image", AppState.ACTIVE)}),
            ),
            replace(
                NADIA, billed="004301", companies=frozenset({"004301", "004303"}), type=UserType.STANDARD
            ),
            replace(KARIM, status=Status.ACTIVE, email="k.haddad@example.com", last_name="Haddad-Roy"),
            replace(PAUL, status=Status.CLOSED),
            replace(LEO, status=Status.CLOSED),
            replace(
                INES, status=Status.ACTIVE, type=UserType.ADMINISTRATOR, production=Production.CONSULTATION
            ),
            replace(CLAIRE, production=Production.CONSULTATION),
        )
    }
    keys = {"k.haddad@example.com": "karim.haddad@example.com"}
    desired = State(
        {
            company.number: company
            for company in (
                replace(
                    BAKERY,
                    name="Boulangerie Martin et Fils SARL",
                    billing=Billing(BillingMode.CLIENT, "Confort"),
                ),
                HOLDING,
                replace(SCI, siren=None, billing=FIRM),
                GARAGE,
            )
        },
        {keys.get(key, key): user for key, user in people.items()},
    )
    plan = plan_between(
        state(*EVERYBODY),
        desired,
        *every_notice(),
        letters={"karim.haddad@example.com": "fr"},
        reasons={
            "paul.girard@example.com": "status: closed",
            "leo.roy@example.com": "left the manifests",
        },
    )
    known = Adoption(user_address("old@example.com"), "id-old", known=True)
    return replace(
        plan,
        adoptions=(known, Adoption(user_address("zoe@example.com"), "id-zoe")),
        diagnostics=(
            warning(
                "S1",
                "contact@example.com looks like a shared address.",
                "Give the person's own address.",
                Source("clients/004217.yaml", 12, 12),
            ),
        ),
    )


def every_notice() -> tuple[Notice, ...]:
    """Return one notice of each kind, with the wording of the planner."""
    return (
        notice(
            NoticeKind.ADOPTED,
            "zoe",
            "zoe@example.com has an account already; it is managed from now on.",
        ),
        notice(NoticeKind.UNMANAGED, "max", "max@example.com (Max Roy) is in no manifest and is left alone."),
        notice(
            NoticeKind.LEFT,
            "leo",
            "leo@example.com left the manifests; the account stays open. To close it, declare it with "
            "status: closed.",
        ),
        notice(
            NoticeKind.DRIFT,
            "eva",
            "eva@example.com changed their own phone: +33199000001 became +33199000002; the change is "
            "kept. To follow, write +33199000002 in the manifest.",
        ),
        notice(
            NoticeKind.AWAITS_VALIDATION,
            "tom",
            "tom@example.com cannot log in until a portal administrator, a partner or a customer manager "
            "validates the account (R7).",
        ),
        notice(
            NoticeKind.AWAITS_REOPENING,
            "lea",
            "lea@example.com is closed; reopening awaits a portal administrator, a partner or a customer "
            "manager (R8).",
        ),
        notice(
            NoticeKind.REQUESTED_APP,
            "eva",
            "eva@example.com asks for Scan; it waits until the firm activates it (R10).",
        ),
        notice(NoticeKind.ENDING, "eva", "Image of eva@example.com ends.", date(2026, 10, 31)),
        notice(
            NoticeKind.NO_WELCOME,
            "ida",
            "ida@example.com was created by somebody else, so no welcome e-mail goes out. "
            "To send one: provisioner mail send ida@example.com",
        ),
        notice(
            NoticeKind.LETTER_OWED,
            "joe",
            "The welcome e-mail to joe@example.com is owed from an earlier run; apply, or provisioner mail "
            "send, sends it.",
        ),
        notice(
            NoticeKind.LETTER_UNKNOWN,
            "kim",
            "The welcome e-mail to kim@example.com may or may not have arrived (the server answered 354). "
            "To decide: provisioner mail settle kim@example.com --sent or --resend",
        ),
        notice(
            NoticeKind.LETTER_FAILED,
            "lou",
            "The welcome e-mail to lou@example.com was refused for good (550 no such user). "
            "Once mended: provisioner mail send lou@example.com",
        ),
        notice(
            NoticeKind.INTERRUPTED,
            "ned",
            "Run 7 was interrupted during CreateUser of user:ned@example.com; the next apply first asks the "
            "portal how it ended.",
        ),
    )


def hostile() -> Plan:
    """Return a plan whose names contain markup or commands that an output format has to escape."""
    fence = "`" * 3
    company = Company(
        "<b>1</b>",
        f"SARL {fence}</details><script>alert(1)</script> | @everyone #123 ::error::stop",
        "1",
        CLIENT,
    )
    eve = person(
        "Eve\n::stop-commands::x",
        "##[error]\x1b[31m \u202e[link](https://example.com) <!-- ",
        company.number,
        type=UserType.ADMINISTRATOR,
        apps=("**bold** :tada: /close", "~~struck~~ &lt; ![x](y)"),
        phone="`phone`",
        email="`eve`|<i>@example.com",
    )
    return plan_between(
        State(),
        state(company, eve),
        Notice(
            NoticeKind.UNMANAGED, user_address("x"), "www.example.com and @someone <img src=x> \r\n# heading"
        ),
        letters={email_key(eve.email): "<u>"},
        reasons={email_key(eve.email): "because `of` GH-1\nPlan: 0 to add"},
    )


def blocked() -> Plan:
    """Return a plan with a warning and two errors. One of the errors has no source line."""
    lone = replace(SOPHIE, companies=frozenset({"004301", "004303"}))
    plan = plan_between(state(*EVERYBODY), state(*(lone if one is SOPHIE else one for one in EVERYBODY)))
    return replace(
        plan,
        diagnostics=(
            error(
                "R2",
                "Garage Lefèvre SARL (004303) has 2 users billed to it and no open administrator among them.",
                "Write type: administrator for one of them.",
                Source("clients/004303.yaml", 14, 11),
            ),
            error(
                "limit-closures",
                "9 accounts would be closed, and at most 5 may be in one plan.",
                "If this is meant, raise safety.max_closures in provisioner.yaml, or take part of it:\n"
                "  provisioner plan --target company:004303",
            ),
            warning("pending-administrator", "The only administrator of 004303 is still to be validated."),
        ),
    )


def empty() -> Plan:
    """Return a plan without changes, with one adoption and two notices."""
    return Plan(
        "portal",
        adoptions=(Adoption(user_address("zoe@example.com"), "id-zoe"),),
        notices=every_notice()[:2],
    )


def large(number: int = 5_000) -> Plan:
    """Return a plan that creates ``number`` companies and one administrator for each of them.

    In every tenth company, the administrator already exists, and the plan closes this account.
    """
    changes: list[Change] = []
    for index in range(number):
        company = Company(f"{index:06}", f"Société {index} & Fils", None, CLIENT)
        user = person("Jean", f"Dupont-{index}", company.number, type=UserType.ADMINISTRATOR)
        closed = replace(user, status=Status.CLOSED)
        changes.append(Change(company_address(company.number), None, company))
        address = user_address(email_key(user.email))
        changes.append(Change(address, user, closed) if index % 10 == 0 else Change(address, None, user))
    return Plan("portal", tuple(changes))


SITUATIONS = {
    "onboarding": onboarding,
    "next-month": next_month,
    "hostile": hostile,
    "blocked": blocked,
    "empty": empty,
}
