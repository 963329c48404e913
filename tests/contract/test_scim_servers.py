"""Tests with scripted SCIM servers, which send lists and valid or invalid descriptions of their features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from http_support import Asked, http_server, reply
from hypothesis import example, given
from hypothesis import strategies as st
from scim_support import opened

from provisioner.errors import PortalError
from provisioner.model import AppState, Grant, month_end
from provisioner.planning.codec import canonical
from provisioner.portals.registry import driver_for
from provisioner.portals.scim.client import changes
from provisioner.portals.scim.discovery import Schemas
from provisioner.portals.scim.mapping import AttributeMap
from provisioner.portals.scim.path import COMPANY, USER
from provisioner.testing.people import TODAY, company, state, user


def scripted(answers: dict[str, Any]) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        path = asked.path.partition("?")[0].removeprefix("/v2")
        said = answers.get(path)
        if said is None:
            return reply(404, {"detail": "No such thing"}, kind="application/scim+json")
        said = said(asked) if callable(said) else said
        return said if isinstance(said, bytes) else reply(200, said, kind="application/scim+json")

    return answer


NOBODY = {"totalResults": 0, "Resources": None}
"""An empty SCIM list. ``None`` (JSON null) means that the resources are absent (RFC 7643, section 2.5)."""


def test_server_without_a_description_has_the_fewest_features() -> None:
    answers = {"/Users": NOBODY, "/Groups": NOBODY}
    with http_server(scripted(answers)) as bare, opened(f"{bare.url}/v2") as portal:
        can = portal.capabilities()
        assert (can.versions, can.receipts, can.claims, can.leases) == (False, False, False, False)
        assert can.activation_links is driver_for(f"scim+{bare.url}/v2").activation_links is False
        assert portal.snapshot().state.users == {}
        codes = [problem.code for problem in portal.project(FULL)[1]]
    assert codes == ["portal-cannot-hold"] * 4 + ["unguarded"]


FULL = state(
    company("1", siren="732829320"),
    user("ann", grants=(Grant("Scan", AppState.ENDING, month_end(TODAY)),)),
    user("bob", status="to_validate"),
)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"/Users": []}, "no SCIM list"),
        ({"/Users": {"totalResults": "1"}}, "no SCIM list"),
        ({"/Users": {"totalResults": 1, "Resources": [{"userName": "x"}]}}, "no SCIM resource"),
        ({"/Users": {"totalResults": 1, "Resources": [{"id": "1", "meta": "x"}]}}, "no SCIM resource"),
        ({"/Users": {"totalResults": 1, "Resources": [{"id": "1", "schemas": "x"}]}}, "no SCIM resource"),
        ({"/Users": reply(200, b"<html>", kind="text/html")}, "text/html instead of application/json"),
        ({"/Users": reply(500, {"detail": "Out of order"})}, "HTTP 500 to /Users: Out of order"),
        ({"/Schemas": []}, "no SCIM resource"),
        ({"/Schemas": {"Resources": 7}}, "no SCIM list"),
        ({}, "HTTP 404 to /Users: No such thing"),
    ],
)
def test_nonsense_from_a_server_ends_in_a_sentence(answers: dict[str, Any], sentence: str) -> None:
    with (
        http_server(scripted(answers)) as strange,
        opened(f"{strange.url}/v2") as portal,
        pytest.raises(PortalError, match=sentence),
    ):
        portal.snapshot()


def test_list_that_changes_constantly_ends_in_a_sentence() -> None:
    total = itertools.count(10_000, -1)

    def users(asked: Asked) -> Any:
        page = [{"id": f"{asked.path}-{number}"} for number in range(50)]
        return {"totalResults": next(total), "Resources": page}

    answers = {"/Users": users, "/Groups": NOBODY}
    with (
        http_server(scripted(answers)) as busy,
        opened(f"{busy.url}/v2") as portal,
        pytest.raises(PortalError, match="another list of /Users each time"),
    ):
        portal.snapshot()
    assert 5 <= len([path for path in busy.paths() if "Users" in path]) <= 15


def test_list_with_a_deletion_between_pages_is_read_again() -> None:
    """If a resource is deleted between two pages of a list, the list is read again.

    The deletion moves all later resources up by one place, so that one resource is on neither page.
    """
    people = [{"id": f"{number:02}", "userName": f"u{number}@example.fr"} for number in range(60)]
    asked_before: list[str] = []

    def users(asked: Asked) -> Any:
        start = int(asked.path.partition("startIndex=")[2].partition("&")[0]) - 1
        if asked_before == ["0"]:
            del people[7]
        asked_before.append(str(start))
        return {"totalResults": len(people), "Resources": people[start : start + 50]}

    group = {"id": "g", "displayName": "One", "externalId": "1"}
    group["members"] = [{"value": f"{number:02}"} for number in range(60)]  # type: ignore[assignment]
    answers = {"/Users": users, "/Groups": {"totalResults": 1, "Resources": [group]}}
    with http_server(scripted(answers)) as moving, opened(f"{moving.url}/v2") as portal:
        found = {someone.id for someone in portal.snapshot().state.users.values()}
    assert found == {f"{number:02}" for number in range(60)} - {"07"}
    assert asked_before == ["0", "50", "0", "50"]


@pytest.mark.parametrize("page", [1, 2, 3])
def test_server_with_tiny_pages_is_read_to_its_end(page: int) -> None:
    people = [{"id": f"{number}", "userName": f"u{number}@example.fr"} for number in range(7)]

    def users(asked: Asked) -> Any:
        start = int(asked.path.partition("startIndex=")[2].partition("&")[0]) - 1
        return {"totalResults": len(people), "Resources": people[start : start + page]}

    group = {"id": "g", "displayName": "One", "externalId": "1"}
    group["members"] = [{"value": one["id"]} for one in people]  # type: ignore[assignment]
    answers = {"/Users": users, "/Groups": {"totalResults": 1, "Resources": [group]}}
    with http_server(scripted(answers)) as slow, opened(f"{slow.url}/v2") as portal:
        assert len(portal.snapshot().state.users) == len(people)


NAMES = ["userName", "name", "emails", "phoneNumbers", "roles", "entitlements", "active", "displayName"]
PARTS = ["billedCompany", "status", "applicationEndings", "pending", "receipts", "number"]
WORDS = ["administrator", "Scan", "ending", "x@y", "1"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["value", "type", "ends", "key", "givenName"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@example({"entitlements": [{"value": ["Scan"]}, {"value": {}}], "roles": [{"value": []}]}, {"receipts": [{}]})
@given(
    st.dictionaries(st.sampled_from(NAMES), JSON),
    st.dictionaries(st.sampled_from(PARTS), JSON),
)
def test_any_resource_is_read_and_written_without_a_traceback(
    held: dict[str, Any], extension: dict[str, Any]
) -> None:
    places = AttributeMap({}, Schemas({}, frozenset((USER, COMPANY))), ["Scan"])
    for name in (USER, COMPANY):
        resource = {"id": "1", **held, name: extension}
        someone = places.user(resource, frozenset({"1"}), {"1"}, 0)
        places.company(resource, 0)
        places.pending(resource)
        places.receipt("receipts", resource, "key", 0)
        places.receipt("company_receipts", resource, "key", 0)
        canonical(places.content(resource))
        wanted = user("ann", apps=("Scan",))
        written = places.with_user(resource, someone, wanted)
        written = places.with_receipt("receipts", written, "key", "ledger", lambda _: 1)
        changes(resource, written)
        again = places.user(written, frozenset({"1"}), {"1"}, 0)
        assert again is not None
        assert places.pending(resource) or again == wanted
