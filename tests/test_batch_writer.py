"""The batch writer: damaged rows and closed event loops."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from service_support import prepare

from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.embedded.server.batch_writer import BatchWriter
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
    begin = threading.Event()

    def work(jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        begin.wait(20)
        return portal.work(jobs)

    async def ask() -> list[Any]:
        writer = BatchWriter(work, asyncio.get_running_loop())
        edits = [
            Call(key=f"k{number}", step=EditCompany(company, "Renamed", None), version=1)
            for number, company in enumerate("2121")
        ]
        asked = [
            asyncio.create_task(writer.do(AuthorisedCall(call, Operator.ADMINISTRATOR))) for call in edits
        ]
        await asyncio.sleep(0)
        begin.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
        writer.close()
        return done

    first, damaged, second, damaged_again = asyncio.run(ask())
    portal.close()
    assert isinstance(damaged, PortalError)
    assert isinstance(damaged_again, PortalError)
    assert first.verdict is Verdict.APPLIED
    assert second.verdict is Verdict.ALREADY


def test_writer_survives_a_closed_event_loop() -> None:
    begun, end = threading.Event(), threading.Event()
    writers: list[BatchWriter] = []

    def work(jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        begun.set()
        end.wait(20)
        return [Receipt("", Verdict.APPLIED)] * len(jobs)

    async def ask() -> None:
        writers.append(BatchWriter(work, asyncio.get_running_loop()))
        task = asyncio.create_task(writers[0].do(cast(Any, None)))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()

    asyncio.run(ask())
    end.set()
    # pytest makes an error of what a thread raises
    writers[0].close()
