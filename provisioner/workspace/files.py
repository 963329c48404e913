"""Finds the files of a workspace, reads them up to a maximum size, and writes files atomically."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from provisioner import limits
from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.errors import UsageError, WorkspaceError
from provisioner.spelling import did_you_mean

WORKSPACE_FILE = "provisioner.yaml"
SUFFIXES = (".yaml", ".yml")

_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_PLAIN_FILE = "Put a plain file in its place."
_MEND_ENTRY = "Correct manifests: in provisioner.yaml."


def find_workspace(start: Path) -> Path:
    """Return the nearest folder that contains provisioner.yaml: ``start`` or one of its parent folders.
    Raises :class:`WorkspaceError` if there is none.
    """
    try:
        start = start.absolute()  # raises OSError if the current folder was removed
        if not start.is_dir():
            raise WorkspaceError(f"There is no folder {start}.", "Check the folder given with -C.")
        for folder in (start, *start.parents):
            if (folder / WORKSPACE_FILE).exists():
                return folder
    except OSError as problem:
        raise _unreadable(start, problem) from problem
    raise WorkspaceError(
        f"No {WORKSPACE_FILE} in {start} or in a folder above it.",
        "Go to your workspace, name it with -C FOLDER, or make one: provisioner init FOLDER",
    )


def read_bytes(path: Path | str, limit: int) -> bytes:
    """Return the content of a regular file, or only the first ``limit`` + 1 bytes of a longer file. Raises
    :class:`WorkspaceError` for a file that is unreadable or not regular. Does not block on a pipe.
    """
    try:
        # non-blocking, because otherwise opening a named pipe would wait for a writer
        descriptor = os.open(path, _READING)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise WorkspaceError(f"{path} is not a regular file.", _PLAIN_FILE)
            # request only the file's size, because os.read allocates that much; a file object would be slower
            content = os.read(descriptor, min(status.st_size, limit) + 1)
            if len(content) == status.st_size:
                return content
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return content + file.read(limit + 1 - len(content))
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def read_texts(folder: Path, suffix: str, limit: int, *, within: Path) -> dict[str, str]:
    """Return the texts of the folder's files with this suffix, by file name; ``{}`` if the folder is missing.

    Raises :class:`WorkspaceError` for a file that is unreadable, longer than ``limit`` bytes or not UTF-8,
    and for a link to a file outside the folder ``within``.
    """
    inside = os.path.join(os.path.realpath(within), "")
    texts: dict[str, str] = {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError):
        return texts
    except OSError as problem:
        raise _unreadable(folder, problem) from problem
    for name in names:
        path = folder / name
        if not os.path.realpath(path).startswith(inside):
            raise WorkspaceError(f"{path} is a link that leaves the workspace.", "Put a copy there.")
        content = read_bytes(path, limit)
        if len(content) > limit:
            raise WorkspaceError(f"{path} is longer than {limit:,} bytes.", "Shorten it.")
        try:
            texts[name] = content.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise WorkspaceError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from problem
    return texts


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable only by its owner (mode 0600). Raises :class:`WorkspaceError`. The
    new content replaces an existing file only after it is on the disk.
    """
    import tempfile

    try:
        _require_replaceable(path)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".provisioner-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except OSError as problem:
        raise _unwritable(path, problem) from problem


def open_to_append(path: Path, heading: bytes) -> int:
    """Open a file to append to it. Return the file descriptor. A new file is readable only by its owner (mode
    0600); an existing file keeps its mode, because its owner chose it.

    ``heading`` is written into a new file. Raises :class:`WorkspaceError` if the file cannot be written, and
    for an existing file that does not begin with ``heading``, because appending would damage that file.
    """
    try:
        _require_replaceable(path)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            found = os.read(descriptor, len(heading))
            if found not in (b"", heading):
                raise WorkspaceError(
                    f"{path} is there already and was written by something else.", "Name another file."
                )
            if not found:
                os.write(descriptor, heading)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    return descriptor


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents. Raises :class:`WorkspaceError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise WorkspaceError(
            f"{path} cannot be made: {_reason(problem)}.",
            "Name a folder that can be made, and check the permissions above it.",
        ) from problem


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder with mode 0700, which gets the name ``path`` when the block ends.

    Its files are on the disk before it gets that name. If the block fails, the folder is removed. Raises
    :class:`UsageError` if ``path`` exists and is not an empty folder, else :class:`WorkspaceError`.
    """
    import shutil
    import tempfile

    require_free(path)
    make_folder(path.absolute().parent)
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=".provisioner-"))
        try:
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            sync_folder(temporary)
            with suppress(FileNotFoundError):
                path.rmdir()
            # never replaces a file, nor a folder that is not empty
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.absolute().parent)
    except OSError as problem:
        raise WorkspaceError(
            f"{path} cannot be written: {_reason(problem)}.",
            "Check the folder above it, its permissions and the space left, then run the same command again.",
        ) from problem


def require_free(path: Path) -> None:
    """Raise :class:`UsageError` if the path exists and is not an empty folder, and :class:`WorkspaceError` if
    it cannot be read. A broken link counts as existing.
    """
    try:
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return
        kind = "a file, not a folder" if path.is_file() else "not an empty folder"
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    raise UsageError(f"{path} is {kind}.", "Name a folder that does not exist yet.")


def sync_folder(folder: Path) -> None:
    """Call ``fsync`` for a folder, if the system supports it. Raises ``OSError`` for a disk error."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        # opening the folder or fsync may be impossible: this is accepted, because the file itself is on disk
        if problem.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise


def resource_folder(name: Literal["templates", "schemas"]) -> Path:
    """Return the folder of the program's templates or schemas: in the package, or in the Git checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise WorkspaceError(f"This installation of provisioner lacks its {name}.", "Install it again.")


def manifest_files(
    root: Path, entries: Sequence[str], sources: Sequence[Source] = ()
) -> tuple[list[str], list[Diagnostic]]:
    """Return the paths of the manifest files, sorted and relative to the workspace, and the problems found.

    ``entries`` is the list ``manifests:``. An entry that is a folder stands for all ``*.yaml`` and ``*.yml``
    files below it, except names that begin with a dot. A file that several paths lead to is listed once.
    ``sources`` contains the position of each entry, for diagnostics (default: the beginning of
    provisioner.yaml).
    """
    search = _Search(root)
    for number, entry in enumerate(entries):
        search.follow(entry, sources[number] if sources else Source(WORKSPACE_FILE, 1, 1))
    return sorted(search.found.values()), search.problems


class _TooManyFiles(Exception):
    """Raised when the workspace has more than ``MAX_FILES`` files."""


class _Search:
    """The state of a search for manifest files. ``found`` maps the real path of each file to its name.

    A name is a path relative to the workspace with forward slashes. A real path is an absolute path without
    symbolic links.
    """

    def __init__(self, root: Path) -> None:
        self.found: dict[str, str] = {}
        self.problems: list[Diagnostic] = []
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._workspace_file = os.path.join(self._real_root, WORKSPACE_FILE)
        self._folders: set[str] = set()
        self._entry = ""
        self._source = Source(WORKSPACE_FILE, 1, 1)

    def follow(self, entry: str, source: Source) -> None:
        self._entry, self._source = entry, source
        if reason := _not_inside(entry):
            self._refuse(f'manifests: names "{entry}", {reason}', _MEND_ENTRY)
            return
        name = str(PurePosixPath(entry))
        try:
            self._visit(name, 0)
        except (FileNotFoundError, NotADirectoryError):
            detail = f'manifests: names "{entry}", which does not exist.{_similar(self._path(name))}'
            self._refuse(detail, _MEND_ENTRY)
        except OSError as problem:
            self._unreadable(name, problem)
        except _TooManyFiles:
            self._refuse(f"There are more than {limits.MAX_FILES:,} files.", "Make several workspaces.")

    def _visit(self, name: str, depth: int) -> None:
        mode = os.stat(self._path(name)).st_mode
        real = os.path.realpath(self._path(name))
        if real != self._real_root and not real.startswith(os.path.join(self._real_root, "")):
            self._refuse(f"{name} is a link that leaves the workspace.", "Put a copy there.")
        elif stat.S_ISDIR(mode):
            self._visit_folder(name, real, depth)
        elif stat.S_ISREG(mode):
            self._add(name, real)
        else:
            self._refuse(f"{name} is neither a file nor a folder.", _PLAIN_FILE, code="file-unreadable")

    def _visit_folder(self, name: str, real: str, depth: int) -> None:
        if depth > limits.MAX_FOLDER_DEPTH:
            detail = f"{name} lies more than {limits.MAX_FOLDER_DEPTH} folders deep."
            self._refuse(detail, "Put these files in a folder nearer the top.")
            return
        if real in self._folders:  # already visited by another name, or a link to a parent folder
            return
        self._folders.add(real)
        with os.scandir(self._path(name)) as children:
            visible = sorted(
                (child for child in children if child.name[0] != "."), key=lambda child: child.name
            )
        prefix = "" if name == "." else f"{name}/"
        real = os.path.join(real, "")
        for child in visible:
            own = child.name
            is_manifest = own.lower().endswith(SUFFIXES)
            try:
                if child.is_dir(follow_symlinks=False):
                    self._visit_folder(prefix + own, real + own, depth + 1)
                elif is_manifest and child.is_file(follow_symlinks=False):
                    self._add(prefix + own, real + own)
                elif is_manifest or (child.is_symlink() and child.is_dir()):
                    self._visit(prefix + own, depth + 1)
            except OSError as problem:
                self._unreadable(prefix + own, problem)

    def _add(self, name: str, real: str) -> None:
        if real == self._workspace_file:
            return
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                self._refuse(f"{name!a} has a name that is not UTF-8.", "Rename the file.")
                return
        if len(self.found) >= limits.MAX_FILES:
            raise _TooManyFiles
        self.found.setdefault(real, name)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _unreadable(self, name: str, problem: OSError) -> None:
        detail = f"{name} cannot be read: {_reason(problem)}."
        self._refuse(detail, "Check that it is there and may be read.", code="file-unreadable")

    def _refuse(self, detail: str, remedy: str, code: str = "file-path") -> None:
        if f'"{self._entry}"' not in detail:
            detail = f'{detail[:-1]} (under "{self._entry}" in manifests:).'
        self.problems.append(error(code, detail, remedy, self._source))


def _not_inside(entry: str) -> str:
    path = PurePosixPath(entry)
    if not entry.strip() or "\0" in entry:
        return "which is no name."
    if entry.startswith("~"):
        return "which begins with ~; name a folder of the workspace."
    if path.is_absolute() or PureWindowsPath(entry).drive:
        return "which is an absolute path; name a folder of the workspace."
    if ".." in path.parts:
        return "which goes up with ..; name a folder of the workspace."
    if "\\" in entry:
        return "which has a backslash; separate folders with /."
    if set(entry) & set("*?["):
        return "which looks like a pattern; name the folder alone, and everything below it is read."
    return ""


def _similar(path: str) -> str:
    folder, name = os.path.split(path)
    with suppress(OSError):
        return did_you_mean(name, os.listdir(folder))
    return ""


def _require_replaceable(path: Path) -> None:
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise WorkspaceError(f"{path} is there already and is not a file.", "Name a file to be written.")


def _unreadable(path: Path | str, problem: OSError) -> WorkspaceError:
    return WorkspaceError(
        f"{path} cannot be read: {_reason(problem)}.", "Check that it is there and may be read."
    )


def _unwritable(path: Path, problem: OSError) -> WorkspaceError:
    return WorkspaceError(
        f"{path} cannot be written: {_reason(problem)}.",
        "Check the folder, its permissions and the space left, then run the same command again.",
    )


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem)
