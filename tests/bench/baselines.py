"""The other sides of the comparisons: the least work that every program for the same task has to do.

``python baselines.py load FOLDER``          parses every manifest with ``CSafeLoader``
``python baselines.py send PORT FOLDER``     sends every .eml file, each over a new connection

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


def send(port: str, folder: str) -> None:
    """Send every letter of a folder to a mail server, one after another, each over a new connection."""
    import asyncio
    from pathlib import Path

    import aiosmtplib

    async def send_all() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=int(port), use_tls=False, start_tls=False)
        for path in sorted(Path(folder).glob("*.eml")):
            await client.connect()
            await client.sendmail("acces@durand-associes.fr", [path.name[: -len(".eml")]], path.read_bytes())
            await client.quit()

    asyncio.run(send_all())


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2])
    else:
        send(*sys.argv[2:4])
