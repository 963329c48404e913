"""Reads a workspace: the settings in its provisioner.yaml, and its manifests.

pydantic, which is slow to import, is imported only when the first file is read.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.diagnostics import Diagnostic, Source, error, in_source_order, warning
from provisioner.errors import ManifestsInvalid, UsageError, WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.manifest.declared import Declared
from provisioner.progress import ProgressCallback, ignore_progress
from provisioner.rules import app_violation
from provisioner.workspace.files import WORKSPACE_FILE, find_workspace, manifest_files, read_bytes
from provisioner.yaml_source.document import Document, Positions, digest_of, read_document

if TYPE_CHECKING:
    from provisioner.manifest import models


_BATCH = 32
"""The maximum number of documents in a batch. A batch is read completely before it is validated."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of a workspace, with the settings of its provisioner.yaml."""

    root: Path
    settings: models.WorkspaceFile
    positions: Positions
    """The positions of the keys and values of provisioner.yaml."""

    @property
    def manifest_sources(self) -> tuple[Source, ...]:
        """The position in provisioner.yaml of each entry of ``manifests:``."""
        return tuple(self.positions.source("manifests", at) for at in range(len(self.settings.manifests)))


def path_of(url: str, root: Path) -> Path:
    """Return the path in a URL ``sqlite:///…`` or ``maildir:…``; a relative path starts at ``root``."""
    rest = url.partition(":")[2]
    return root / (rest.removeprefix("///") if url.startswith("sqlite:") else rest)


def load_workspace(start: Path) -> Workspace:
    """Return the workspace in the nearest folder that is a workspace: ``start`` or one of its parents.

    Raises :class:`WorkspaceError` if there is no workspace. Raises :class:`ManifestsInvalid`, which contains
    all problems, if provisioner.yaml has errors.
    """
    root = find_workspace(start)
    content = read_bytes(root / WORKSPACE_FILE, MAX_FILE_BYTES)
    document, problems = read_document(WORKSPACE_FILE, content)
    workspace = None
    if document is not None:
        from provisioner.manifest.models import WorkspaceFile
        from provisioner.manifest.validate import read_model

        reading = read_model(WorkspaceFile, document)
        problems = _merged(problems, reading.problems)
        if reading.model is not None:
            problems.extend(_conflicts(document, reading.model, root))
            workspace = Workspace(root, reading.model, document.positions)
    if workspace is None or any(problem.is_error for problem in problems):
        raise ManifestsInvalid(
            f"{WORKSPACE_FILE} has errors; nothing else was read.", diagnostics=in_source_order(problems)
        )
    return workspace


def names_in_workspace(workspace: Workspace, files: Sequence[Path]) -> frozenset[str]:
    """Return the name that each of ``files`` has in diagnostics: its path relative to the workspace.

    Raises :class:`UsageError`, which lists the files that are neither manifests of the workspace nor its
    provisioner.yaml, if there are any.
    """
    manifests, _ = manifest_files(workspace.root, workspace.settings.manifests)
    known = {os.path.realpath(workspace.root / name): name for name in (WORKSPACE_FILE, *manifests)}
    found = {file: known.get(os.path.realpath(file)) for file in files}
    if None in found.values():
        raise UsageError(
            "\n".join(_no_manifest(workspace, file) for file, name in found.items() if name is None),
            "Name manifests relative to the current folder; -C FOLDER names their workspace.",
        )
    return frozenset(name for name in found.values() if name is not None)


def _no_manifest(workspace: Workspace, file: Path) -> str:
    """Return a sentence that says why ``file`` is not a manifest of the workspace."""
    if not os.path.lexists(file):
        return f"There is no file {file}."
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(workspace.root)):
        return f"{file} is not in the workspace {workspace.root}."
    named = ", ".join(workspace.settings.manifests) or "nothing"
    return f"{file} is not a manifest of this workspace: manifests: in {WORKSPACE_FILE} names {named}."


def read_manifests(
    workspace: Workspace,
    *,
    digests: bool = True,
    tell: ProgressCallback = ignore_progress,
) -> tuple[Declared, list[Diagnostic]]:
    """Return everything that the manifests declare, and the problems of each manifest, in source order.

    If ``digests`` is True, the digests that a saved plan needs are computed. ``tell`` is called with the
    number of the current file and the number of all files. :mod:`provisioner.manifest.check` finds problems
    between several manifests.
    """
    from provisioner.manifest.load import load

    files, problems = manifest_files(workspace.root, workspace.settings.manifests, workspace.manifest_sources)
    misplaced = bool(problems)
    if not files and not problems:
        problems.append(_no_manifests(workspace))
    documents = _in_batches(_documents(workspace.root, files, problems, tell))
    with _no_garbage_collection():
        declared, found = load(documents, workspace.settings, workspace.positions, digests=digests)
    if misplaced or len(declared.digests) < len(files):
        declared = replace(declared, unread=True)
    return declared, in_source_order(_merged(problems, found))


def with_settings(declared: Declared, workspace: Workspace) -> Declared:
    """Return a copy of the declarations with a digest of the settings on which a plan depends."""
    from provisioner.manifest.profiles import Profiles

    settings = workspace.settings
    terms, safety = settings.terms, settings.safety
    parts = [
        [settings.firm.name, settings.firm.language, settings.portal.operator, settings.mail.welcome],
        [safety.absent, safety.self_service],
        [sorted(part) for part in (terms.offers, terms.apps, terms.email_domains, terms.staff)],
        [*Profiles(settings).digestible()],
    ]
    return replace(declared, digests={**declared.digests, WORKSPACE_FILE: digest_of(parts)})


def _merged(problems: list[Diagnostic], found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return ``problems``, then each problem of ``found`` at a position where ``problems`` has no problem."""
    refused = {problem.source for problem in problems}
    return problems + [problem for problem in found if problem.source not in refused]


def _documents(
    root: Path,
    files: Sequence[str],
    problems: list[Diagnostic],
    tell: ProgressCallback,
) -> Iterator[Document]:
    folder = os.path.join(root, "")
    for number, name in enumerate(files, start=1):
        tell(number, len(files))
        try:
            content = read_bytes(f"{folder}{name}", MAX_FILE_BYTES)
        except WorkspaceError as problem:
            problems.append(error("file-unreadable", problem.sentence, problem.remedy, Source(name, 1, 1)))
            continue
        document, found = read_document(name, content)
        problems.extend(found)
        if document is not None:
            yield document


def _in_batches(documents: Iterator[Document]) -> Iterator[Document]:
    """Yield the documents, but read them in batches, because reading them one by one is 20 % slower."""
    while batch := list(islice(documents, _BATCH)):
        yield from batch


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection in the ``with`` block, because all objects of the block are kept anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _no_manifests(workspace: Workspace) -> Diagnostic:
    named = ", ".join(workspace.settings.manifests) or "manifests:, which is empty"
    return warning(
        "no-manifests",
        f"There is no .yaml file in {named}.",
        "Add one file a client, or name their folder under manifests: in provisioner.yaml.",
        workspace.manifest_sources[0] if workspace.manifest_sources else Source(WORKSPACE_FILE, 1, 1),
    )


# --- conflicts between settings ---


def _conflicts(document: Document, file: models.WorkspaceFile, root: Path) -> Iterator[Diagnostic]:
    yield from _apps_of_profiles(document, file)
    yield from _credentials(document, file.mail)
    yield from _two_secrets(document, "portal", "secret", file.portal)
    yield from _two_secrets(document, "ledger", "secret", file.ledger)
    both = file.portal.url, file.ledger.url
    if all(url.startswith("sqlite:") for url in both) and len({path_of(url, root) for url in both}) == 1:
        yield error(
            "wrong-value",
            "The portal and the ledger name the same file.",
            "Give each a file of its own.",
            document.positions.source("ledger", "url"),
        )


def _apps_of_profiles(document: Document, file: models.WorkspaceFile) -> Iterator[Diagnostic]:
    presets: list[tuple[tuple[str, ...], models.Preset]] = [(("defaults",), file.defaults)]
    presets += [(("catalogue", "profiles", name), entry) for name, entry in file.catalogue.profiles.items()]
    for path, entry in presets:
        for position, app in enumerate(entry.apps or ()):
            if app not in file.catalogue.apps:
                source = document.positions.source(*path, "apps", position)
                yield replace(app_violation(path[-1], app, file.catalogue.apps), source=source)


def _two_secrets(document: Document, section: str, secret: str, settings: object) -> Iterator[Diagnostic]:
    variable, file = f"{secret}_env", f"{secret}_file"
    if getattr(settings, variable) and getattr(settings, file):
        yield error(
            "wrong-value",
            f"Both {variable} and {file} are given.",
            "Keep one of the two.",
            document.positions.key_source(section, file),
        )


def _credentials(document: Document, mail: models.Mail) -> Iterator[Diagnostic]:
    yield from _two_secrets(document, "mail", "password", mail)
    secret = next((key for key in ("password_env", "password_file") if getattr(mail, key)), None)
    if secret is not None and not mail.username:
        yield error(
            "missing-key",
            f"mail has {secret} and no username.",
            "Add username:, the mail server's user name.",
            document.positions.key_source("mail", secret),
        )
    if mail.username and secret is None:
        yield error(
            "missing-key",
            "mail has a username and no password.",
            "Name the password's place: password_env: SMTP_PASSWORD, or password_file: FILE.",
            document.positions.key_source("mail", "username"),
        )
    if secret is not None and mail.tls == "none":
        yield error(
            "wrong-value",
            "With tls: none the password would travel in clear.",
            "Write tls: required, or leave the username and password out.",
            document.positions.key_source("mail", "tls"),
        )
