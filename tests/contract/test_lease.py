"""Waiting for a lease, and the heartbeat that renews it."""

from __future__ import annotations

import threading

import pytest

from provisioner.errors import LedgerError, Locked, LockLost
from provisioner.storage import lease
from provisioner.storage.lease import heartbeat, wait_for_lease


def test_a_held_lease_is_asked_for_until_it_is_free_and_announced_once() -> None:
    answers = [Locked("held by ann"), Locked("held by bob"), None]
    announced: list[str] = []

    def acquire() -> int:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return 7

    number = wait_for_lease(
        acquire,
        keep_waiting=lambda: True,
        on_wait=lambda problem: announced.append(problem.sentence),
        poll_seconds=0,
    )
    assert number == 7
    assert announced == ["held by ann"]


@pytest.mark.parametrize(("problem", "patient"), [(Locked("held"), False), (LockLost("taken"), True)])
def test_no_further_attempt_without_patience_or_for_a_lost_lock(problem: Locked, patient: bool) -> None:
    attempts: list[int] = []

    def acquire() -> None:
        attempts.append(1)
        raise problem

    with pytest.raises(type(problem), match=problem.sentence):
        wait_for_lease(
            acquire, keep_waiting=lambda: patient, on_wait=lambda _: attempts.append(2), poll_seconds=0
        )
    assert attempts == [1]


def test_the_heartbeat_goes_on_after_an_error_and_ends_once_the_lease_is_lost() -> None:
    beats: list[str] = []
    lost = threading.Event()

    def renew() -> bool:
        beats.append("beat")
        if len(beats) == 1:
            raise LedgerError("unreachable")
        if len(beats) == 3:
            lost.set()
        return len(beats) < 3

    with heartbeat(renew, 0.003):
        assert lost.wait(20)
        for thread in threading.enumerate():
            if thread.name == "heartbeat":
                thread.join(20)
                assert not thread.is_alive()
    assert beats == ["beat"] * 3


def test_a_beat_is_due_at_once_when_the_connection_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "CONNECTION_CHECK_SECONDS", 0.001)
    renewed = threading.Event()

    def renew() -> bool:
        renewed.set()
        return True

    with heartbeat(renew, 3_600, is_cut_off=lambda: not renewed.is_set()):
        assert renewed.wait(20)


def test_the_heartbeat_ends_with_its_block() -> None:
    with heartbeat(lambda: True, 3_600):
        assert "heartbeat" in {thread.name for thread in threading.enumerate()}
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
