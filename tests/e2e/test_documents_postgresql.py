"""The example for PostgreSQL in provisioner/portals/README.md, with a PostgreSQL server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from documents import blocks
from samples_support import ONBOARDING, copy_samples, run

if TYPE_CHECKING:
    from postgres_support import PostgresServer


def test_a_portal_and_a_ledger_in_postgresql_take_one_line_each(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    (example,) = (
        block for block in blocks("provisioner/portals/README.md", "yaml") if "postgresql" in block.text
    )
    written = dict(re.findall(r'^(\w+):\n  url: "(postgresql://[^"?]+)"$', example.text, re.MULTILINE))
    assert written.keys() == {"portal", "ledger"}
    settings = copy_samples(tmp_path) / ONBOARDING / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8")
    for name in written:
        assert text.count(f"sqlite:///{name}.db") == 1
        text = text.replace(f"sqlite:///{name}.db", postgres.url(postgres.new_schema()))
    settings.write_text(text, encoding="utf-8")
    apply = f"provisioner -C {ONBOARDING} apply --auto-approve"
    assert "Applied: 32 steps done, 15 e-mails sent." in run(apply, tmp_path)
    assert run(apply, tmp_path).startswith("No changes")
