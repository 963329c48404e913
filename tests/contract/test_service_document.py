"""The OpenAPI document is generated from the table of operations, is published and is complete."""

from __future__ import annotations

import json
from pathlib import Path

from manifest_support import compare_with_golden

from provisioner.embedded.server.endpoints import ENDPOINTS
from provisioner.embedded.server.handlers import HANDLERS
from provisioner.embedded.server.openapi import openapi
from provisioner.embedded.server.problem_details import PROBLEMS
from provisioner.embedded.server.routes import BY_NAME, ROUTES

PUBLISHED = Path(__file__).parents[2] / "schemas" / "openapi.json"


def test_published_openapi_document_equals_the_generated_one() -> None:
    compare_with_golden(PUBLISHED, json.dumps(openapi(), ensure_ascii=False, indent=2) + "\n")


def test_each_endpoint_has_one_operation_and_one_handler() -> None:
    assert [entry.name for entry in ROUTES] == list(ENDPOINTS)
    assert HANDLERS.keys() == BY_NAME.keys() - {"token"}
    assert len({(entry.method, entry.path) for entry in ROUTES}) == len(ROUTES)


def test_operations_that_write_need_the_write_scope() -> None:
    for entry in ROUTES:
        if entry.path.startswith("/v1/"):
            assert entry.access == ("portal.read" if entry.method == "GET" else "portal.write"), entry.name
        else:
            assert entry.access == "", entry.name


def test_document_lists_response_headers_and_ignored_form_fields() -> None:
    document = openapi()
    made = document["paths"]["/v1/users"]["post"]["responses"]
    assert made["201"]["headers"].keys() == {"ETag", "Location"}
    assert made["200"]["headers"].keys() == {"ETag"}
    assert made["403"]["headers"].keys() == {"WWW-Authenticate"}
    token = document["paths"]["/oauth/token"]["post"]["responses"]
    assert not token.keys() & {"415", "422"}
    assert document["components"]["schemas"]["TokenRequest"].get("additionalProperties", True)


def test_every_status_has_a_title() -> None:
    titled = {status for status, _ in PROBLEMS.values()}
    for entry in ROUTES:
        assert entry.statuses - entry.gives.keys() <= titled, entry.name
