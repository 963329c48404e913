"""The public Python API: the examples in its docstrings, and its exceptions."""

from __future__ import annotations

import doctest
import gc
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell_support import Shell, copy_sample

from provisioner import api
from provisioner.limits import MAX_PARALLELISM

EXAMPLES = doctest.DocTestFinder(exclude_empty=True).find(api, "api")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_of_the_api_are_true(example: doctest.DocTest, tmp_path: Path) -> None:
    example.globs["folder"] = copy_sample(tmp_path / "firm")
    runner = doctest.DocTestRunner()
    report: list[str] = []
    runner.run(example, out=report.append)
    assert report == []


def test_every_function_of_the_api_has_an_example() -> None:
    functions = {f"api.{name}" for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    assert functions == {"api.load_workspace", "api.make_plan", "api.apply_plan"}
    assert {example.name for example in EXAMPLES if example.examples} == {"api", *functions}


def test_every_exception_that_the_api_documents_is_exported() -> None:
    documented = {
        word for example in EXAMPLES for word in re.findall(r":class:`(\w+)`", example.docstring or "")
    }
    assert len(documented) > 7
    assert documented <= set(api.__all__)


def test_api_prints_nothing_and_its_run_is_in_the_history(shell: Shell) -> None:
    workspace = api.load_workspace(shell.folder)
    api.apply_plan(workspace, api.make_plan(workspace), name="nightly job")
    found = shell("history")
    assert "nightly job" in found.out
    assert found.err == ""
    assert "steps done" in found.out


def test_program_that_plans_often_can_still_free_its_garbage(shell: Shell) -> None:
    gc.unfreeze()
    workspace = api.load_workspace(shell.folder)
    api.make_plan(workspace)
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()


def test_forbidden_plan_is_returned_and_its_application_is_refused(shell: Shell) -> None:
    workspace = api.load_workspace(shell.folder)
    settings = workspace.root / "provisioner.yaml"
    api.apply_plan(workspace, api.make_plan(workspace))
    for manifest in (workspace.root / "clients").rglob("*.yaml"):
        manifest.unlink()
    text = re.sub(r"absent: report.*", "absent: close", settings.read_text("utf-8"))
    settings.write_text(text, encoding="utf-8")
    workspace = api.load_workspace(shell.folder)
    plan = api.make_plan(workspace)
    assert not plan.applyable
    assert [problem.code for problem in plan.errors]
    with pytest.raises(api.Blocked, match="nothing was written"):
        api.apply_plan(workspace, plan)


def test_invalid_manifest_is_raised_with_all_its_problems(shell: Shell) -> None:
    for name in ("a", "b"):
        (shell.folder / "clients" / f"{name}.yaml").write_text("company: {}\n", encoding="utf-8")
    with pytest.raises(api.ManifestsInvalid) as refused:
        api.make_plan(api.load_workspace(shell.folder))
    assert {found.source.file for found in refused.value.diagnostics if found.source} >= {
        "clients/a.yaml",
        "clients/b.yaml",
    }


# --- wrong arguments ---


@pytest.mark.parametrize("folder", [None, 3, b"folder", ["folder"]])
def test_a_folder_that_is_no_path_is_refused(folder: Any) -> None:
    with pytest.raises(api.UsageError, match=r"The argument folder is .*; it must be a path"):
        api.load_workspace(folder)


@pytest.mark.parametrize("name", ["targets", "excludes"])
@pytest.mark.parametrize("value", ["company:004217", None, 3, [None], [("company", "004217")]])
def test_addresses_that_are_no_list_are_refused(shell: Shell, name: str, value: Any) -> None:
    workspace = api.load_workspace(shell.folder)
    with pytest.raises(api.UsageError, match=f"The argument {name} is .*must be a list of addresses"):
        api.make_plan(workspace, **{name: value})


def test_addresses_may_come_from_any_iterable(shell: Shell) -> None:
    workspace = api.load_workspace(shell.folder)
    listed = api.make_plan(workspace, targets=["company:004217"])
    assert api.make_plan(workspace, targets=(word for word in {"company:004217"})) == listed


@pytest.mark.parametrize("call", [api.make_plan, lambda folder: api.apply_plan(folder, folder)])
def test_a_folder_in_place_of_a_workspace_is_refused(call: Callable[[Any], object]) -> None:
    with pytest.raises(api.UsageError, match=r"workspace is .*must be what load_workspace returned"):
        call("folder")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("parallelism", value) for value in (0, -1, MAX_PARALLELISM + 1, "10", 1.5, True, None)),
        *(("lock_timeout", value) for value in (-1, float("nan"), "60", None, True)),
        *(("stop", value) for value in (None, True)),
        ("name", None),
        ("plan", None),
        ("plan", "plan.json"),
    ],
)
def test_a_wrong_argument_of_a_run_is_refused_before_it(shell: Shell, name: str, value: Any) -> None:
    workspace = api.load_workspace(shell.folder)
    arguments: dict[str, Any] = {"plan": api.make_plan(workspace), name: value}
    before = shell.print_of()
    with pytest.raises(api.UsageError, match=f"The argument {name} is ") as refused:
        api.apply_plan(workspace, **arguments)
    assert refused.value.remedy
    assert shell.print_of() == before


@pytest.mark.parametrize(
    ("parallelism", "lock_timeout"), [(1, 0.5), (MAX_PARALLELISM, 60), (10, float("inf"))]
)
def test_the_outermost_numbers_of_a_run_are_accepted(
    shell: Shell, parallelism: int, lock_timeout: float
) -> None:
    workspace = api.load_workspace(shell.folder)
    report = api.apply_plan(
        workspace, api.make_plan(workspace), parallelism=parallelism, lock_timeout=lock_timeout
    )
    assert report.complete
