"""The two schema extensions, for the fields that the standard schemas of SCIM lack.

The files ``schemas/scim-user.schema.json`` and ``schemas/scim-company.schema.json`` are generated from
``TABLE``. SCIM servers load these files. The driver's module ``discovery`` contains the same attributes,
because some servers do not describe their schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from provisioner.model import BillingMode, Status
from provisioner.portals.scim.path import COMPANY, CORE, USER

SCHEMA = f"{CORE}Schema"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One SCIM attribute. If ``parts`` is not empty, it is multi-valued and has these sub-attributes."""

    name: str
    description: str
    words: tuple[str, ...] = ()
    """The allowed values; empty if every text is allowed."""
    unique: bool = False
    parts: tuple[Attribute, ...] = ()


_RECEIPTS = Attribute(
    "receipts",
    "The latest writes of provisioner, so that a repeated one is known again.",
    parts=(
        Attribute("value", "The key of the write."),
        Attribute("ledger", "The ledger for which it was done."),
        Attribute("version", "A digest of what the write left, as a decimal number."),
    ),
)

TABLE: dict[str, tuple[str, str, tuple[Attribute, ...]]] = {
    USER: (
        "PortalUser",
        "A client user of an accounting firm's portal.",
        (
            Attribute("billedCompany", "The number of the dossier to which the user is billed."),
            Attribute(
                "status",
                "Whether a user who is not active is closed, or awaits validation.",
                words=tuple(map(str, Status)),
            ),
            Attribute(
                "applicationEndings",
                "Entitlements of the type ending, and the last day on which each works.",
                parts=(
                    Attribute("value", "The application."),
                    Attribute("ends", "The last day, as YYYY-MM-DD, in Europe/Paris."),
                ),
            ),
            Attribute("pending", "A step of several writes that is under way or was cut off, as JSON."),
            _RECEIPTS,
        ),
    ),
    COMPANY: (
        "PortalCompany",
        "A company (dossier) of an accounting firm's portal; its members have access to it.",
        (
            Attribute("number", "The dossier number.", unique=True),
            Attribute("siren", "The SIREN, nine digits."),
            Attribute("billingMode", "Who is billed.", words=tuple(map(str, BillingMode))),
            Attribute("offer", "The pricing offer."),
            Attribute(
                "billingEnds", "The last day that is billed, as YYYY-MM-DD; absent while billing goes on."
            ),
            _RECEIPTS,
        ),
    ),
}


def schema_resource(urn: str) -> dict[str, Any]:
    """Return the Schema resource (RFC 7643, section 7) of the extension ``urn``."""
    name, description, attributes = TABLE[urn]
    return {
        "schemas": [SCHEMA],
        "id": urn,
        "name": name,
        "description": description,
        "attributes": [_definition(attribute) for attribute in attributes],
    }


def _definition(attribute: Attribute) -> dict[str, Any]:
    defined: dict[str, Any] = {
        "name": attribute.name,
        "type": "complex" if attribute.parts else "string",
        "multiValued": bool(attribute.parts),
        "description": attribute.description,
        "required": False,
        "mutability": "readWrite",
        "returned": "default",
    }
    if attribute.parts:
        defined["subAttributes"] = [_definition(part) for part in attribute.parts]
    else:
        defined |= {"caseExact": True, "uniqueness": "server" if attribute.unique else "none"}
    if attribute.words:
        defined["canonicalValues"] = list(attribute.words)
    return defined
