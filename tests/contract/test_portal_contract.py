"""The contract of portal drivers, on each built-in driver and on the reference portal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import worlds

from provisioner.testing import (
    CREATING,
    EVERYTHING,
    READING,
    RECEIPTS,
    RIGHTS,
    RULES,
    VERSIONS,
    WHOLE,
    PortalContract,
    World,
)

EXISTING = EVERYTHING - {CREATING}


class TestMemory(PortalContract):
    features = EXISTING - {READING}

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        return worlds.memory(folder)


class TestSqlite(PortalContract):
    features = EXISTING

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        return worlds.sqlite(folder)


@pytest.mark.external
class TestPostgresql(PortalContract):
    features = EXISTING

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        return worlds.postgresql(folder)


class TestService(PortalContract):
    features = EXISTING

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        from http_worlds import http

        return http(folder)


@pytest.mark.external
class TestScim(PortalContract):
    """A SCIM server with provisioner's schemas. The server itself ends no application and no billing."""

    features = frozenset({RULES, RIGHTS, VERSIONS, RECEIPTS, WHOLE, READING})
    profile = "scim"
    # seconds over HTTP; test_scim.py compares random steps with those on the reference portal
    test_plan_leads_from_any_state_to_any_other = None  # type: ignore[assignment]

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        from scim_support import world

        return world(self.profile)


class TestScimWithoutEtag(TestScim):
    features = TestScim.features - {VERSIONS}
    profile = "scim without etag"


class TestScimWithoutFilter(TestScim):
    profile = "scim without filter"


class TestScimWithoutBulk(TestScim):
    profile = "scim without bulk"


class TestScimWithoutPatch(TestScim):
    profile = "scim without patch"
