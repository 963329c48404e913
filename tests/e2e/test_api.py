"""The public Python API: the examples in its docstrings, and its exceptions."""

from __future__ import annotations

import doctest
import gc
import inspect
import re
from pathlib import Path

import pytest
from shell_support import Shell, copy_sample

from provisioner import api

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
