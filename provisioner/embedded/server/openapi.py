"""The generator of the service's OpenAPI 3.1 document, from the table of operations."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from provisioner.embedded.server.problem_details import MEDIA_TYPE, PROBLEMS
from provisioner.embedded.server.routes import (
    BY_NAME,
    EVERYBODY,
    MAY_VALIDATE,
    ROUTES,
    SCOPES,
    Operation,
    Parameter,
)
from provisioner.embedded.server.schemas import Nothing, ProblemBody, TokenError

REFERENCE = "#/components/schemas/{model}"

_RETRY = {429, 503}
_WORDS = (
    "The embedded portal of provisioner. Every rule of the portal is enforced here; a refusal is a "
    "problem (RFC 9457) that names the rule. Writes carry `If-Match` (the version that is changed), "
    "`Idempotency-Key` (a step that was done gives its answer again) and, for a ledger that holds a lease, "
    "`Lease` and `Fencing-Token`. HEAD is answered wherever GET is. The page behind an activation link lies "
    "under the portal's public address and is for people."
)


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document. It is deterministic: the same table always gives the same document."""
    named: set[type[BaseModel]] = {ProblemBody, TokenError}
    for entry in ROUTES:
        named.update(model for model in (entry.takes, *entry.gives.values()) if model not in (None, Nothing))
    models = sorted(named, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    paths: dict[str, Any] = {}
    for entry in ROUTES:
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry)
    return {
        "openapi": "3.1.0",
        "info": {"title": "provisioner portal", "version": "1", "description": _WORDS},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "client": {
                    "type": "oauth2",
                    "flows": {
                        "clientCredentials": {"tokenUrl": BY_NAME["token"].path, "scopes": dict(SCOPES)}
                    },
                }
            },
        },
    }


def _operation(entry: Operation) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": entry.name, "summary": entry.summary}
    if entry.words:
        operation["description"] = entry.words
    if entry.access:
        operation["security"] = [{"client": [entry.access]}]
    roles = MAY_VALIDATE if entry.validates else entry.roles
    if roles != EVERYBODY:
        operation["x-roles"] = sorted(roles)
    if entry.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in entry.parameters]
    if entry.takes is not None:
        operation["requestBody"] = _request(entry, entry.takes)
    operation["responses"] = {str(status): _answer(entry, status) for status in sorted(entry.statuses)}
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.words,
        "schema": parameter.schema,
    }


def _request(entry: Operation, model: type[BaseModel]) -> dict[str, Any]:
    if model is Nothing:
        empty = {"type": "object", "additionalProperties": False, "maxProperties": 0}
        return {"required": False, "content": {"application/json": {"schema": empty}}}
    media = "application/x-www-form-urlencoded" if entry.name == "token" else "application/json"
    return {"required": True, "content": {media: {"schema": _reference(model)}}}


def _answer(entry: Operation, status: int) -> dict[str, Any]:
    if status in entry.gives:
        model = entry.gives[status]
        answer: dict[str, Any] = {"description": _SUCCESSES[status]}
        if model is not None:
            answer["content"] = {"application/json": {"schema": _reference(model)}}
        elif entry.name == "openapi":
            answer["content"] = {"application/json": {"schema": {"type": "object"}}}
        if entry.etag:
            answer["headers"] = {"ETag": _header("Names this version.", {"type": "string", "pattern": '^"'})}
        if status == 201:
            answer["headers"]["Location"] = _header("Where it is.", {"type": "string", "pattern": "^/v1/"})
        return answer
    titles = sorted({title for code, title in PROBLEMS.values() if code == status})
    answer = {"description": "; ".join(titles)}
    answer["content"] = {MEDIA_TYPE: {"schema": _reference(ProblemBody)}}
    if entry.name == "token" and status in (400, 401):
        answer["content"] = {"application/json": {"schema": _reference(TokenError)}}
    if status in _RETRY:
        answer["headers"] = {
            "Retry-After": _header("Seconds to wait.", {"type": "integer", "minimum": 0, "maximum": 3600})
        }
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": _header("How to log in.", {"type": "string"})}
    if status == 403:
        words = "The scope that is needed, where it is the token that lacks it."
        answer["headers"] = {"WWW-Authenticate": {**_header(words, {"type": "string"}), "required": False}}
    if status == 405:
        answer["headers"] = {"Allow": _header("The methods that it takes.", {"type": "string"})}
    return answer


_SUCCESSES = {200: "Done", 201: "Created", 204: "Done"}


def _header(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "required": True, "schema": schema}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
