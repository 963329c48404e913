"""The steps of a change and their phases, the effect of each step, and the steps that are refused."""

from __future__ import annotations

import pytest
from people import ESSENTIEL, TODAY, company, user

from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Production,
    Resource,
    User,
    UserType,
    company_address,
    user_address,
)
from provisioner.planning.steps import (
    PHASES,
    STEPS,
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    IllegalStep,
    Phase,
    Phased,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
    address_of,
    after,
    steps_between,
)

KEY = "ann@example.fr"
COMPANIES, PROFILES, ARRIVE, MOVE, NARROW, WIDEN = PHASES
CONFORT = Billing(BillingMode.FIRM, "Confort")
ENDING = (Grant("Scan", AppState.ENDING, TODAY),)
REQUESTED = (Grant("Image", AppState.REQUESTED),)


def ann(type: str = "administrator", billed: str = "1", **fields: object) -> User:
    return user("ann", billed, type, **fields)  # type: ignore[arg-type]


def profile(email: str = KEY, phone: str | None = None) -> EditProfile:
    return EditProfile(KEY, email, "Ann", "Martin", phone)


CHANGES: dict[str, tuple[Resource | None, Resource, list[Phased]]] = {
    "a company arrives": (
        None,
        company("1", siren="732829320"),
        [(COMPANIES, CreateCompany("1", "Company 1", "732829320")), (COMPANIES, SetBilling("1", ESSENTIEL))],
    ),
    "a company without billed users": (
        None,
        company("1", billing=None),
        [(COMPANIES, CreateCompany("1", "Company 1"))],
    ),
    "another name": (company("1"), company("1", name="B"), [(COMPANIES, EditCompany("1", "B"))]),
    "a SIREN": (
        company("1"),
        company("1", siren="732829320"),
        [(COMPANIES, EditCompany("1", "Company 1", "732829320"))],
    ),
    "another offer": (company("1"), company("1", billing=CONFORT), [(COMPANIES, SetBilling("1", CONFORT))]),
    "billed from now on": (
        company("1", billing=None),
        company("1"),
        [(COMPANIES, SetBilling("1", ESSENTIEL))],
    ),
    "an administrator arrives": (None, ann(), [(ARRIVE, CreateUser(KEY, ann()))]),
    "a standard user arrives": (None, ann("standard"), [(WIDEN, CreateUser(KEY, ann("standard")))]),
    "an account closes": (ann(), ann(status="closed"), [(NARROW, CloseUser(KEY))]),
    "one that waits closes": (
        ann(status="to_validate"),
        ann(status="closed"),
        [(NARROW, CloseUser(KEY))],
    ),
    "a closed account stays closed": (ann(status="closed"), ann(status="closed"), []),
    "an administrator is reopened": (
        ann("standard", phone="+33612345678", companies=("2",), apps=("Scan",), status="closed"),
        ann(),
        [
            (ARRIVE, profile()),
            (ARRIVE, SetType(KEY, UserType.ADMINISTRATOR)),
            (ARRIVE, EditCompanies(KEY, remove=("2",))),
            (ARRIVE, EditApps(KEY, remove=("Scan",))),
            (ARRIVE, ReopenUser(KEY)),
        ],
    ),
    "a standard user is reopened": (
        ann(status="closed"),
        ann("standard", companies=("2",)),
        [
            (WIDEN, SetType(KEY, UserType.STANDARD)),
            (WIDEN, EditCompanies(KEY, add=("2",))),
            (WIDEN, ReopenUser(KEY)),
        ],
    ),
    "an administrator is validated": (
        ann("standard", companies=("2",), grants=ENDING, status="to_validate"),
        ann(companies=("3",), phone="+33612345678", apps=("Documents",)),
        [
            (PROFILES, profile(phone="+33612345678")),
            (ARRIVE, SetType(KEY, UserType.ADMINISTRATOR)),
            (ARRIVE, EditCompanies(KEY, remove=("2",))),
            (ARRIVE, EditApps(KEY, remove=("Scan",))),
            (ARRIVE, ValidateUser(KEY)),
            (WIDEN, EditApps(KEY, grant=("Documents",))),
            (WIDEN, EditCompanies(KEY, add=("3",))),
        ],
    ),
    "an administrator is validated while moving": (
        ann(phone="+33612345678", status="to_validate"),
        ann(billed="2"),
        [
            (PROFILES, profile()),
            (ARRIVE, ValidateUser(KEY)),
            (MOVE, SetBilledCompany(KEY, "2", UserType.ADMINISTRATOR)),
            (NARROW, EditCompanies(KEY, remove=("1",))),
        ],
    ),
    "a standard user is validated": (
        ann("standard", companies=("2",), status="to_validate"),
        ann("standard"),
        [(NARROW, EditCompanies(KEY, remove=("2",))), (WIDEN, ValidateUser(KEY))],
    ),
    "one that waits goes on waiting": (
        ann(status="to_validate"),
        ann(phone="+33612345678", status="to_validate"),
        [(PROFILES, profile(phone="+33612345678"))],
    ),
    "another address": (ann(), ann(email="a@example.fr"), [(PROFILES, profile("a@example.fr"))]),
    "promoted": (ann("standard"), ann(), [(ARRIVE, SetType(KEY, UserType.ADMINISTRATOR))]),
    "demoted": (ann(), ann("standard"), [(NARROW, SetType(KEY, UserType.STANDARD))]),
    "moved and demoted": (
        ann(companies=("2",)),
        ann("standard", "2", companies=("1",)),
        [(MOVE, SetBilledCompany(KEY, "2", UserType.STANDARD))],
    ),
    "companies come and go": (
        ann(companies=("2", "4")),
        ann(companies=("5", "3")),
        [(NARROW, EditCompanies(KEY, remove=("2", "4"))), (WIDEN, EditCompanies(KEY, add=("3", "5")))],
    ),
    "applications come, end and go": (
        ann(apps=("Achats", "Documents", "Scan")),
        ann(apps=("Image",), grants=(*ENDING, Grant("Documents", AppState.ENDING, TODAY))),
        [
            (NARROW, EditApps(KEY, end=("Documents", "Scan"), remove=("Achats",), ends=TODAY)),
            (WIDEN, EditApps(KEY, grant=("Image",))),
        ],
    ),
    "an ending is cancelled and a request granted": (
        ann(grants=(*ENDING, *REQUESTED)),
        ann(apps=("Image", "Scan")),
        [(WIDEN, EditApps(KEY, grant=("Image", "Scan")))],
    ),
    "an application that stays is not granted again": (
        ann(apps=("Documents", "Scan")),
        ann(apps=("Documents", "Image", "Scan")),
        [(WIDEN, EditApps(KEY, grant=("Image",)))],
    ),
    "endings and requests stay": (ann(grants=(*ENDING, *REQUESTED)), ann(grants=(*ENDING, *REQUESTED)), []),
    "production narrows at once with what else does": (
        ann(apps=("Scan",)),
        ann(production="consultation", apps=("Image",)),
        [
            (NARROW, EditApps(KEY, production=Production.CONSULTATION, remove=("Scan",))),
            (WIDEN, EditApps(KEY, grant=("Image",))),
        ],
    ),
    "production widens with what else does": (
        ann(production="consultation", apps=("Scan",)),
        ann(apps=("Image",)),
        [
            (NARROW, EditApps(KEY, remove=("Scan",))),
            (WIDEN, EditApps(KEY, production=Production.FULL, grant=("Image",))),
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_steps_of_a_change_lead_from_before_to_after(change: str) -> None:
    before, desired, steps = CHANGES[change]
    address = company_address("1") if isinstance(desired, Company) else user_address(KEY)
    assert list(steps_between(address, before, desired)) == steps
    phases = [phase for phase, _ in steps]
    # a plan goes through the phases once: a step after one of a later phase would never be done
    assert phases == sorted(phases, key=PHASES.index)
    found = before
    for _, step in steps:
        assert address_of(step) == address
        found = after(found, step)
    assert found == desired


def test_names_of_phases_and_steps_are_those_of_saved_plans() -> None:
    assert [str(phase) for phase in Phase] == ["companies", "profiles", "arrive", "move", "narrow", "widen"]
    assert list(STEPS) == [
        "CreateCompany", "EditCompany", "SetBilling", "CreateUser", "ReopenUser", "ValidateUser", "CloseUser",
        "EditProfile", "SetType", "SetBilledCompany", "EditCompanies", "EditApps",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "step", "code", "detail"),
    [
        (company("1"), CreateCompany("1", "B"), "R13", "Dossier number 1 already belongs to Company 1."),
        (None, EditCompany("1", "B"), "unknown-company", "company:1 does not exist on this portal."),
        (None, SetBilling("1", ESSENTIEL), "unknown-company", "company:1 does not exist on this portal."),
        (ann(), CreateUser(KEY, ann()), "R1", "ann@example.fr already belongs to Ann Martin."),
        (None, CreateUser(KEY, ann(status="closed")), "R7", "ann@example.fr cannot be created closed."),
        (ann(), ReopenUser(KEY), "R8", "ann@example.fr is not closed, so cannot be reopened."),
        (ann(), ValidateUser(KEY), "R7", "ann@example.fr is not waiting for validation."),
        (ann(status="closed"), ValidateUser(KEY), "R7", "ann@example.fr is not waiting for validation."),
        (ann(status="closed"), CloseUser(KEY), "R8", "ann@example.fr is closed already."),
        *(
            (None, step, "R1", "user:ann@example.fr does not exist on this portal.")
            for step in (
                ReopenUser(KEY), ValidateUser(KEY), CloseUser(KEY), profile(),
                SetType(KEY, UserType.STANDARD), SetBilledCompany(KEY, "2", UserType.STANDARD),
                EditCompanies(KEY), EditApps(KEY),
            )
        ),
    ],
)  # fmt: skip
def test_illegal_step_is_refused_with_its_rule(
    resource: Resource | None, step: Step, code: str, detail: str
) -> None:
    with pytest.raises(IllegalStep) as caught:
        after(resource, step)
    assert (caught.value.diagnostic.code, caught.value.diagnostic.detail) == (code, detail)
    assert str(caught.value) == detail


def test_removing_an_application_the_user_does_not_have_changes_nothing() -> None:
    step = EditApps(KEY, end=("Scan", "Image"), remove=("Achats",), ends=TODAY)
    assert after(ann(grants=REQUESTED), step) == ann(grants=REQUESTED)
    assert after(ann(grants=ENDING), EditApps(KEY, end=("Scan",))) == ann(grants=ENDING)
