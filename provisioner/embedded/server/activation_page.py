"""The web page that an activation link opens: GET shows the page, and only POST uses up the link.

GET changes nothing, because mail scanners open links. No protection against forged requests (CSRF) is needed,
because the link is the only credential, and another site does not know it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from operator import itemgetter
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from provisioner.embedded.server.problem_details import Problem
from provisioner.embedded.server.service import Service
from provisioner.errors import PortalError

LINK_LENGTH = 60
"""The minimum length of a token if activation links are directly below the root of the host. A shorter path
there is not an activation link, but for example /favicon.ico."""

_STYLE = (
    ":root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--act:#0b57d0;--on:#fff;--soft:#4b4b52}"
    "@media(prefers-color-scheme:dark){:root{--ink:#f2f2f2;--paper:#1c1c1f;--act:#a8c7fa;"
    "--on:#062e6f;--soft:#c4c4cc}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:1.0625rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
    "display:flex;flex-direction:column;min-height:100vh}"
    "nav{padding:.25rem 1rem;text-align:right}"
    "nav a{display:inline-block;padding:.7rem .5rem;min-height:2.75rem;color:var(--act)}"
    "main{width:100%;max-width:34rem;margin:auto;padding:1rem 1.25rem 4rem}"
    "h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem}"
    "p{margin:0 0 1.25rem}"
    "small{font-size:.9375rem;color:var(--soft)}"
    "button{font:inherit;font-weight:600;width:100%;min-height:3rem;padding:.75rem 1.25rem;border:0;"
    "border-radius:.5rem;background:var(--act);color:var(--on);cursor:pointer}"
    "button:focus-visible,a:focus-visible{outline:3px solid var(--act);outline-offset:3px}"
)

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: dict[str, str] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Vary": "Accept-Language",
}
"""The headers of every activation page, in addition to the headers of every response."""


@dataclass(frozen=True)
class _Words:
    title: str
    text: str
    button: str = ""
    note: str = ""


_PAGES: dict[str, dict[str, _Words]] = {
    "fr": {
        "open": _Words(
            "Activer votre accès",
            "Votre cabinet d’expertise comptable vous a ouvert un accès en ligne. Confirmez pour l’activer.",
            "Activer mon accès",
            "Ce lien vous est personnel et ne sert qu’une fois.",
        ),
        "done": _Words(
            "Votre accès est activé",
            "Vous pouvez maintenant vous connecter avec votre adresse e-mail. Vous pouvez fermer cette page.",
        ),
        "gone": _Words(
            "Ce lien ne fonctionne plus",
            "Il a déjà été utilisé, il a expiré, un lien plus récent l’a remplacé, ou il n’est pas "
            "complet. Si vous avez déjà activé votre accès, connectez-vous comme d’habitude. "
            "Sinon, demandez un nouveau lien à votre cabinet.",
        ),
        "away": _Words(
            "Un instant, s’il vous plaît",
            "Le service n’est pas disponible pour le moment. "
            "Votre lien reste valable : réessayez dans quelques minutes.",
        ),
    },
    "en": {
        "open": _Words(
            "Activate your access",
            "Your accounting firm has opened an online access for you. Confirm to activate it.",
            "Activate my access",
            "This link is yours alone and works once.",
        ),
        "done": _Words(
            "Your access is activated",
            "You can now log in with your e-mail address. You may close this page.",
        ),
        "gone": _Words(
            "This link no longer works",
            "It was used already, it has expired, a newer one has replaced it, or it is not complete. "
            "If you have activated your access before, log in as usual. "
            "Otherwise ask your firm for a new link.",
        ),
        "away": _Words(
            "One moment, please",
            "The service is not available right now. Your link stays valid: try again in a few minutes.",
        ),
    },
}
_OTHER = {"fr": ("en", "English"), "en": ("fr", "Français")}


async def visit(service: Service, request: Request) -> Response | None:
    """Return the response to a request for an activation link; None for a request for any other path.

    Raises :class:`Problem` (405) for a method other than GET, HEAD and POST; :class:`PortalError` if the read
    of the public URL fails.
    """
    about = await service.read(lambda portal: portal.about())
    token = token_of(request.scope["path"], about.public_url)
    if not token:
        return None
    request.scope["page"] = "invitation"
    if request.method not in ("GET", "HEAD", "POST"):
        allow = "GET, HEAD, POST"
        raise Problem("method", f"This address takes {allow}.", headers={"Allow": allow})
    kind, status = await _turn(service, request, token)
    language = language_of(request.query_params.get("lang", ""), request.headers.get("accept-language", ""))
    retry = {"Retry-After": "60"} if status == 503 else {}
    return Response(page(kind, language), status, headers={**HEADERS, **retry})


def token_of(path: str, public_url: str) -> str:
    """Return the token, which is the last part of ``path``; "" if ``path`` is no activation link."""
    folder, _, token = path.removesuffix("/").rpartition("/")
    base = unquote(urlsplit(public_url).path).rstrip("/")
    # if links are directly below the root of the host, a short path is another file, such as /favicon.ico
    if not public_url or folder != base or (not base and len(token) < LINK_LENGTH):
        return ""
    return token


async def _turn(service: Service, request: Request, token: str) -> tuple[str, int]:
    try:
        if request.method != "POST":
            works = await service.read(lambda portal: portal.invited(token) is not None)
            return ("open", 200) if works else ("gone", 410)
        done = await service.write(lambda portal: portal.consume(token))
        return ("done", 200) if done else ("gone", 410)
    except PortalError:
        return "away", 503


def page(kind: str, language: str) -> bytes:
    """Return the HTML of the page ``kind`` (``open``, ``done``, ``gone`` or ``away``; see ``_PAGES``)."""
    words = _PAGES[language][kind]
    # no link to the other language when done: its GET would show the page for a used activation link
    other, name = _OTHER[language] if kind != "done" else ("", "")
    elsewhere = f'<a href="?lang={other}" lang="{other}" hreflang="{other}">{name}</a>' if other else ""
    title, text = html.escape(words.title), html.escape(words.text)
    form = note = ""
    if words.button:
        # a relative URL, because a proxy may have changed the path
        form = (
            f'<form method="post" action="?lang={language}">'
            f"<button>{html.escape(words.button)}</button></form>"
        )
        note = f"<p><small>{html.escape(words.note)}</small></p>"
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="robots" content="noindex"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><nav>{elsewhere}</nav>"
        f"<main><h1>{title}</h1><p>{text}</p>{note}{form}</main></body></html>\n"
    ).encode()


_ACCEPTED = r"(?:^|,)\s*(fr|en)(?:-[a-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]*)?)\s*)?(?=,|$)"


def language_of(chosen: str, accepted: str) -> str:
    """Return the page's language: ``chosen`` if it is ``fr`` or ``en``, otherwise the one the client prefers.
    ``accepted`` is the header Accept-Language. If it accepts neither ``fr`` nor ``en``, return ``fr``.
    """
    if chosen in _PAGES:
        return chosen
    accepted_ones = re.findall(_ACCEPTED, accepted.lower())
    weights = [(float(weight or 1), language) for language, weight in accepted_ones]
    weight, language = max(weights, key=itemgetter(0), default=(0.0, "fr"))
    return language if weight else "fr"
