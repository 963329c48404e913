"""The exact messages of the safety limits, at each limit and at one more than the limit."""

from __future__ import annotations

from provisioner.diagnostics import Diagnostic
from provisioner.model import Status, user_address
from provisioner.planning.guard import guard
from provisioner.planning.plan import Change, Limits
from provisioner.testing.people import user


def closures(count: int) -> list[Change]:
    found = []
    for number in range(count):
        before = user(f"u{number:02}")
        found.append(Change(user_address(before.email), before, user(f"u{number:02}", status=Status.CLOSED)))
    return found


def said(
    count: int, *, managed: int, most: int = 99, percent: int = 100, declared: int = 1
) -> list[Diagnostic]:
    return list(guard(closures(count), Limits(most, percent), managed=managed, declared=declared))


def test_so_many_closures_and_no_more() -> None:
    assert said(2, managed=5, most=2) == []
    [problem] = said(3, managed=5, most=2)
    assert problem.code == "limit-closures"
    assert problem.detail == (
        "3 accounts would be closed, and at most 2 may be in one plan: "
        "u00@example.fr, u01@example.fr, u02@example.fr."
    )
    assert problem.remedy == (
        "If this is meant, raise safety.max_closures in provisioner.yaml, or take part of it with --target."
    )


def test_ten_offenders_are_named_and_the_others_counted() -> None:
    [ten], [twelve] = said(10, managed=20, most=1), said(12, managed=20, most=1)
    assert ten.detail.endswith("u08@example.fr, u09@example.fr.")
    assert twelve.detail.endswith("u08@example.fr, u09@example.fr and 2 more.")


def test_so_large_a_share_and_no_larger_from_ten_accounts_on() -> None:
    assert said(9, managed=9, percent=10) == []
    assert said(1, managed=10, percent=10) == []
    [problem] = said(2, managed=10, percent=10)
    assert problem.code == "limit-closures"
    assert problem.detail == (
        "2 of 10 managed accounts would be closed, and at most 10 % may be in one plan: "
        "u00@example.fr, u01@example.fr."
    )
    assert problem.remedy == (
        "If this is meant, raise safety.max_closures_percent in provisioner.yaml, "
        "or take part of it with --target."
    )


def test_beyond_both_limits_the_names_are_told_once() -> None:
    assert ["3 accounts" in problem.detail for problem in said(3, managed=10, most=2, percent=10)] == [True]
    assert ["3 of 10" in problem.detail for problem in said(3, managed=10, most=3, percent=10)] == [True]


def test_manifests_that_declare_nobody_are_refused_while_somebody_is_managed() -> None:
    assert said(0, managed=0, declared=0) == []
    assert said(0, managed=1, declared=1) == []
    [one], [two] = said(0, managed=1, declared=0), said(0, managed=2, declared=0)
    assert one.code == two.code == "limit-empty"
    assert one.detail == (
        "The manifests declare nobody, while 1 managed account is known; "
        "a folder was probably moved or emptied."
    )
    assert "2 managed accounts are known" in two.detail
    assert one.remedy == "Check the manifests: entry of provisioner.yaml, and that the checkout is complete."
