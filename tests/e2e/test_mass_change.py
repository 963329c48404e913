"""A plan that closes too many accounts is refused, and the accounts are named.

Each limit is tested with the largest accepted number and with one more.
"""

from __future__ import annotations

import json

import pytest
from shell_support import Shell

from provisioner.ledger.snapshot import read_ledger
from provisioner.storage.sqlite import SqliteDatabase


def crowd(shell: Shell, people: int) -> None:
    """Write manifests of ``people`` users, twenty per company. The first user of a company administers it."""
    clients = shell.folder / "clients"
    for file in clients.iterdir():
        file.unlink()
    for first in range(0, people, 20):
        number = f"{first // 20:06}"
        company = {
            "company": {"number": number, "name": f"Société {number}"},
            "billing": {"mode": "firm", "offer": "Essentiel"},
            "users": [
                {
                    "email": f"user{index}@example.fr",
                    "first_name": "Camille",
                    "last_name": f"Martin {index}",
                    "type": "standard" if index % 20 else "administrator",
                    "welcome_email": False,
                }
                for index in range(first, min(first + 20, people))
            ],
        }
        (clients / f"{number}.yaml").write_text(json.dumps(company, indent=1, ensure_ascii=False))


def close(shell: Shell, number: int) -> list[str]:
    """Declare ``number`` standard users closed and all others open; returns the closed addresses."""
    closed: list[str] = []
    for file in sorted((shell.folder / "clients").iterdir()):
        company = json.loads(file.read_text())
        for user in company["users"]:
            if user["type"] == "standard" and len(closed) < number:
                user["status"] = "closed"
                closed.append(user["email"])
            else:
                user.pop("status", None)
        file.write_text(json.dumps(company, indent=1, ensure_ascii=False))
    assert len(closed) == number
    return closed


@pytest.fixture
def firm(shell: Shell) -> Shell:
    """A workspace with a hundred managed users. By default, at most ten percent may be closed.

    ``max_closures`` is 1000 and therefore has no effect.
    """
    crowd(shell, 100)
    shell.edit("provisioner.yaml", "max_closures: 5", "max_closures: 1000")
    assert shell("apply", "--auto-approve").code == 0
    return shell


def refused(shell: Shell, *named: str) -> str:
    """Assert that plan and apply refuse, name all of ``named``, and write nothing. Return the message."""
    before, planfile = shell.tables(), shell.folder / "plan.json"
    for words in (
        ("plan",),
        ("plan", "--detailed-exitcode"),
        ("plan", "--json"),
        ("plan", "--out", str(planfile)),
        ("apply", "--auto-approve"),
    ):
        said = shell(*words)
        assert said.code == 4, (words, said.err)
        for name in named:
            assert name in said.out, (words, name)
    assert shell.tables() == before
    assert not planfile.exists()
    document = json.loads(shell("plan", "--json").out)
    assert (document["applyable"], document["errored"]) == (False, True)
    return " ".join(check["problems"][0]["message"] for check in document["checks"])


def test_thirty_one_closures_in_a_hundred_are_refused_and_each_is_named(firm: Shell) -> None:
    closed = close(firm, 31)
    message = refused(firm, *closed, "max_closures_percent")
    assert "31 of 100 managed accounts would be closed, and at most 10 % may be in one plan" in message
    assert "user10@example.fr" in message
    assert "and 21 more" in message


def test_users_who_left_the_manifests_count_like_closed_ones(firm: Shell) -> None:
    """With ``absent: close``, users who are no longer in a manifest count like closed users.

    Example: a file is lost in a merge.
    """
    firm.edit("provisioner.yaml", "absent: report", "absent: close")
    for file in ("000003.yaml", "000004.yaml"):
        (firm.folder / "clients" / file).unlink()
    message = refused(firm, *(f"user{index}@example.fr" for index in range(60, 100)))
    assert "40 of 100" in message


@pytest.mark.parametrize(
    ("people", "percent", "most"),
    [(100, 10, 10), (10, 10, 1), (19, 10, 1), (20, 10, 2), (100, 31, 31), (40, 0, 0)],
)
def test_as_many_closures_in_hundred_as_the_limit_says_pass_and_one_more_does_not(
    people: int, percent: int, most: int, shell: Shell
) -> None:
    """The number of closures that the percentage allows is accepted, and one more is refused."""
    crowd(shell, people)
    shell.edit(
        "provisioner.yaml", "max_closures: 5\n  max_closures_percent: 10",
        f"max_closures: 1000\n  max_closures_percent: {percent}",
    )  # fmt: skip
    assert shell("apply", "--auto-approve").code == 0
    refused(shell, *close(shell, most + 1))
    close(shell, most)
    assert shell("apply", "--auto-approve").code == 0


@pytest.mark.parametrize("most", [0, 1, 5])
def test_as_many_closures_as_the_limit_says_pass_and_one_more_does_not(most: int, shell: Shell) -> None:
    """The number of closures that ``max_closures`` allows is accepted, and one more is refused."""
    crowd(shell, 100)
    shell.edit("provisioner.yaml", "max_closures: 5", f"max_closures: {most}")
    assert shell("apply", "--auto-approve").code == 0
    message = refused(shell, *close(shell, most + 1))
    assert f"at most {most} may be in one plan" in message
    close(shell, most)
    assert shell("apply", "--auto-approve").code == 0


def test_in_hundred_means_nothing_below_ten_accounts(shell: Shell) -> None:
    """The percentage limits the closures among ten managed accounts, but not among nine."""
    crowd(shell, 9)
    assert shell("apply", "--auto-approve").code == 0
    close(shell, 5)
    assert shell("plan").code == 0
    crowd(shell, 10)
    assert shell("apply", "--auto-approve").code == 0
    close(shell, 1)
    assert shell("plan").code == 0
    refused(shell, *close(shell, 2))


def test_closing_in_parts_by_target_is_possible_and_leaves_the_rest(firm: Shell) -> None:
    """Refused closures can be applied in parts with ``--target``, as the message proposes."""
    closed = close(firm, 20)
    refused(firm, *closed)
    assert firm("apply", "--auto-approve", *(f"--target=user:{email}" for email in closed[:10])).code == 0
    assert firm("apply", "--auto-approve").code == 0
    assert firm("plan", "--detailed-exitcode").code == 0


def test_a_limit_raised_after_the_approval_is_not_the_approved_plan(firm: Shell) -> None:
    """A saved plan with a limit that was raised is refused, because the limits are part of the plan."""
    close(firm, 10)
    planfile = firm.folder / "plan.json"
    assert firm("plan", "--out", planfile).code == 0
    text = planfile.read_text()
    assert '"max_closures_percent":10' in text
    planfile.write_text(text.replace('"max_closures_percent":10', '"max_closures_percent":90'))
    before = firm.tables()
    assert firm("apply", planfile).code == 5
    assert firm.tables() == before


@pytest.mark.parametrize("absent", ["report", "close"])
def test_an_empty_manifest_folder_is_refused_and_tells_who_is_known(absent: str, firm: Shell) -> None:
    """An empty manifest folder is refused, for example an empty checkout.

    The message says how many managed accounts are known.
    """
    firm.edit("provisioner.yaml", "absent: report", f"absent: {absent}")
    for file in (firm.folder / "clients").iterdir():
        file.unlink()
    message = refused(firm, "user0@example.fr", "user5@example.fr")
    assert "The manifests declare nobody, while 100 managed accounts are known" in message


def test_a_folder_renamed_beside_an_empty_one_is_refused(firm: Shell) -> None:
    """A plan is refused if the manifest folder was renamed and an empty folder has its old name."""
    (firm.folder / "clients").rename(firm.folder / "kunden")
    (firm.folder / "clients").mkdir()
    refused(firm, "user0@example.fr")


def test_a_renamed_folder_is_refused_and_hinted_at(firm: Shell) -> None:
    """If the manifest folder was renamed, its old name in provisioner.yaml is reported as an error.

    The message suggests the new name.
    """
    (firm.folder / "clients").rename(firm.folder / "client")
    before = firm.tables()
    for words in (("plan", "--detailed-exitcode"), ("apply", "--auto-approve")):
        said = firm(*words)
        assert said.code == 3
        assert 'manifests: names "clients/", which does not exist. Did you mean "client' in " ".join(
            said.err.split()
        )
        assert "provisioner.yaml:" in said.err
    assert firm.tables() == before


def test_an_empty_firm_whose_manifests_are_empty_is_no_accident(shell: Shell) -> None:
    """Empty manifests are accepted if no user is managed yet."""
    for file in (shell.folder / "clients").iterdir():
        file.unlink()
    assert shell("plan", "--detailed-exitcode").code == 0
    assert read_ledger(SqliteDatabase(shell.folder / "ledger.db")).managed == {}
