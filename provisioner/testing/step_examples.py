"""Examples of steps, from which the contract and the tests of steps, plan files and roles take their inputs.

A new class of steps adds its examples to the tables of this module only.
"""

from __future__ import annotations

from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Grant,
    Production,
    Resource,
    User,
    UserType,
    month_end,
)
from provisioner.planning.steps import (
    PHASES,
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    Phased,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
)
from provisioner.testing.people import ESSENTIEL, TODAY, company, user

CONFORT = Billing(BillingMode.FIRM, "Confort")

EXAMPLES: list[tuple[Step, str]] = [
    (CreateCompany("7", "Société 7", "732829320"), "Create company 7 Société 7"),
    (SetBilling("7", ESSENTIEL), "Set the billing of company 7: the client is billed, offer Essentiel"),
    (EditCompany("7", "Compagnie Sept", None), "Correct company 7: Compagnie Sept, SIREN none"),
    (SetBilling("7", CONFORT), "Set the billing of company 7: the firm is billed, offer Confort"),
    (
        CreateUser(
            "zoe@example.fr",
            user("zoé", "7", companies=("2",), apps=("Scan",), phone="+33612345678", email="zoe@example.fr"),
        ),
        "Create administrator Zoé Martin <zoe@example.fr>",
    ),
    (
        CreateUser("yan@example.fr", user("yan", "7", "standard", production="consultation")),
        "Create standard user Yan Martin <yan@example.fr>",
    ),
    (
        CreateUser("xia@example.fr", user("xia", "7", "standard", status="to_validate")),
        "Create standard user Xia Martin <xia@example.fr>",
    ),
    (EditCompanies("ann@example.fr", add=("7",)), "Edit the companies of ann@example.fr: given 7"),
    (
        EditCompanies("ann@example.fr", add=("2",), remove=("7",)),
        "Edit the companies of ann@example.fr: given 2; withdrawn 7",
    ),
    (
        EditApps("ann@example.fr", grant=("Achats", "Scan", "Documents")),
        "Edit the applications of ann@example.fr: given Achats, Scan, Documents",
    ),
    (
        EditApps(
            "ann@example.fr",
            production=Production.CONSULTATION,
            remove=("Achats",),
            end=("Scan",),
            ends=month_end(TODAY),
        ),
        "Edit the applications of ann@example.fr: production consultation; removed at once Achats; "
        "Scan to end on 30 November 2026",
    ),
    (
        EditApps("ann@example.fr", production=Production.FULL, grant=("Scan",)),
        "Edit the applications of ann@example.fr: production full; given Scan",
    ),
    (SetType("bob@example.fr", UserType.ADMINISTRATOR), "Make bob@example.fr an administrator"),
    (SetType("ann@example.fr", UserType.STANDARD), "Make ann@example.fr a standard user"),
    (
        SetBilledCompany("bob@example.fr", "7", UserType.STANDARD),
        "Bill bob@example.fr to company 7, as standard user",
    ),
    (
        EditProfile("yan@example.fr", "yann@example.fr", "Yann", "Le Goff", "+33699999999"),
        "Correct the profile of yan@example.fr: Yann Le Goff <yann@example.fr>, phone +33 6 99 99 99 99",
    ),
    (ValidateUser("xia@example.fr"), "Validate xia@example.fr"),
    (CloseUser("xia@example.fr"), "Close the account of xia@example.fr"),
    (
        EditProfile("xia@example.fr", "xia@example.fr", "Xia", "Nguyen", None),
        "Correct the profile of xia@example.fr: Xia Nguyen <xia@example.fr>, phone none",
    ),
    (ReopenUser("xia@example.fr"), "Reopen the account of xia@example.fr"),
]
"""At least one step of each class with its description, in an order in which a portal applies them all."""

KEY = "ann@example.fr"
COMPANIES, PROFILES, ARRIVE, MOVE, NARROW, WIDEN = PHASES
ENDING = (Grant("Scan", AppState.ENDING, TODAY),)
REQUESTED = (Grant("Image", AppState.REQUESTED),)


def ann(type: str = "administrator", billed: str = "1", **fields: object) -> User:
    """Return the user Ann of the examples. ``fields`` are parameters of :func:`.people.user`."""
    return user("ann", billed, type, **fields)  # type: ignore[arg-type]


def profile(email: str = KEY, phone: str | None = None) -> EditProfile:
    """Return the step that edits the profile of Ann."""
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

ILLEGAL: list[tuple[Resource | None, Step, str, str]] = [
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
            ReopenUser(KEY),
            ValidateUser(KEY),
            CloseUser(KEY),
            profile(),
            SetType(KEY, UserType.STANDARD),
            SetBilledCompany(KEY, "2", UserType.STANDARD),
            EditCompanies(KEY),
            EditApps(KEY),
        )
    ),
]
"""Steps that the state of their resource forbids: the state, the step, the rule and the sentence."""
