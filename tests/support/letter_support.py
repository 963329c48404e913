"""A letter to a newcomer, and the templates that the program brings along."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from provisioner.mail.message import Letter
from provisioner.mail.template_sandbox import Templates

FOLDER = Path(__file__).parents[2] / "templates" / "mail"
TEMPLATES = Templates({path.name: path.read_text() for path in FOLDER.glob("*.j2")})
DATED = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def letter(language: str = "fr", **context: str) -> Letter:
    words = {
        "first_name": "Éloïse",
        "last_name": "Martin",
        "email": "eloise@boulangerie-martin.fr",
        "company": "Boulangerie Martin SARL",
        "firm": "Cabinet Durand & Associés",
        **context,
    }
    return Letter("ab" * 32, words["email"], language, words, DATED)
