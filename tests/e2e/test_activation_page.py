"""The page behind an activation link: GET shows the page, and only POST uses the link.

The layout of the page is tested for phones and desktops.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from needs import need, need_package
from service_support import Served, serving
from test_letter_rendering import CONTRAST, MEASURES, QUIET, SMALLEST_TARGET, SMALLEST_TEXT

from provisioner.embedded.server.activation_page import language_of, token_of
from provisioner.planning.steps import CloseUser, CreateCompany, CreateUser, SetBilling
from provisioner.portal import Call
from provisioner.testing.people import ESSENTIEL, NOW, user

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PEOPLE = ("ann", "bob", "cid", "dan", "eve")


@dataclass
class Invited:
    """A service with users who have activation links."""

    served: Served
    ids: dict[str, str]

    def link(self, name: str) -> str:
        portal = self.served.portal()
        try:
            link = portal.activation_links([self.ids[name]])[self.ids[name]]
        finally:
            portal.close()
        assert link.startswith("https://portail.example.fr/activer/")
        return link.replace("https://portail.example.fr", self.served.url)


@pytest.fixture
def invited(tmp_path: Path) -> Iterator[Invited]:
    with serving(tmp_path, now=NOW) as served:
        portal = served.portal()
        portal.execute([Call("", CreateCompany("1", "Company 1"))])
        portal.execute([Call("", SetBilling("1", ESSENTIEL), "", 1)])
        calls = [Call("", CreateUser(name, replace(user(name), id=""))) for name in PEOPLE]
        ids = {name: receipt.id for name, receipt in zip(PEOPLE, portal.execute(calls), strict=True)}
        portal.close()
        yield Invited(served, ids)


def title(answer: httpx2.Response) -> str:
    found = re.search("<h1>(.*?)</h1>", answer.text)
    assert found is not None, answer.text
    return found[1]


FRENCH = {"Accept-Language": "fr-FR,fr;q=0.9"}


def test_get_never_uses_a_link_and_post_uses_it_once(invited: Invited) -> None:
    link = invited.link("ann")
    with httpx2.Client(headers=FRENCH) as web:
        for _ in range(3):
            # mail scanners open links several times
            assert web.head(link).status_code == 200
            assert title(web.get(link)) == "Activer votre accès"
        done = web.post(link)
        assert (done.status_code, title(done)) == (200, "Votre accès est activé")
        # any link on this page would lead to the page of a used activation link
        assert "href" not in done.text
        for answer in (web.post(link), web.get(link)):
            assert (answer.status_code, title(answer)) == (410, "Ce lien ne fonctionne plus")
    portal = invited.served.portal()
    assert portal.invited(link) is None
    portal.close()


def test_used_expired_closed_and_invented_links_get_the_same_page(invited: Invited) -> None:
    used, expiring, closed = invited.link("ann"), invited.link("bob"), invited.link("cid")
    with httpx2.Client(headers=FRENCH) as web:
        web.post(used)
        portal = invited.served.portal()
        portal.execute([Call("", CloseUser("cid"), invited.ids["cid"], 1)])
        portal.close()
        answers = [web.get(used), web.get(closed), web.get(f"{invited.served.url}/activer/made-up")]
        answers.append(web.get(f"{invited.served.url}/activer/%3Cscript%3E"))
        invited.served.set_clock(NOW + timedelta(days=31))
        answers += [web.get(expiring), web.post(expiring)]
    assert {answer.status_code for answer in answers} == {410}
    assert len({answer.text for answer in answers}) == 1
    assert "ou il n’est pas complet" in answers[0].text


def test_other_methods_are_refused(invited: Invited) -> None:
    answer = httpx2.delete(invited.link("ann"))
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_page_exists_in_french_and_english(invited: Invited) -> None:
    link = invited.link("ann")
    assert title(httpx2.get(link, headers={"Accept-Language": "en-GB,en;q=0.8"})) == "Activate your access"
    french = httpx2.get(f"{link}?lang=fr", headers={"Accept-Language": "en"})
    assert title(french) == "Activer votre accès"
    assert '<html lang="fr">' in french.text
    assert '<a href="?lang=en" lang="en" hreflang="en">English</a>' in french.text


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "", "fr"),
        ("", "de-DE,de;q=0.9", "fr"),
        ("", "de,en;q=0.5", "en"),
        ("", "en;q=0.5,fr;q=0.6", "fr"),
        ("", "fr;q=0,en;q=0.1", "en"),
        ("", "EN-us", "en"),
        ("", "en;q=x,;,=;q", "fr"),
        ("en", "fr", "en"),
        ("de", "en", "en"),
    ],
)
def test_language_is_chosen_by_query_or_accept_language(chosen: str, accepted: str, language: str) -> None:
    assert language_of(chosen, accepted) == language


@pytest.mark.parametrize(
    ("public_url", "path", "token"),
    [
        ("https://portail.example.fr/activer", "/activer/word", "word"),
        ("https://portail.example.fr/activer", "/activer/word/", "word"),
        ("https://portail.example.fr/activer", "/activer/", ""),
        ("https://portail.example.fr/activer", "/Activer/word", ""),
        ("https://portail.example.fr/acc%C3%A8s%20client", "/accès client/word", "word"),
        ("https://portail.example.fr", f"/{'w' * 60}", "w" * 60),
        ("https://portail.example.fr", "/favicon.ico", ""),
        ("", f"/{'w' * 60}", ""),
    ],
)
def test_links_are_below_the_public_url(public_url: str, path: str, token: str) -> None:
    """Only a path below the public URL is an activation link. The service compares the decoded paths."""
    assert token_of(path, public_url) == token


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_page_loads_nothing_and_cannot_be_framed(invited: Invited) -> None:
    for answer in (httpx2.get(invited.link("ann")), httpx2.get(f"{invited.served.url}/activer/made-up")):
        headers = answer.headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["vary"] == "Accept-Language"
        parts = _Parts()
        parts.feed(answer.text)
        assert not {"script", "link", "img", "iframe", "object"} & set(parts.tags)
        assert not [name for name, _ in parts.attributes if name in ("src", "style") or name.startswith("on")]
        assert "http" not in answer.text
        style = re.search("<style>(.*?)</style>", answer.text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        policy = headers["content-security-policy"]
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'")
        assert "unsafe" not in policy


def test_page_contains_no_personal_data(invited: Invited) -> None:
    text = httpx2.get(invited.link("ann")).text
    for word in ("ann@", "Ann", "Martin", "Company", invited.ids["ann"]):
        assert word not in text


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


def _listen(page: Page, complaints: list[str], asked: list[str]) -> None:
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: asked.append(request.url))


@pytest.mark.external
def test_page_is_legible_and_usable_on_phone_and_desktop(invited: Invited, browser: Browser) -> None:
    for name, width, scheme in (("ann", 360, "light"), ("bob", 1280, "dark")):
        page = browser.new_page(
            viewport={"width": width, "height": 740},
            color_scheme="dark" if scheme == "dark" else "light",
            locale="fr-FR",
        )
        complaints: list[str] = []
        asked: list[str] = []
        _listen(page, complaints, asked)
        link = invited.link(name)
        page.goto(link)
        measures = page.evaluate(MEASURES)
        assert measures["language"] == "fr"
        assert measures["needed"] <= measures["width"] == width
        for text in measures["texts"]:
            assert text["size"] >= SMALLEST_TEXT, text
            assert text["contrast"] >= CONTRAST, text
        button = page.get_by_role("button", name="Activer mon accès")
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= SMALLEST_TARGET
        # the browser applies the style, so the content security policy allows it
        assert box["width"] >= 300
        page.get_by_role("link", name="English").click()
        assert page.get_by_role("heading").inner_text() == "Activate your access"
        page.get_by_role("button", name="Activate my access").click()
        assert page.get_by_role("heading").inner_text() == "Your access is activated"
        assert complaints == []
        page.reload()
        page.close()
        assert {url.partition("?")[0] for url in asked} == {link}
    portal = invited.served.portal()
    assert portal.activation_links([invited.ids["ann"]]) == {invited.ids["ann"]: ""}
    portal.close()
