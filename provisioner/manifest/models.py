"""The pydantic models and the JSON Schemas of the two files that users write.

The files are provisioner.yaml and the client manifests. The models are frozen and validate the data that
:mod:`provisioner.yaml_source` reads. The descriptions, which editors show, add the portal's French names.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import override

from provisioner.manifest.declared import Activation
from provisioner.manifest.normalizers import (
    Closures,
    Connections,
    DatabaseUrl,
    Dossier,
    Email,
    Mailbox,
    MailDomain,
    Name,
    OtherApp,
    Percent,
    Phone,
    PortalUrl,
    ProxyUrl,
    Seconds,
    Siren,
    TransportUrl,
    Variable,
    WebAddress,
)
from provisioner.model import BillingMode, Operator, PortalTerms, Production, UserType, email_key

T = TypeVar("T")
Kind = Literal["client", "provisioner"]

if TYPE_CHECKING:
    Omittable: TypeAlias = T | None
else:
    # a field may be absent, because pydantic does not validate the default None; but null in the file is
    # refused, because an empty "apps:" could mean "no applications" or "unmanaged"
    Omittable = Annotated[T, "omittable"]

Language = Literal["fr", "en"]


def _nothing() -> Any:
    """Return an empty mapping as the default of a section. pydantic converts the mapping into the model."""
    return {}


class _Entry(BaseModel):
    # defer_build: the validators of sections are built with the validator of their file, not at import
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())


class Preset(_Entry):
    """Fields that a profile or `defaults:` may set for users. The user's own entry takes precedence."""

    type: Omittable[UserType] = Field(
        None,
        description="The type of user (Type de client): administrator (Administrateur) or "
        "standard (Utilisateur standard).",
    )
    production: Omittable[Production] = Field(
        None,
        description="The three production applications (Production Compta, Fiscalité, Paie): full, "
        "or consultation, which is read only. All three change at once.",
    )
    apps: Omittable[tuple[Name, ...]] = Field(
        None,
        description="The other applications (Applications), by the names in the catalogue. "
        "Absent: not managed, left as they are. A list: exactly these. []: none.",
    )
    companies: Omittable[tuple[Dossier, ...]] = Field(
        None,
        description="Access to further companies (Accès aux dossiers), by number. The billed company is "
        "always included. Absent: not managed, left as they are. A list: exactly these. "
        "[]: only the billed company.",
    )
    removal: Omittable[Literal["month_end", "immediate"]] = Field(
        None,
        description="When an application that left apps ends: month_end (the default), on the last day of "
        "the month; or immediate (« ne pas attendre la fin du mois »).",
    )
    activation: Omittable[Activation] = Field(
        None,
        description="Activation: immediate (Immédiatement, the default): the account is active at once, and "
        "a pending account is validated; later (Ultérieurement): the account is created pending, and "
        "provisioner never validates it.",
    )
    welcome_email: Omittable[StrictBool] = Field(
        None,
        description="Send one welcome e-mail when provisioner makes the account active (Envoyer l'email de "
        "bienvenue): true (the default) or false. A later change of this field sends nothing.",
    )
    language: Omittable[Language] = Field(
        None, description="The language of the welcome e-mail. Absent: the language of the firm."
    )


class UserConfig(Preset, title="User"):
    """A user of the portal (Utilisateur client)."""

    email: Email = Field(
        description="The e-mail address (E-mail), which is the log-in and unique in the whole portal. "
        "A change that the user made is reported and left, unless safety: self_service: restore.",
        examples=["claire.martin@example.fr"],
    )
    previous_email: Omittable[Email] = Field(
        None,
        description="The previous e-mail address of the same account, when email changes: the account keeps "
        "everything, and gets the new log-in.",
    )
    first_name: Name = Field(description="First name (Prénom).")
    last_name: Name = Field(description="Last name (Nom).")
    phone: Phone | None = Field(
        None,
        description="Phone (Téléphone). Absent: not managed, left as it is. null: no phone. "
        "A change that the user made is reported and left, unless safety: self_service: restore.",
        examples=["+33 6 12 34 56 78"],
    )
    profile: Omittable[Name] = Field(
        None,
        description="The name of a profile in the catalogue: a set of defaults. The user's own fields take "
        "precedence.",
    )
    status: Omittable[Literal["open", "closed"]] = Field(
        None,
        description="closed: close the account (Fermer ce compte d'utilisateur). Every other declared change "
        "is applied first. open (the default): a closed account is reopened with everything it had.",
    )


class CompanyConfig(_Entry, title="Company"):
    """The company to which the users of this file are billed (Entreprise facturée, dossier)."""

    number: Dossier = Field(
        description="The dossier number (Numéro de dossier), unique, in quotes: its leading zeros count.",
        examples=["004217"],
    )
    name: Name = Field(description="The name of the company (Raison sociale).")
    siren: Omittable[Siren] = Field(
        None, description="SIREN: nine digits with a valid checksum.", examples=["732829320"]
    )


class BillingConfig(_Entry, title="Billing"):
    """Billing (Facturation), which is the first step of the portal's wizard."""

    mode: BillingMode = Field(
        description="Who is billed (Mode de facturation): client (Client) or firm (Cabinet d'expertise "
        "comptable)."
    )
    offer: Name = Field(
        description="The offer (Offre tarifaire), by its name in the catalogue.", examples=["Essentiel"]
    )


class ClientManifest(_Entry):
    """One billed company and its client users."""

    model_config = ConfigDict(title="Client manifest")

    company: CompanyConfig
    billing: Omittable[BillingConfig] = Field(
        None,
        description="The billing of the company. Absent: not managed, left as it is. A company to which "
        "users are billed needs one.",
    )
    users: tuple[UserConfig, ...] = Field((), description="The users that are billed to this company.")


class Firm(_Entry):
    """The accounting firm (Cabinet)."""

    name: Name = Field(description="The name of the firm, as letters show it.")
    language: Language = Field(
        "fr", description="The language of letters to users who have no language of their own."
    )
    email_domains: tuple[MailDomain, ...] = Field(
        (), description="The mail domains of the firm. An address in them is refused for a client (R14)."
    )
    staff: tuple[Email, ...] = Field(
        (), description="Addresses of the firm's staff in other domains. They are refused for a client (R1)."
    )


class Catalogue(_Entry):
    """The offers and applications of the firm, listed here because the portal does not publish them."""

    offers: tuple[Name, ...] = Field((), description="The offers (Offres tarifaires).")
    apps: tuple[OtherApp, ...] = Field(
        (), description="The applications, except the six production applications, which are built in."
    )
    profiles: dict[str, Preset] = Field(
        default_factory=dict, description="Named sets of defaults, which a user refers to with profile:."
    )


class _WithSecret(_Entry):
    """The base of sections that name the environment variable or the file that contains a secret."""

    secret_env: Variable = Field("", description="The environment variable that contains the secret.")
    secret_file: str = Field("", description="The file that contains the secret.")


class PortalAccess(_WithSecret):
    """The portal."""

    url: PortalUrl = Field(
        "sqlite:///portal.db",
        description="sqlite:///FILE beside this file, sqlite:////ABSOLUTE/FILE, "
        "postgresql://USER@HOST/DATABASE, https://HOST (a service of provisioner serve), "
        "scim+https://HOST/PATH, or the URL of a driver from another package.",
    )
    operator: Operator = Field(
        Operator.COLLABORATOR,
        description="The role of the person who applies: administrator (administrateur), partner (associé), "
        "customer_manager (chargé de clientèle) or collaborator (collaborateur). A collaborator cannot "
        "validate (R7) or reopen (R8). A portal that authenticates its clients decides the role itself.",
    )
    public_url: WebAddress = Field(
        "", description="The address at which users reach the portal. Activation links begin with it."
    )
    client_id: str = Field(
        "",
        description="The name of the API client with which provisioner logs in to a service. "
        "Absent: the environment variable PROVISIONER_PORTAL_CLIENT. "
        "The secret is in PROVISIONER_PORTAL_SECRET, unless secret_env or secret_file name another place.",
    )
    ca_file: str = Field(
        "", description="A PEM file of CA certificates to trust instead of those of the system."
    )
    proxy: ProxyUrl = Field(
        "", description="The URL of an HTTP proxy. Proxy variables of the environment are not used."
    )
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="URL paths that differ from those of provisioner serve, by the name of the operation in "
        "openapi.json, for example {user: '/people/{id}'}.",
    )
    scim: dict[str, str] = Field(
        default_factory=dict,
        description="Attribute paths of a SCIM server that differ from the defaults; none: not stored. "
        "Users: first_name, last_name, work_email, phone, type, apps, production, billed, status, endings, "
        "pending, receipts. Companies: number, siren, billing_mode, offer, billing_ends, company_receipts.",
    )


class LedgerPlace(_WithSecret):
    """The ledger: the database that records runs, letters and managed users."""

    url: DatabaseUrl = Field(
        "sqlite:///ledger.db",
        description="sqlite:///FILE beside this file, sqlite:////ABSOLUTE/FILE, "
        "or postgresql://USER@HOST/DATABASE, which runners on several machines share.",
    )


class Mail(_Entry):
    """The welcome e-mails. A password is never written here: name an environment variable or a file."""

    sender: Mailbox = Field(
        alias="from",
        description="The sender (Expéditeur), with or without a name.",
        examples=["Cabinet Durand <acces@durand-associes.fr>"],
    )
    transport: TransportUrl = Field(
        "maildir:outbox",
        description="maildir:FOLDER (files), smtp://HOST:PORT (STARTTLS), smtps://HOST:PORT (TLS), or the "
        "URL of a transport from another package.",
    )
    reply_to: Mailbox = Field("", description="The address for replies (Répondre à).")
    welcome: Literal["ours", "portal", "none"] = Field(
        "ours",
        description="Who sends the welcome: ours, provisioner; portal, an identity system (SCIM) that "
        "welcomes new users itself; none, no welcome is sent.",
    )
    on_unknown: Literal["hold", "resend"] = Field(
        "hold",
        description="What happens to a letter of which it is unknown whether it arrived: hold, a person "
        "decides (mail settle); resend, the same letter is sent once more.",
    )
    username: str = Field("", description="The user name for the mail server.")
    password_env: Variable = Field(
        "", description="The environment variable that contains the password for the mail server."
    )
    password_file: str = Field("", description="The file that contains the password for the mail server.")
    tls: Literal["required", "none"] = Field(
        "required", description="required, or none: only for a mail server on the same machine."
    )
    ca_file: str = Field(
        "", description="A PEM file of CA certificates to trust instead of those of the system."
    )
    connections: Connections = Field(
        16,
        description="The maximum number of simultaneous connections. A server that accepts fewer gets fewer.",
    )
    timeout: Seconds = Field(60, description="The time in seconds to wait for an answer of the mail server.")


class Safety(_Entry):
    """Safety limits on the changes of one run."""

    absent: Literal["report", "close"] = Field(
        "report", description="What happens to a managed user who left the manifests: report or close."
    )
    self_service: Literal["keep", "restore"] = Field(
        "keep",
        description="What happens to an e-mail address or phone that the user changed: keep or restore.",
    )
    generic_addresses: Literal["warn", "error"] = Field(
        "warn",
        description="What an address such as contact@, instead of a person's, causes (S1): warn or error.",
    )
    max_closures: Closures = Field(5, description="A plan with more closures than this is refused.")
    max_closures_percent: Percent = Field(
        10, description="The same as a percentage of the managed accounts, from ten accounts on."
    )


class WorkspaceFile(_Entry):
    """provisioner.yaml, at the root of a workspace."""

    model_config = ConfigDict(title="provisioner.yaml")

    version: Annotated[Literal["1"], WithJsonSchema({"enum": [1, "1"]})] = Field(
        description="The version of the format of this file."
    )
    firm: Firm
    manifests: tuple[str, ...] = Field(("clients/",), description="Folders or files with client manifests.")
    catalogue: Catalogue = Field(default_factory=_nothing, validate_default=True)
    defaults: Preset = Field(
        default_factory=_nothing,
        validate_default=True,
        description="Defaults for every user. A profile takes precedence.",
    )
    portal: PortalAccess = Field(default_factory=_nothing, validate_default=True)
    ledger: LedgerPlace = Field(default_factory=_nothing, validate_default=True)
    mail: Mail
    safety: Safety = Field(default_factory=_nothing, validate_default=True)

    @cached_property
    def terms(self) -> PortalTerms:
        """Return what the portal's rules need: catalogue, mail domains and staff of the firm."""
        return PortalTerms(
            offers=frozenset(self.catalogue.offers),
            apps=frozenset(self.catalogue.apps),
            email_domains=frozenset(self.firm.email_domains),
            staff=frozenset(map(email_key, self.firm.staff)),
        )


MODELS: dict[Kind, type[_Entry]] = {"client": ClientManifest, "provisioner": WorkspaceFile}


class _Published(GenerateJsonSchema):
    """The schema generator. It omits null defaults, and the titles that pydantic adds to fields."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    @override
    def default_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", "") is None:
            del found["default"]
        return found


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema of one kind of file, as published in ``schemas/``."""
    generated = MODELS[kind].model_json_schema(schema_generator=_Published)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"urn:provisioner:schema:{kind}:1"}
    return head | generated
