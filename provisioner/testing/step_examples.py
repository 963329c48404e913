"""Examples of steps. Each class of steps occurs at least once."""

from __future__ import annotations

from provisioner.model import (
    Billing,
    BillingMode,
    Production,
    UserType,
    month_end,
)
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
)
from provisioner.testing.people import ESSENTIEL, TODAY, user

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
