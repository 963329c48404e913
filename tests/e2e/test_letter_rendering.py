"""The welcome e-mail in a browser, at phone and desktop width, in light and dark mode."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from letter_support import TEMPLATES, letter
from needs import need, need_package

from provisioner.mail.message import Letter, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MEASURES = (Path(__file__).parents[1] / "support" / "letter_measures.js").read_text(encoding="utf-8")
LINK = f"https://portail.durand-associes.fr/{'bf9d' * 8}.1.1798148632.{'aec4' * 10}"

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""The options for a browser that makes no network requests of its own."""

LONG = letter(
    first_name="Marie-Antoinette-Wilhelmine",
    last_name="de Rochebrune-Montmorency-Luxembourg",
    company=f"Établissements {'Sanscoupure' * 9} & Fils SARL",
    email="marie-antoinette.de-rochebrune-montmorency@etablissements-sans-coupure-superlongs.example.fr",
    firm=f"Cabinet {'Durand' * 12}",
)
LETTERS: dict[str, tuple[Letter, str]] = {
    "French": (letter(), LINK),
    "English": (letter("en"), LINK),
    "without a link": (letter(), ""),
    "long names": (LONG, LINK),
}

SMALLEST_TEXT = 14  # CSS pixels
SMALLEST_TARGET = 44  # CSS pixels, for a finger
CONTRAST = 4.5  # WCAG 2, 1.4.3
CONTRAST_OF_CONTROLS = 3.0  # WCAG 2, 1.4.11


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright

    home = str(tmp_path_factory.mktemp("browser"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=QUIET, env={"HOME": home, "PATH": "/usr/bin:/bin"}
        )
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Seen:
    """The measured layout of a page, and the addresses that the page requested."""

    measures: dict[str, Any]
    asked: list[str]


def look(browser: Browser, name: str, width: int, scheme: str) -> Seen:
    one, link = LETTERS[name]
    asked: list[str] = []
    page = browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    try:
        page.on("request", lambda request: asked.append(request.url))
        page.set_content(render(one, link, TEMPLATES).html, wait_until="load")
        return Seen(page.evaluate(MEASURES), asked)
    finally:
        page.close()


@pytest.mark.external
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", LETTERS)
def test_text_size_contrast_and_button_meet_the_limits(
    browser: Browser, name: str, width: int, scheme: str
) -> None:
    seen = look(browser, name, width, scheme)
    measures = seen.measures
    assert seen.asked == []
    assert measures["needed"] <= measures["width"] == width
    assert len(measures["texts"]) > 8
    for text in measures["texts"]:
        assert text["size"] >= SMALLEST_TEXT, text
        assert text["contrast"] >= CONTRAST, text
        assert 0 <= text["left"] <= text["right"] <= width, text
    _require_a_button(measures["links"], LETTERS[name][1])


def _require_a_button(links: list[dict[str, Any]], link: str) -> None:
    if not link:
        assert links == []
        return
    button, spelled_out = links
    assert button["href"] == spelled_out["href"] == spelled_out["text"].replace("\n", "") == link
    for one in links:
        assert one["seen"], one
        assert one["reached"], one
    assert button["text"] in ("Choisir mon mot de passe", "Choose my password")
    assert button["height"] >= SMALLEST_TARGET
    assert button["stands_out"] >= CONTRAST_OF_CONTROLS


@pytest.mark.external
@pytest.mark.parametrize(
    ("name", "language", "title", "spoken"),
    [
        (
            "French",
            "fr",
            "Votre accès en ligne",
            [
                "Cabinet Durand & Associés", "Votre accès en ligne", "Bonjour Éloïse Martin,",
                "Boulangerie Martin SARL", "Votre identifiant : eloise@boulangerie-martin.fr",
                "choisissez d’abord votre mot de passe", "Choisir mon mot de passe",
                "Ce lien vous est personnel", LINK, "Bien cordialement,", "Vous n’attendiez pas ce message ?",
            ],
        ),
        (
            "English",
            "en",
            "Your online access",
            [
                "Cabinet Durand & Associés", "Your online access", "Dear Éloïse Martin,",
                "Boulangerie Martin SARL", "Your login: eloise@boulangerie-martin.fr",
                "first choose your password", "Choose my password", "This link is yours alone",
                LINK, "Kind regards,", "You did not expect this message?",
            ],
        ),
    ],
)  # fmt: skip
def test_a_screen_reader_has_a_language_a_heading_and_the_order_of_the_page(
    browser: Browser, name: str, language: str, title: str, spoken: list[str]
) -> None:
    measures = look(browser, name, 360, "light").measures
    assert measures["language"] == language
    assert measures["title"] == title
    assert measures["headings"] == [f"H1 {title}"]
    # tables place things, and are read as text
    assert measures["data_tables"] == 0
    assert measures["unnamed_images"] == 0
    text = measures["spoken"].replace("\N{NO-BREAK SPACE}", " ")
    places = [text.find(words) for words in spoken]
    assert -1 not in places
    assert places == sorted(places)
