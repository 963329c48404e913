"""Helpers that create workspaces, load workspaces with all their problems, and compare golden files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from provisioner.diagnostics import Diagnostic, in_source_order
from provisioner.errors import ManifestsInvalid
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.manifest.load import load
from provisioner.manifest.models import WorkspaceFile
from provisioner.render.diagnostics import render_problems
from provisioner.workspace.settings import load_workspace, read_manifests
from provisioner.yaml_source.document import Document, read_document

SETTINGS = """\
version: 1
firm: {name: Cabinet Durand & Associés, email_domains: [durand-associes.fr], staff: [helene@example.com]}
catalogue:
  offers: [Essentiel, Confort]
  apps: [Documents, Scan, Achats, Image]
  profiles:
    gérant: {type: administrator, production: full, apps: [Documents, Scan]}
mail: {from: "Cabinet Durand <acces@durand-associes.fr>"}
"""

CLAIRE = """\
  - email: claire.martin@boulangerie-martin.fr
    first_name: Claire
    last_name: Martin
    phone: "+33 6 12 34 56 78"
    type: administrator
    production: full
"""


def manifest(users: str = CLAIRE, number: str = "004217", head: str = "") -> str:
    """Return a client manifest: the company, then the YAML text ``head``, then the YAML text ``users``."""
    return f'company:\n  number: "{number}"\n  name: Boulangerie Martin\n{head}users:\n{users}'


def user(email: str, more: str = "", *, type: str = "standard") -> str:
    """Return the YAML text of one user; ``more`` has further lines for this user."""
    name = email.partition("@")[0].partition(".")[0].capitalize() or "X"
    lines = f"  - email: {email}\n    first_name: {name}\n    last_name: Martin\n    type: {type}\n"
    return f"{lines}    production: full\n{more}"


def make_workspace(root: Path, *manifests: str, settings: str = SETTINGS) -> Path:
    """Write a workspace with the manifests clients/0.yaml, clients/1.yaml and so on. Return its folder."""
    (root / "clients").mkdir(parents=True, exist_ok=True)
    (root / "provisioner.yaml").write_text(settings, encoding="utf-8")
    for position, text in enumerate(manifests):
        (root / "clients" / f"{position}.yaml").write_text(text, encoding="utf-8")
    return root


def validated(
    root: Path, known_companies: Iterable[str] | None = None
) -> tuple[Declared | None, list[Diagnostic]]:
    """Return the declarations and, in source order, every problem that the command ``validate`` reports.

    The declarations are None if provisioner.yaml is invalid.
    """
    try:
        workspace = load_workspace(root)
    except ManifestsInvalid as invalid:
        return None, list(invalid.diagnostics)
    declared, problems = read_manifests(workspace)
    known = None if known_companies is None else frozenset(known_companies)
    return declared, in_source_order([*problems, *check(declared, workspace.settings, known)])


def problems_of(root: Path, known_companies: Iterable[str] | None = None) -> list[Diagnostic]:
    """Return every problem that :func:`validated` finds in a workspace, in source order."""
    return validated(root, known_companies)[1]


def codes(problems: Iterable[Diagnostic]) -> list[str]:
    return [problem.code for problem in problems]


def rendered(root: Path, problems: Sequence[Diagnostic], width: int = 100) -> str:
    """Return the problems as the program prints them, without colours."""

    def line_of(file: str, line: int) -> str | None:
        lines = (root / file).read_text(encoding="utf-8").splitlines()
        return lines[line - 1] if line <= len(lines) else None

    return render_problems(problems, line_of, colour=False, width=width)


def settings_of(
    *, offers: Iterable[str] = (), apps: Iterable[str] = (), domains: Iterable[str] = ()
) -> WorkspaceFile:
    """Return minimal settings with these offers and applications in the catalogue, and with these domains."""
    return WorkspaceFile.model_validate(
        {
            "version": "1",
            "firm": {"name": "Cabinet Durand", "email_domains": [*domains]},
            "catalogue": {"offers": [*offers], "apps": [*apps]},
            "mail": {"from": "acces@example.fr"},
        }
    )


def loaded(
    documents: Iterable[Document], settings: WorkspaceFile | None = None
) -> tuple[Declared, list[Diagnostic]]:
    """Load ``documents``. Return the declarations and the problems.

    If ``settings`` is None, minimal settings are used.
    """
    return load(documents, settings or settings_of(), document_of("", "provisioner.yaml").positions)


def document_of(text: str, file: str = "clients/a.yaml") -> Document:
    """Parse ``text`` and return its document; fails if the text has a problem."""
    document, problems = read_document(file, text)
    assert document is not None, problems
    assert not problems
    return document


def compare_with_golden(path: Path, text: str) -> None:
    """Assert that the text equals the golden file. ``UPDATE_GOLDEN=1`` writes the text to the file first."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    expected = path.read_bytes().decode() if path.exists() else ""
    assert text == expected, f"{path.name} differs; to accept the change: UPDATE_GOLDEN=1 pytest"
