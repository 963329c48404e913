"""Waiting steps share one transaction, and a damaged row fails only the steps on this row.

A call that ends after its event loop was closed logs nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from service_support import prepare

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.embedded.server.batch_writer import BATCH, BatchWriter
from provisioner.embedded.server.pool import PortalPool
from provisioner.errors import PortalError
from provisioner.model import Operator
from provisioner.planning.steps import CreateCompany, EditCompany
from provisioner.portal import Call, Receipt, Verdict


def test_damaged_row_fails_only_its_own_step(tmp_path: Path) -> None:
    served = prepare(tmp_path)
    portal = served.portal()
    for number in "12":
        step = CreateCompany(number, "Bakery", None)
        portal.work([AuthorisedCall(Call(key=f"made {number}", step=step), Operator.ADMINISTRATOR)])
    with closing(sqlite3.connect(tmp_path / "portal.db")) as other, other:
        other.execute("UPDATE company SET billing_ends = 'no day' WHERE number = '1'")

    async def work(jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        return portal.work(jobs)

    async def ask() -> list[Any]:
        writer = BatchWriter(work)
        edits = [
            Call(key=f"k{number}", step=EditCompany(company, "Renamed", None), version=1)
            for number, company in enumerate("2121")
        ]
        # all calls wait before the first batch begins
        calls = [writer.do(AuthorisedCall(call, Operator.ADMINISTRATOR)) for call in edits]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, damaged, second, damaged_again = asyncio.run(ask())
    portal.close()
    assert isinstance(damaged, PortalError)
    assert isinstance(damaged_again, PortalError)
    assert first.verdict is Verdict.APPLIED
    assert second.verdict is Verdict.ALREADY


def test_waiting_steps_share_one_transaction() -> None:
    batches: list[int] = []

    async def work(jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        batches.append(len(jobs))
        return [Receipt("", Verdict.APPLIED)] * len(jobs)

    async def ask() -> None:
        writer = BatchWriter(work)
        await asyncio.gather(*(writer.do(cast(Any, None)) for _ in range(BATCH + 1)))
        await writer.do(cast(Any, None))

    asyncio.run(ask())
    assert batches == [BATCH, 1, 1]


def test_call_ends_quietly_after_its_event_loop_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = prepare(tmp_path)
    begun, end = threading.Event(), threading.Event()
    pool = PortalPool(served.portal, 1)

    def query(_: SqlPortal) -> None:
        begun.set()
        end.wait(20)

    async def ask() -> None:
        task = asyncio.create_task(pool.ask(query))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()

    asyncio.run(ask())
    end.set()
    pool.close()
    assert caplog.text == ""
