"""The codes that users meet: rules of the portal (R), assumptions (A), a convention (S), and problems.

This table is the only place that describes a code. Diagnostics take their summaries from it,
``provisioner explain`` prints it, and schemas/CODES.md is made from it by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

WIZARD = 'The portal\'s help page "Comment créer un accès client" (the wizard).'
HELP = 'A help page of the portal other than "Comment créer un accès client".'
SAFETY = "A safety limit of provisioner: the keys of safety: in provisioner.yaml."
STRICT = "provisioner, which reads YAML strictly so that a file means the same to every reader."
MANIFESTS = "provisioner, which checks all manifests before it plans."
PLANNING = "provisioner, while it plans against the portal."

WARNING = "Warning: nothing is stopped."
INVALID = "Error in the files: nothing is planned, and the exit code is 3."
BLOCKED = "Error of a plan: the plan cannot be applied, and the exit code is 4."
REFUSED = "Refused step: apply does the steps that do not depend on it, and the exit code is 7."
NOTE = "Note of a plan: nothing is stopped, and the plan has no step for it."
CITED = "None: plan and apply have no message with this code. Other entries refer to it."
RULE = f"{INVALID} {BLOCKED} {REFUSED}"
"""The severity of a rule that provisioner checks in the manifests, in a plan, and at each step."""


class Code(NamedTuple):
    """The entry of one code."""

    summary: str
    """The title under which diagnostics with this code are printed. It never varies."""
    explanation: str
    source: str
    """Where the rule comes from: a help page of the portal, an assumption, or provisioner itself."""
    action: str
    """What a user can do."""
    severity: str
    """What a message with this code stops: one or more of the sentences above, in their order."""


def _assumption(
    summary: str, explanation: str, action: str = "Check that your portal does the same."
) -> Code:
    return Code(
        summary, explanation, "Our assumption: the portal's help says nothing about it.", action, CITED
    )


CODES: Mapping[str, Code] = {
    # the rules of the portal
    "R1": Code(
        "E-mail address already in use",
        "An e-mail belongs to one account in the whole portal, because it is the login. Closed accounts and "
        "the firm's own staff count too, and upper and lower case make no difference (A4).",
        f"{HELP} Case and closed accounts: our assumption A4.",
        "Keep one of the two declarations, or give each person an address of their own. To change an "
        "address, write the new one as email and the old one as previous_email.",
        RULE,
    ),
    "R2": Code(
        "Company without an administrator",
        "A company with open users billed to it has at least one administrator among them at every moment. "
        "An administrator counts for the company they are billed to (A1). A pending administrator is an open "
        "user, and so counts; a warning says that this administrator cannot log in yet.",
        f"{HELP} That billing decides: our assumption A1.",
        "Write type: administrator for one of the company's users.",
        RULE,
    ),
    "R3": Code(
        "Incomplete or mixed production applications",
        "A user has the three production applications, or their three consultation twins: never fewer, and "
        "never a mix, not even for a moment (A3).",
        f"{WIZARD} At every moment: our assumption A3.",
        "Write production: full or production: consultation, and leave these six out of apps.",
        RULE,
    ),
    "R4": Code(
        "More or less than one billed company",
        "A user is billed to exactly one company, which is the company of the manifest that declares them.",
        WIZARD,
        "Keep the user in one manifest, and list the other dossiers there under companies.",
        RULE,
    ),
    "R5": Code(
        "Billed company not among the user's companies",
        "A user always has access to the company they are billed to: the wizard ticks it by itself.",
        WIZARD,
        "Add the dossier to the user's companies.",
        RULE,
    ),
    "R6": Code(
        "Billing mode unknown",
        "A company is billed in the mode client or the mode firm. The payment method is the client's own, "
        "and is never provisioned.",
        WIZARD,
        "Write mode: client or mode: firm under billing.",
        INVALID,
    ),
    "R7": Code(
        "Validation needs a right this operator lacks",
        "A user to validate cannot log in. A portal administrator, a partner or a customer manager "
        "validates; another collaborator cannot. The operator is portal: operator: or, over HTTP, the role "
        "of the API client (api-client add --role).",
        HELP,
        "Have a person with this right validate the user, or correct the operator or the API client. To plan "
        "without the user: --exclude user:E-MAIL.",
        f"{REFUSED} {NOTE}",
    ),
    "R8": Code(
        "Reopening needs a right this operator lacks",
        "Reopening a closed account needs the same right as a validation (R7). What a manifest changes on a "
        "closed account is changed before it is reopened (A17).",
        f"{HELP} The order: our assumption A17.",
        "Have a person with this right reopen the account, or correct the operator or the API client (R7). "
        "To keep the account closed, write status: closed.",
        f"{REFUSED} {NOTE}",
    ),
    "R9": Code(
        "Application ends at month end",
        "An application that is withdrawn works until the last day of the month, in Paris (A12), unless it "
        "is removed at once. It is withdrawn for all companies of the user (A11).",
        f"{HELP} The time zone: our assumption A12.",
        "To remove it at once, write removal: immediate. After the end of a month, make a new plan.",
        REFUSED,
    ),
    "R10": Code(
        "Application waiting for the firm's activation",
        "A client asked for the application in the Store. It stays requested until the firm activates it.",
        HELP,
        "To activate it, add the application to the user's apps. Otherwise it is reported and left alone.",
        f"{REFUSED} {NOTE}",
    ),
    "R11": Code(
        "User created by a client administrator",
        "A user whom a client's administrator created is billed to that administrator's company, and waits "
        "for validation (A7).",
        f"{HELP} The validation: our assumption A7.",
        "Declare the user in the company's manifest to manage the account.",
        CITED,
    ),
    "R12": Code(
        "Access to several companies",
        "A user may have access to several companies. One of them is the billed company.",
        WIZARD,
        "List the further dossiers under the user's companies.",
        CITED,
    ),
    "R13": Code(
        "Dossier number used twice",
        "A dossier number belongs to one company.",
        HELP,
        "Put all users of the company into one manifest, or correct the number.",
        f"{INVALID} {REFUSED}",
    ),
    "R14": Code(
        "Firm address used for a client access",
        "An address at one of the firm's own mail domains is never a client access. An address in a "
        "subdomain of such a domain is a warning.",
        f"{HELP} It holds for some brands of the portal only, so the domains are a setting.",
        "Give the client's own address, or correct firm: email_domains: in provisioner.yaml.",
        f"{WARNING} {RULE}",
    ),
    "R15": Code(
        "Billing of a company stops",
        "The billing of a company stops at the end of the month in which every user billed to it is closed "
        "or billed elsewhere.",
        HELP,
        "Nothing, if this is meant. The plan says the date.",
        NOTE,
    ),
    "S1": Code(
        "Generic address instead of a person's",
        "Everybody who reads a shared mailbox such as contact@ or compta@ gets the access of this user.",
        f"Advice. {HELP}",
        "Give the person's own address. safety: {generic_addresses: error} makes it an error.",
        f"{WARNING} {INVALID}",
    ),
    # what the portal's help does not say
    "A1": _assumption(
        "An administrator counts for the billed company",
        "An administrator counts for the company they are billed to, not for each company they see (R2).",
    ),
    "A3": _assumption(
        "The production trio is whole at every moment",
        "The rule R3 holds during a change too, so a switch removes and grants in one step, at once.",
    ),
    "A4": _assumption(
        "E-mails are compared without case",
        "E-mails that differ only in upper and lower case are the same, and closed accounts keep theirs "
        "(R1).",
    ),
    "A7": _assumption(
        "A client administrator's users wait for validation",
        "A user whom a client administrator creates waits until the firm validates the account (R11).",
    ),
    "A9": _assumption(
        "Offers and applications are the firm's catalogue",
        "The portal publishes neither its offers nor all its applications, and both differ by firm.",
        "List yours under catalogue: in provisioner.yaml.",
    ),
    "A11": _assumption(
        "Applications belong to the user",
        "A user has an application for all their companies, not for one of them.",
    ),
    "A12": _assumption(
        "Months end in Paris",
        "The last day of a month (R9) is that of the time zone Europe/Paris.",
    ),
    "A13": _assumption(
        "A SIREN has nine digits and is not the key",
        "A SIREN is optional, and its checksum must be right. Companies are identified by the dossier "
        "number.",
        "Correct the SIREN, or leave it out.",
    ),
    "A16": _assumption(
        "Phones are optional, in international form",
        "A phone is kept as +33612345678. French national numbers are understood.",
        "Write the number with its country code, or leave it out.",
    ),
    "A17": _assumption(
        "A closed account is changed before it is reopened",
        "What a manifest changes on a closed account is changed before the account is reopened (R8).",
    ),
    # problems in the files
    "yaml-syntax": Code(
        "Not valid YAML",
        "The file cannot be read from this position on. Often a quote, a colon or an indentation is wrong.",
        STRICT,
        "Correct the line, or the line above it.",
        INVALID,
    ),
    "yaml-unsafe": Code(
        "YAML feature not accepted here",
        "Anchors, aliases, tags, merge keys, several documents and hidden characters are refused, because "
        "they make a file mean something other than it shows.",
        STRICT,
        "Write the value out where it is needed; type the text again instead of pasting it.",
        INVALID,
    ),
    "yaml-duplicate-key": Code(
        "Key written twice",
        "A mapping has the same key twice. Other readers silently keep one of the two.",
        STRICT,
        "Keep one of the two.",
        INVALID,
    ),
    "yaml-limit": Code(
        "File beyond a limit",
        "The file is too large, too deeply nested, or has too many values.",
        STRICT,
        "Split the file, or shorten the value.",
        INVALID,
    ),
    "file-encoding": Code(
        "File is not UTF-8 text",
        "Manifests are UTF-8 text.",
        STRICT,
        "Save the file as UTF-8.",
        INVALID,
    ),
    "file-unreadable": Code(
        "File cannot be read",
        "A file that manifests: names is missing, not a plain file, or not readable for you.",
        MANIFESTS,
        "Check that the file is there, and its permissions.",
        INVALID,
    ),
    "file-path": Code(
        "Path not accepted",
        "manifests: names paths inside the workspace, and no link may leave it.",
        MANIFESTS,
        "Correct manifests: in provisioner.yaml, or put a copy into the workspace.",
        INVALID,
    ),
    "no-manifests": Code(
        "No manifest found",
        "No .yaml file is in the folders that manifests: names.",
        MANIFESTS,
        "Add one file for each client, or name their folder under manifests: in provisioner.yaml.",
        WARNING,
    ),
    "unknown-key": Code(
        "Unknown key",
        "The key means nothing at this place. It is refused, because a misspelt key would be ignored.",
        MANIFESTS,
        "Use one of the keys that the message lists.",
        INVALID,
    ),
    "missing-key": Code(
        "Missing key",
        "A key that is always needed is not there, or no profile and no defaults give its value.",
        MANIFESTS,
        "Add the key.",
        INVALID,
    ),
    "wrong-value": Code(
        "Value not accepted",
        "The value has the wrong form or is not one of the accepted words, or it contradicts another "
        "setting.",
        MANIFESTS,
        "Write a value as the message says.",
        f"{WARNING} {INVALID}",
    ),
    "quote-it": Code(
        "Value to be quoted",
        "The value looks like a number, a date or a boolean. provisioner keeps its exact text, but other "
        "YAML tools read 004217 as the number 4217.",
        STRICT,
        "Put the value within quotes.",
        WARNING,
    ),
    "unknown-company": Code(
        "Unknown company",
        "A user is given a dossier that no manifest declares. plan then asks the portal: it is an error if "
        "the portal does not have it either.",
        MANIFESTS,
        "Declare the company in a manifest, or correct the number.",
        f"{WARNING} {RULE}",
    ),
    "unknown-offer": Code(
        "Unknown offer",
        "The offer is not in the firm's catalogue (A9).",
        MANIFESTS,
        "Correct the name, or add the offer under catalogue: in provisioner.yaml.",
        RULE,
    ),
    "unknown-app": Code(
        "Unknown application",
        "The application is not in the firm's catalogue (A9).",
        MANIFESTS,
        "Correct the name, or add the application under catalogue: in provisioner.yaml.",
        RULE,
    ),
    "unknown-profile": Code(
        "Unknown profile",
        "The profile is not in the firm's catalogue.",
        MANIFESTS,
        "Correct the name, or add the profile under catalogue: in provisioner.yaml.",
        INVALID,
    ),
    "siren": Code(
        "Not a SIREN",
        "A SIREN has nine digits, and the last one is a checksum (A13).",
        "Our assumption A13.",
        "Correct the SIREN, or leave it out.",
        INVALID,
    ),
    "phone": Code(
        "Not a phone number",
        "The number is not valid in its country (A16).",
        "Our assumption A16.",
        "Correct the number, write its country code, or leave it out.",
        INVALID,
    ),
    "email": Code(
        "Not an e-mail address",
        "The portal identifies a user by the e-mail, and letters go to it, so it must be an address that "
        "mail servers accept.",
        MANIFESTS,
        "Correct the address.",
        INVALID,
    ),
    "name": Code(
        "Characters not accepted in a name",
        "A name is shown in plans and letters, so it has no control characters or invisible characters.",
        MANIFESTS,
        "Type the name again instead of pasting it.",
        INVALID,
    ),
    "no-user": Code(
        "No user is billed to the company",
        "The company has billing, and no open user is billed to it.",
        MANIFESTS,
        "Add a user, or leave billing out until there is one.",
        WARNING,
    ),
    "pending-administrator": Code(
        "Company whose only administrator is still to be validated",
        "Until a person validates the account, no administrator of the company can log in (R2, R7).",
        MANIFESTS,
        "Write activation: immediate for one administrator, or have the account validated.",
        WARNING,
    ),
    "ambiguous-user": Code(
        "Two declarations for one account",
        "Two users claim the same account, one of them by its former address.",
        MANIFESTS,
        "Remove previous_email from one of them, or remove one declaration.",
        f"{INVALID} {BLOCKED}",
    ),
    "no-driver": Code(
        "Driver that is not installed",
        "The portal or the mail transport needs a driver from a package that is not installed or fails. "
        "Commands that only read manifests work without it, and plan works without the driver of the mail "
        "transport. A run of apply that needs the driver refuses before its first write, with exit code 1.",
        MANIFESTS,
        "Install the package, or correct the URL.",
        WARNING,
    ),
    # problems found while planning or applying
    "no-order": Code(
        "No safe order for these changes",
        "Each order of the steps would break a rule of the portal for a moment, for example R2.",
        PLANNING,
        "Do it in two runs: first what makes room, for example a further administrator, then the rest.",
        BLOCKED,
    ),
    "limit-closures": Code(
        "More closures than allowed",
        "The plan closes more accounts than max_closures or max_closures_percent allow. Often a file was "
        "moved.",
        SAFETY,
        "If this is meant, raise the limit, or apply a part with --target.",
        BLOCKED,
    ),
    "limit-empty": Code(
        "Manifests gone while accesses are managed",
        "The manifests declare no user, and the ledger knows managed accounts. A folder was probably moved.",
        SAFETY,
        "Check manifests: in provisioner.yaml, and that the checkout is complete.",
        BLOCKED,
    ),
    "portal-missing": Code(
        "The portal does not offer this",
        "The manifests use an application or an offer that the catalogue has and the portal lacks.",
        PLANNING,
        "Correct the catalogue; an embedded portal learns it with: provisioner portal configure",
        BLOCKED,
    ),
    "portal-cannot-hold": Code(
        "The portal has no place for this",
        "The portal (for example a SCIM server) cannot store this value, so it is left out of the plan.",
        PLANNING,
        "With SCIM, say which attribute holds it under portal: scim:, or load the extension schemas.",
        f"{WARNING} {REFUSED}",
    ),
    "cut-off": Code(
        "Step cut off in the middle",
        "A step of several requests to a SCIM server was interrupted, or a run is doing it now.",
        PLANNING,
        "If no run is at work, apply again with the ledger of that run.",
        WARNING,
    ),
    "unguarded": Code(
        "This portal takes one run at a time",
        "The portal cannot protect itself against two runs at the same time, or does not record the writes.",
        PLANNING,
        "Make sure that one run at a time applies: in GitLab with resource_group, in GitHub Actions "
        "with concurrency.",
        WARNING,
    ),
    "welcome-by-portal": Code(
        "This portal sends no welcome e-mail",
        "mail: {welcome: portal} leaves the welcome e-mails to a portal that does not send any.",
        PLANNING,
        "Write welcome: ours, or welcome: none.",
        BLOCKED,
    ),
    "restored": Code(
        "Ledger restored from a backup",
        "The ledger comes from provisioner backup, and knows nothing of what was done after that. Letters "
        "that may have gone since are parked. If the portal was restored too, accounts that were created "
        "since are created and welcomed again; if not, they are adopted without a welcome. This is shown "
        "until an apply with this ledger has done something.",
        PLANNING,
        "Look at each account that the plan adds or adopts. To send a welcome that an adopted account did "
        "not get: provisioner mail send USER. If one went already, that sends none; --again sends a second.",
        WARNING,
    ),
}


def code_named(text: str) -> str | None:
    """Return the code that ``text`` means, in any case and with or without brackets; None if there is "
    "none.
    """
    wanted = text.strip().removeprefix("[").removesuffix("]").casefold()
    return next((code for code in CODES if code.casefold() == wanted), None)
