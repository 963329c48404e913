"""The pydantic models and the JSON Schemas of the two files that users write.

The files are provisioner.yaml and the client manifests. The models are frozen and validate the data that
:mod:`provisioner.yaml_source` reads. The descriptions, which editors show, use the portal's French names.
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
        description="Type de client : Administrateur (administrator) ou Utilisateur standard (standard).",
    )
    production: Omittable[Production] = Field(
        None,
        description="Les trois applications de production (full) ou leurs consultations (consultation).",
    )
    apps: Omittable[tuple[Name, ...]] = Field(
        None,
        description="Applications : the others, by the catalogue's names. "
        "Absent: left as they are; []: none.",
    )
    companies: Omittable[tuple[Dossier, ...]] = Field(
        None,
        description="Accès aux dossiers : further dossier numbers; the billed company is always included. "
        "Absent: left as they are; []: only the billed company.",
    )
    removal: Omittable[Literal["month_end", "immediate"]] = Field(
        None,
        description="Retrait d'une application : à la fin du mois (month_end, the default) ou "
        "« ne pas attendre la fin du mois » (immediate).",
    )
    activation: Omittable[Activation] = Field(
        None, description="Activation : Immédiatement (immediate, the default) ou Ultérieurement (later)."
    )
    welcome_email: Omittable[StrictBool] = Field(
        None, description="Envoyer l'email de bienvenue : true (the default) or false."
    )
    language: Omittable[Language] = Field(None, description="Langue de l'email de bienvenue.")


class UserConfig(Preset, title="User"):
    """Utilisateur client."""

    email: Email = Field(
        description="E-mail : identifiant de connexion, unique dans tout le portail.",
        examples=["claire.martin@example.fr"],
    )
    previous_email: Omittable[Email] = Field(
        None,
        description="Ancien e-mail : the address under which the user was declared before, when it changes.",
    )
    first_name: Name = Field(description="Prénom.")
    last_name: Name = Field(description="Nom.")
    phone: Phone | None = Field(
        None,
        description="Téléphone. Absent: left as it is; null: no phone.",
        examples=["+33 6 12 34 56 78"],
    )
    profile: Omittable[Name] = Field(None, description="Profil : a named set of defaults of the catalogue.")
    status: Omittable[Literal["open", "closed"]] = Field(
        None, description="Fermer ce compte d'utilisateur : closed. Open is the default."
    )


class CompanyConfig(_Entry, title="Company"):
    """Entreprise facturée (dossier) : the company to which this file's users are billed."""

    number: Dossier = Field(
        description="Numéro de dossier, within quotes: its leading zeros count.", examples=["004217"]
    )
    name: Name = Field(description="Nom de l'entreprise (raison sociale).")
    siren: Omittable[Siren] = Field(None, description="SIREN : neuf chiffres.", examples=["732829320"])


class BillingConfig(_Entry, title="Billing"):
    """Facturation : set together in the wizard's first step."""

    mode: BillingMode = Field(
        description="Mode de facturation : Client (client) ou Cabinet d'expertise comptable (firm)."
    )
    offer: Name = Field(description="Offre tarifaire, by the catalogue's name.", examples=["Essentiel"])


class ClientManifest(_Entry):
    """One billed company and its client users."""

    model_config = ConfigDict(title="Client manifest")

    company: CompanyConfig
    billing: Omittable[BillingConfig] = Field(None, description="Facturation. Absent: left as it is.")
    users: tuple[UserConfig, ...] = Field((), description="Utilisateurs client billed to this company.")


class Firm(_Entry):
    """Le cabinet."""

    name: Name = Field(description="Nom du cabinet, as it reads in letters.")
    language: Language = Field("fr", description="Langue des emails, where a user has none of their own.")
    email_domains: tuple[MailDomain, ...] = Field(
        (), description="Domaines de messagerie du cabinet: never a client's address."
    )
    staff: tuple[Email, ...] = Field(
        (), description="Adresses des collaborateurs at other domains: never a client's either."
    )


class Catalogue(_Entry):
    """The offers and applications of the firm, listed here because the portal does not publish them."""

    offers: tuple[Name, ...] = Field((), description="Offres tarifaires.")
    apps: tuple[OtherApp, ...] = Field(
        (), description="Applications, but for the production ones, which are built in."
    )
    profiles: dict[str, Preset] = Field(
        default_factory=dict, description="Profils : named sets of defaults for users."
    )


class _WithSecret(_Entry):
    """The base of sections that name the environment variable or the file that contains a secret."""

    secret_env: Variable = Field("", description="The environment variable that holds the secret.")
    secret_file: str = Field("", description="The file that holds the secret.")


class PortalAccess(_WithSecret):
    """Le portail."""

    url: PortalUrl = Field(
        "sqlite:///portal.db",
        description="sqlite:///FILE beside this file, sqlite:////ABSOLUTE/FILE, "
        "postgresql://USER@HOST/DATABASE, https://HOST (the portal's service) or scim+https://HOST/PATH.",
    )
    operator: Operator = Field(
        Operator.COLLABORATOR,
        description="Rôle de qui applique : administrateur, associé (partner), chargé de clientèle "
        "(customer_manager) ou collaborateur. All but the last may validate and reopen. "
        "A portal with a log-in of its own says the role itself.",
    )
    public_url: WebAddress = Field(
        "", description="Where users reach the portal: the base of activation links."
    )
    client_id: str = Field(
        "",
        description="The name under which this program logs in to a portal's service. "
        "The environment variable PROVISIONER_PORTAL_CLIENT otherwise; "
        "the secret is in PROVISIONER_PORTAL_SECRET unless secret_env or secret_file name another place.",
    )
    ca_file: str = Field("", description="Certificates to trust, where they are not the system's.")
    proxy: ProxyUrl = Field("", description="The proxy to go through; none is taken from the environment.")
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="Where the service's paths differ, by the names of its operations in openapi.json: "
        "user: /people/{id}.",
    )
    scim: dict[str, str] = Field(
        default_factory=dict,
        description="Where a SCIM server holds things elsewhere, as attribute paths; none: nowhere. Users: "
        "first_name, last_name, work_email, phone, type, apps, production, billed, status, endings, pending, "
        "receipts. Companies: number, siren, billing_mode, offer, billing_ends, company_receipts.",
    )


class LedgerPlace(_WithSecret):
    """The ledger: the database that records runs, letters and managed users."""

    url: DatabaseUrl = Field(
        "sqlite:///ledger.db",
        description="sqlite:///FILE beside this file, sqlite:////ABSOLUTE/FILE, "
        "or postgresql://USER@HOST/DATABASE, which runners on several machines share.",
    )


class Mail(_Entry):
    """Email de bienvenue. Passwords are named by environment variable or file, never written here."""

    sender: Mailbox = Field(
        alias="from",
        description="Expéditeur, with or without a name.",
        examples=["Cabinet Durand <acces@durand-associes.fr>"],
    )
    transport: TransportUrl = Field(
        "maildir:outbox", description="maildir:FOLDER, smtp://HOST:PORT (STARTTLS) or smtps://HOST:PORT."
    )
    reply_to: Mailbox = Field("", description="Répondre à.")
    welcome: Literal["ours", "portal", "none"] = Field(
        "ours",
        description="Who sends the welcome: this program; the portal, where that is an identity system "
        "(SCIM) which does so itself; or nobody.",
    )
    on_unknown: Literal["hold", "resend"] = Field(
        "hold", description="When it is not known whether a letter left: ask a person, or send it once more."
    )
    username: str = Field("", description="The mail server's user name.")
    password_env: Variable = Field(
        "", description="The environment variable that holds the mail server's password."
    )
    password_file: str = Field("", description="The file that holds the mail server's password.")
    tls: Literal["required", "none"] = Field(
        "required", description="none: only for a server on this very machine."
    )
    ca_file: str = Field("", description="Certificates to trust, where they are not the system's.")
    connections: Connections = Field(
        16, description="Connections side by side, at most; fewer where the server takes fewer."
    )
    timeout: Seconds = Field(60, description="Seconds to wait for an answer.")


class Safety(_Entry):
    """Safety limits on the changes of one run."""

    absent: Literal["report", "close"] = Field(
        "report", description="A user who left the manifests: reported, or closed."
    )
    self_service: Literal["keep", "restore"] = Field(
        "keep", description="An e-mail or phone that the user changed: kept, or restored."
    )
    generic_addresses: Literal["warn", "error"] = Field(
        "warn", description="An address such as contact@ instead of a person's."
    )
    max_closures: Closures = Field(5, description="More closures than this in one plan are refused.")
    max_closures_percent: Percent = Field(10, description="Likewise, as a percentage of the users managed.")


class WorkspaceFile(_Entry):
    """provisioner.yaml, at the root of a workspace."""

    model_config = ConfigDict(title="provisioner.yaml")

    version: Annotated[Literal["1"], WithJsonSchema({"enum": [1, "1"]})] = Field(
        description="The version of this file's form."
    )
    firm: Firm
    manifests: tuple[str, ...] = Field(("clients/",), description="Folders or files with client manifests.")
    catalogue: Catalogue = Field(default_factory=_nothing, validate_default=True)
    defaults: Preset = Field(
        default_factory=_nothing, validate_default=True, description="For every user, under their profile."
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
