"""``provisioner schema``: print the JSON Schema of one kind of file, for use in editors."""

from __future__ import annotations

import json
from pathlib import Path

from provisioner.terminal.console import Console
from provisioner.workspace.files import resource_folder


def schema(folder: Path, console: Console, *, kind: str) -> int:
    """Print the JSON Schema of one ``kind`` of file: client manifests, provisioner.yaml or saved plans."""
    text = (resource_folder("schemas") / f"{kind}.schema.json").read_text(encoding="utf-8")
    console.answer(json.dumps(json.loads(text), ensure_ascii=False, indent=2))
    return 0
