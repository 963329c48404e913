"""What the last plan found at rest, so that the next one reads only what moved.

A manifest is *at rest* when planning it had nothing to say: no change, no notice, no problem, nothing for
the ledger. While the rest of the world stands still (the portal, the ledger, provisioner.yaml, the month,
this very program), a file whose signature has not moved is at rest still, and need not be read again.

One file a workspace, in ``~/.cache/provisioner`` (or ``$XDG_CACHE_HOME/provisioner``): planning leaves no
trace where accesses are kept. It may be deleted at any time, and says by a digest whether it is whole;
whatever is not as expected is as if there were none. It holds addresses of users, so it is for its owner's
eyes alone; no password, no link.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from provisioner import __version__
from provisioner.files import Signature

_LIKELY_RACE = 2_000_000_000
"""Nanoseconds: a file that moved so shortly before it was read may move again within one tick."""


@dataclass(slots=True)
class Remembered:
    """The files of the last plan, and what they declare, by name."""

    world: str
    """See :func:`world_of`."""
    files: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Each file's signature; zeros where it cannot be trusted."""
    digests: dict[str, str] = field(default_factory=dict)
    """As a saved plan has them, where they were asked for."""
    users: dict[str, str] = field(default_factory=dict)
    """The file that declares each user."""
    former: dict[str, str] = field(default_factory=dict)
    """The file that declares a user under each of these former addresses."""
    companies: dict[str, str] = field(default_factory=dict)
    """The file that declares each company."""
    restless: tuple[str, ...] = ()
    """Files that are not at rest."""
    undeclared: tuple[str, ...] = ()
    """The portal's ids of users whom no file declares."""


def world_of(parts: Iterable[str]) -> str:
    """Everything but the manifests that a plan is made from, in one word; ``parts`` as they stand now."""
    return _digest("\n".join((__version__, sys.implementation.cache_tag or "", *_program(), *parts)).encode())


def trusted(signature: Signature, now: int) -> tuple[int, ...]:
    """The signature to remember of a file that was read at ``now`` (nanoseconds)."""
    if max(signature.modified, signature.changed) > now - _LIKELY_RACE:
        return (0, 0, 0, 0)
    return tuple(signature)


def recall(root: Path) -> Remembered | None:
    """What was remembered of this workspace, if it is there and whole."""
    try:
        content = _place(root).read_bytes()
        digest, _, payload = content.partition(b"\n")
        if digest.decode("ascii", "replace") != _digest(payload):
            return None
        # plain values: none of it is ever run
        return Remembered(*marshal.loads(payload))  # noqa: S302
    except (OSError, RuntimeError, ValueError, TypeError, EOFError):
        return None


def remember(root: Path, remembered: Remembered) -> None:
    """Keep this for the next plan. Where that cannot be, nothing is kept: no plan fails for it."""
    payload = marshal.dumps(tuple(getattr(remembered, part.name) for part in fields(remembered)))
    with suppress(OSError, RuntimeError):
        place = _place(root)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # whole or not at all, but not for ever: what a crash leaves half on the disk, its digest gives away
        descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"%s\n%s" % (_digest(payload).encode(), payload))
            os.replace(temporary, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _place(root: Path) -> Path:
    """The file of a workspace. Raises ``RuntimeError`` where nobody has a home."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # by its definition one that is not absolute counts for nothing; it would lie wherever the program runs
    folder = caches if caches.is_absolute() else Path.home() / ".cache"
    return folder / "provisioner" / f"{_digest(os.fsencode(root.resolve()))[:32]}.plan"


def _program() -> Iterable[str]:
    """The program as it lies on the disk: whoever changes a line of it plans anew."""
    package = Path(__file__).parent
    for folder, _, names in os.walk(package):
        for name in sorted(names):
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                yield f"{name} {status.st_size} {status.st_mtime_ns}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
