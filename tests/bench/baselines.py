"""The baselines of the comparisons: the minimum of work that every program for the same task must do.

``python baselines.py load FOLDER``                        parses every manifest with ``CSafeLoader``
``python baselines.py walk FOLDER``                        finds every file and reads its status
``python baselines.py send PORT FOLDER CONNECTIONS``       sends every .eml; ``CONNECTIONS`` is ``one`` (one
                                                           connection for all) or ``each`` (one per letter)

Each function contains its own imports, so that the time of a command includes only the imports that it needs.
"""

from __future__ import annotations

import sys


def load(folder: str) -> None:
    """Parse every manifest in the folder and its subfolders."""
    from pathlib import Path

    import yaml

    loaded = [
        yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)  # noqa: TID251  # it is what we compare with
        for path in sorted(Path(folder).rglob("*.yaml"))
    ]
    assert loaded


def walk(folder: str) -> None:
    """Read the status of every file in the folder and its subfolders, without opening the files."""
    import os

    with os.scandir(folder) as children:
        for child in children:
            if child.is_dir(follow_symlinks=False):
                walk(child.path)
            else:
                child.stat()


def send(port: str, folder: str, connections: str) -> None:
    """Send every letter of a folder to a mail server, one after another."""
    import asyncio
    from pathlib import Path

    import aiosmtplib

    async def send_all() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=int(port), use_tls=False, start_tls=False)
        for path in sorted(Path(folder).glob("*.eml")):
            if not client.is_connected:
                await client.connect()
            await client.sendmail("acces@durand-associes.fr", [path.name[: -len(".eml")]], path.read_bytes())
            if connections == "each":
                await client.quit()
        if client.is_connected:
            await client.quit()

    asyncio.run(send_all())


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2])
    elif sys.argv[1] == "walk":
        walk(sys.argv[2])
    else:
        send(*sys.argv[2:5])
