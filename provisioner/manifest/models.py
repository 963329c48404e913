"""The two files that people write, as pydantic models over text data; and their JSON Schemas.

Descriptions carry the names that the portal's wizard uses, so that an editor explains each field in
the words of those who fill it in. pydantic takes a tenth of a second to import: only what has to
explain a refusal imports this module, where the compiled form serves (validation.py).
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from provisioner.manifest import fields, normalizers, urls
from provisioner.manifest.declared import Activation
from provisioner.model import BillingMode, Operator, Production, UserType

T = TypeVar("T")
Kind = Literal["client", "provisioner"]


class _NotNull:
    """Makes an optional field one that may be left out but not left empty.

    ``apps:`` with nothing behind it could mean none or unmanaged, so it means neither.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


Omittable = Annotated[T | None, _NotNull()]


Email = Annotated[str, normalizers.EMAIL]
Name = Annotated[str, normalizers.NAME]
Phone = Annotated[str, normalizers.PHONE]
Siren = Annotated[str, normalizers.SIREN]
Dossier = Annotated[str, StringConstraints(pattern=fields.DOSSIER_PATTERN)]
Language = Literal["fr", "en"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preset(_Entry):
    """What a profile or `defaults:` may say for a user. What the user says himself wins."""

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


class User(Preset):
    """Utilisateur client."""

    email: Email = Field(
        description="E-mail : identifiant de connexion, unique dans tout le portail.",
        examples=["claire.martin@example.fr"],
    )
    previous_email: Omittable[Email] = Field(
        None, description="Ancien e-mail : the address under which he was declared before, when it changes."
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


class Company(_Entry):
    """Entreprise facturée (dossier) : the company to which this file's users are billed."""

    number: Dossier = Field(
        description="Numéro de dossier, within quotes: its leading zeros count.", examples=["004217"]
    )
    name: Name = Field(description="Nom de l'entreprise (raison sociale).")
    siren: Omittable[Siren] = Field(None, description="SIREN : neuf chiffres.", examples=["732829320"])


class Billing(_Entry):
    """Facturation : set together in the wizard's first step."""

    mode: BillingMode = Field(
        description="Mode de facturation : Client (client) ou Cabinet d'expertise comptable (firm)."
    )
    offer: Name = Field(description="Offre tarifaire, by the catalogue's name.", examples=["Essentiel"])


class ClientManifest(_Entry):
    """One billed company and its client users."""

    model_config = ConfigDict(title="Client manifest")

    company: Company
    billing: Omittable[Billing] = Field(None, description="Facturation. Absent: left as it is.")
    users: tuple[User, ...] = Field((), description="Utilisateurs client billed to this company.")


class Firm(_Entry):
    """Le cabinet."""

    name: Name = Field(description="Nom du cabinet, as it reads in letters.")
    language: Language = Field("fr", description="Langue des emails, where a user has none of his own.")
    email_domains: tuple[Annotated[str, normalizers.DOMAIN], ...] = Field(
        (), description="Domaines de messagerie du cabinet: never a client's address."
    )
    staff: tuple[Email, ...] = Field(
        (), description="Adresses des collaborateurs at other domains: never a client's either."
    )


class Catalogue(_Entry):
    """What the firm may give: published nowhere, so it is said here."""

    offers: tuple[Name, ...] = Field((), description="Offres tarifaires.")
    apps: tuple[Annotated[str, normalizers.OTHER_APP], ...] = Field(
        (), description="Applications, but for the production ones, which are built in."
    )
    profiles: dict[str, Preset] = Field(
        default_factory=dict, description="Profils : named sets of defaults for users."
    )


class _Secretive(_Entry):
    """A place that may want a secret. It is named by environment variable or file, never written here."""

    secret_env: Annotated[str, StringConstraints(pattern=urls.VARIABLE_PATTERN)] = Field(
        "", description="The environment variable that holds the secret."
    )
    secret_file: str = Field("", description="The file that holds the secret.")


class PortalAccess(_Secretive):
    """Le portail."""

    url: Annotated[str, normalizers.PORTAL] = Field(
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
    public_url: Annotated[str, normalizers.WEB_ADDRESS] = Field(
        "", description="Where users reach the portal: the base of activation links."
    )
    client_id: str = Field(
        "",
        description="The name under which this program logs in to a portal's service. "
        "The environment variable PROVISIONER_PORTAL_CLIENT otherwise; "
        "the secret is in PROVISIONER_PORTAL_SECRET unless secret_env or secret_file name another place.",
    )
    ca_file: str = Field("", description="Certificates to trust, where they are not the system's.")
    proxy: Annotated[str, normalizers.PROXY] = Field(
        "", description="The proxy to go through; none is taken from the environment."
    )
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


class LedgerPlace(_Secretive):
    """Where runs, letters and managed users are remembered."""

    url: Annotated[str, normalizers.DATABASE] = Field(
        "sqlite:///ledger.db",
        description="sqlite:///FILE beside this file, sqlite:////ABSOLUTE/FILE, "
        "or postgresql://USER@HOST/DATABASE, which runners on several machines share.",
    )


class Mail(_Entry):
    """Email de bienvenue. Passwords are named by environment variable or file, never written here."""

    sender: Annotated[str, normalizers.MAILBOX] = Field(
        alias="from",
        description="Expéditeur, with or without a name.",
        examples=["Cabinet Durand <acces@durand-associes.fr>"],
    )
    transport: Annotated[str, normalizers.TRANSPORT] = Field(
        "maildir:outbox", description="maildir:FOLDER, smtp://HOST:PORT (STARTTLS) or smtps://HOST:PORT."
    )
    reply_to: Annotated[str, normalizers.MAILBOX] = Field("", description="Répondre à.")
    welcome: Literal["ours", "portal", "none"] = Field(
        "ours",
        description="Who sends the welcome: this program; the portal, where that is an identity system "
        "(SCIM) which does so itself; or nobody.",
    )
    on_unknown: Literal["hold", "resend"] = Field(
        "hold", description="When it is not known whether a letter left: ask a person, or send it once more."
    )
    username: str = Field("", description="The mail server's user name.")
    password_env: Annotated[str, StringConstraints(pattern=urls.VARIABLE_PATTERN)] = Field(
        "", description="The environment variable that holds the mail server's password."
    )
    password_file: str = Field("", description="The file that holds the mail server's password.")
    tls: Literal["required", "none"] = Field(
        "required", description="none: only for a server on this very machine."
    )
    ca_file: str = Field("", description="Certificates to trust, where they are not the system's.")
    connections: Annotated[int, normalizers.CONNECTIONS] = Field(
        16, description="Connections side by side, at most; fewer where the server takes fewer."
    )
    timeout: Annotated[int, normalizers.SECONDS] = Field(60, description="Seconds to wait for an answer.")


class Safety(_Entry):
    """What may not happen by accident."""

    absent: Literal["report", "close"] = Field(
        "report", description="A user who left the manifests: reported, or closed."
    )
    self_service: Literal["keep", "restore"] = Field(
        "keep", description="An e-mail or phone that the user changed himself: kept, or restored."
    )
    generic_addresses: Literal["warn", "error"] = Field(
        "warn", description="An address such as contact@ instead of a person's."
    )
    max_closures: Annotated[int, normalizers.CLOSURES] = Field(
        5, description="More closures than this in one plan are refused."
    )
    max_closures_percent: Annotated[int, normalizers.PERCENT] = Field(
        10, description="Likewise, as a percentage of the users managed."
    )


class WorkspaceFile(_Entry):
    """provisioner.yaml, at the root of a workspace."""

    model_config = ConfigDict(title="provisioner.yaml")

    version: Annotated[Literal["1"], WithJsonSchema({"enum": [1, "1"]})] = Field(
        description="The version of this file's form."
    )
    firm: Firm
    manifests: tuple[str, ...] = Field(("clients/",), description="Folders or files with client manifests.")
    catalogue: Catalogue = Field(default_factory=Catalogue)
    defaults: Preset = Field(default_factory=Preset, description="For every user, under his profile.")
    portal: PortalAccess = Field(default_factory=PortalAccess)
    ledger: LedgerPlace = Field(default_factory=LedgerPlace)
    mail: Mail
    safety: Safety = Field(default_factory=Safety)


MODELS: dict[Kind, type[_Entry]] = {"client": ClientManifest, "provisioner": WorkspaceFile}


class _Published(GenerateJsonSchema):
    """Without the titles that pydantic makes of field names: an editor shows the descriptions."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of one kind of file, as published in ``schemas/``."""
    generated = MODELS[kind].model_json_schema(schema_generator=_Published)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"urn:provisioner:schema:{kind}:1"}
    published: dict[str, Any] = _without_null_defaults(head | generated)
    return published


def _without_null_defaults(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_null_defaults(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_null_defaults(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }


def compiled_text() -> str:
    """The text of compiled.py: these models as pydantic-core takes them, to be used without pydantic."""
    names = {form.validate: f"forms.{name}.validate" for name, form in normalizers.FORMS.items()}
    parts = [
        f"{kind.upper()}: Any = {_expression(MODELS[kind].__pydantic_core_schema__, names)}"
        for kind in MODELS
    ]
    return _COMPILED_HEAD.format(version=pydantic_core.__version__) + "\n\n".join(parts) + "\n"


_COMPILED_HEAD = '''\
"""The models of schema.py as pydantic-core takes them. Made from these by a test, which also compares.

To import pydantic and to build the models takes longer than to read a thousand manifests; this does neither.
"""

from __future__ import annotations

from typing import Any

from provisioner.manifest import forms
from provisioner.manifest.declared import Activation
from provisioner.model import BillingMode, Operator, Production, UserType

PYDANTIC_CORE = "{version}"
"""Whose form this is; with any other version the models themselves are used."""

'''

_NOT_COMPILED = ("metadata", "ref", "serialization_alias", "model_name", "computed_fields", "title")


def _expression(node: Any, names: dict[Any, str], indent: str = "") -> str:
    """A core schema as Python writes it, without what only describes."""
    inner = indent + "    "
    if isinstance(node, dict):
        node = {key: value for key, value in node.items() if key not in _NOT_COMPILED}
        factory = node.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            # nothing written is read as an empty mapping, so that what comes out is of the one kind
            node = {"type": "default", "schema": node["schema"], "default": {}, "validate_default": True}
        entries = (f'{inner}"{key}": {_expression(value, names, inner)},\n' for key, value in node.items())
        return f"{{\n{''.join(entries)}{indent}}}" if node else "{}"
    if isinstance(node, list):
        return f"[{', '.join(_expression(item, names, indent) for item in node)}]"
    if isinstance(node, StrEnum):
        return f"{type(node).__name__}.{node.name}"
    if isinstance(node, str):
        return json.dumps(node, ensure_ascii=False)
    if isinstance(node, type):
        return "forms.Record" if issubclass(node, BaseModel) else node.__name__
    return names[node] if callable(node) else repr(node)
