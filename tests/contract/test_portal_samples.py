"""The samples on each portal that can store everything: the same plans and the same outcomes."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from http_worlds import http
from shell_support import Clerk, copy_sample
from worlds import HOSTS, MakeWorld, parameters

from provisioner.model import Operator
from provisioner.planning.steps import CloseUser
from provisioner.testing.people import NOW
from provisioner.testing.world import Desk, World, require

WORLDS: dict[str, MakeWorld] = {**HOSTS, "http": http}


def story(world: World, folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Run the samples on this portal with the program's own commands. Return the output of each command.

    The onboarding sample is planned and applied. Then an account is closed by hand. Then the sample of the
    next month is planned, applied, and planned again.
    """
    for module in ("pipeline", "session"):
        opened = import_module(f"provisioner.operations.{module}")
        patch.setattr(opened, "open_portal_for", lambda *words, **options: world.open(Operator.PARTNER))
    for name in ("onboarding", "next-month"):
        copy_sample(folder / name, name)
    first, second = (Clerk(folder / name, NOW) for name in ("onboarding", "next-month"))
    said = [first.plan(), first.apply()]
    require(Desk(world.portal()).do(CloseUser("ines.caron@boulangerie-martin.fr")))
    said += [second.plan(), second.apply(), second.plan()]
    assert [found.code for found in said] == [2, 0, 2, 0, 0], said
    return [found.out for found in said]


def told_on(portal: str, folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, WORLDS[portal](folder) as world:
        try:
            return story(world, folder, patch)
        finally:
            world.close()


@cache
def reference_story() -> list[str]:
    """The output of the program's commands for the samples on the reference portal."""
    with TemporaryDirectory() as folder:
        return told_on("memory", Path(folder))


@pytest.mark.parametrize("portal", parameters(WORLDS))
def test_samples_give_the_same_plans_and_outcomes_on_every_portal(portal: str, tmp_path: Path) -> None:
    results = told_on(portal, tmp_path)
    assert "Plan: 25 to add" in results[0]
    assert results == reference_story()
