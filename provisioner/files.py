"""Files of a workspace: found without surprises, read within bounds, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Literal

from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.errors import WorkspaceError
from provisioner.limits import MAX_FOLDER_DEPTH

WORKSPACE_FILE = "provisioner.yaml"
SUFFIXES = (".yaml", ".yml")


def find_workspace(start: Path) -> Path:
    """The nearest folder upward that holds provisioner.yaml. Raises :class:`WorkspaceError`."""
    start = start.absolute()
    if not start.is_dir():
        raise WorkspaceError(f"There is no folder {start}.", "Check the folder given with -C.")
    for folder in (start, *start.parents):
        if (folder / WORKSPACE_FILE).exists():
            return folder
    raise WorkspaceError(
        f"No {WORKSPACE_FILE} in {start} or in a folder above it.",
        "Go to your workspace, name it with -C FOLDER, or make one: provisioner init FOLDER",
    )


def manifest_files(root: Path, entries: Sequence[str]) -> tuple[list[Path], list[Diagnostic]]:
    """The manifest files that ``manifests:`` names, sorted, and every entry that cannot be followed."""
    found: dict[str, Path] = {}
    problems: list[Diagnostic] = []
    for entry in entries:
        refusal = _refusal(root, entry)
        if refusal is not None:
            problems.append(refusal)
            continue
        for item in _walk(root, root / entry, 0):
            if isinstance(item, Diagnostic):
                problems.append(item)
            else:
                found[shown(item, root)] = item
    return [found[name] for name in sorted(found)], problems


def shown(path: Path, root: Path) -> str:
    """The path as people read it: relative to the workspace, with forward slashes."""
    name = str(path)
    prefix = str(root) + os.sep
    return name[len(prefix) :].replace(os.sep, "/") if name.startswith(prefix) else name


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file's content, at most ``limit`` + 1 bytes of it. Raises :class:`WorkspaceError`."""
    try:
        # not blocking, or a named pipe would hang the run
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise WorkspaceError(f"{path} is not a regular file.", "Replace it by a plain file.")
            return file.read(limit + 1)
    except OSError as problem:
        raise WorkspaceError(
            f"{path} cannot be read: {problem.strerror or problem}.",
            "Check that it exists and its permissions.",
        ) from problem


def write_private(path: Path, content: bytes) -> None:
    """Write a file for its owner's eyes, whole or not at all. Raises :class:`WorkspaceError`."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except OSError as problem:
        raise WorkspaceError(
            f"{path} cannot be written: {problem.strerror or problem}.",
            "Check the folder, its permissions and the space left, then run the same command again.",
        ) from problem


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder lasting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def resource_folder(name: Literal["templates", "schemas"]) -> Path:
    """Where the program's own templates and schemas are: in the package, or beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "_shipped" / name
    return shipped if shipped.is_dir() else package.parent / name


def _refusal(root: Path, entry: str) -> Diagnostic | None:
    path = PurePosixPath(entry)
    if path.is_absolute() or ".." in path.parts or entry.startswith("~") or "\\" in entry:
        return _problem(
            "file-path",
            f"manifests: names {entry!r}, which leads out of the workspace.",
            "Name a folder in it.",
        )
    if not (root / entry).exists():
        siblings = [child.name for child in root.iterdir() if child.is_dir()] if root.is_dir() else []
        close = get_close_matches(path.name, siblings, n=1)
        hint = f' Did you mean "{close[0]}/"?' if close else ""
        return _problem(
            "file-path",
            f"manifests: names {entry!r}, which does not exist.{hint}",
            "Correct the entry in provisioner.yaml.",
        )
    return None


def _walk(root: Path, path: Path, depth: int) -> Iterator[Path | Diagnostic]:
    """The YAML files at and below a path. Hidden names are passed over; links may not leave."""
    name = shown(path, root)
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            yield _problem(
                "file-path", f"{name} is a link that leaves the workspace.", "Replace it by a copy."
            )
        elif path.is_dir():
            if depth > MAX_FOLDER_DEPTH:
                yield _problem(
                    "file-path",
                    f"{name} lies more than {MAX_FOLDER_DEPTH} folders deep.",
                    "Flatten the folders.",
                )
                return
            with os.scandir(path) as entries:
                children = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            for child in children:
                below = path / child
                if child.endswith(SUFFIXES) or below.is_dir():
                    yield from _walk(root, below, depth + 1)
        elif not path.is_file():
            yield _problem("file-unreadable", f"{name} is not a regular file.", "Replace it by a plain file.")
        else:
            yield path
    except OSError as problem:
        yield _problem(
            "file-unreadable",
            f"{name} cannot be read: {problem.strerror or problem}.",
            "Check its permissions.",
        )


def _problem(code: str, detail: str, remedy: str) -> Diagnostic:
    return error(code, detail, remedy, Source(WORKSPACE_FILE, 1, 1))
