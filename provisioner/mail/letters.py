"""A letter, from what is known of its reader to the bytes that travel. Pure: no clock, no file, no chance.

Values are data to the templates and are never compiled; a template is the firm's own text, but
still runs in a sandbox, within bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from provisioner.errors import MailError
from provisioner.limits import MAX_RENDER_SECONDS, MAX_RENDERED_CHARACTERS

if TYPE_CHECKING:
    from email.headerregistry import Address

LANGUAGES = ("fr", "en")


@dataclass(frozen=True, slots=True)
class Letter:
    """One owed letter, as the outbox holds it.

    ``key`` makes a second one impossible and gives the Message-ID; ``dated`` is fixed when the
    letter is first owed, so that a second copy has the same bytes.
    """

    key: str
    recipient: str
    language: str
    context: Mapping[str, str]
    dated: datetime
    template: str = "welcome"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A letter as it reads."""

    subject: str
    text: str
    html: str


class Templates:
    """The mail templates by file name, compiled when first used."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        from jinja2 import DictLoader

        self._environment = _environment()
        self._environment.loader = DictLoader(dict(sources))
        self._names = frozenset(sources)

    def render(self, name: str, context: Mapping[str, str]) -> str:
        """One part of a letter. Raises :class:`MailError` with the template's file and line."""
        from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

        if name not in self._names:
            raise MailError(
                f"There is no mail template {name}.", "Templates are looked up in templates/mail/."
            )
        try:
            return _bounded(name, self._environment.get_template(name).generate(**context))
        except TemplateSyntaxError as problem:
            raise MailError(
                f"The mail template {problem.name or name}:{problem.lineno} is not a valid template: "
                f"{problem.message}.",
                "Correct that line.",
            ) from problem
        except UndefinedError as problem:
            raise MailError(
                f"The mail template {_where(name, problem)} uses something that does not exist: "
                f"{problem.message}.",
                f"A template may use: {', '.join(sorted(context))}.",
            ) from problem
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            MemoryError,
            RecursionError,
        ) as problem:
            raise MailError(
                f"The mail template {_where(name, problem)} cannot be rendered: {problem}.",
                "Correct that line.",
            ) from problem


def render(letter: Letter, link: str, templates: Templates) -> Rendered:
    """Subject, text and HTML of a letter; ``link`` is empty when its reader needs none.

    Raises :class:`MailError`.
    """
    context = {**letter.context, "link": link, "language": letter.language}
    stem = f"{letter.template}.{letter.language}"
    subject = " ".join(templates.render(f"{stem}.subject.j2", context).split())
    return Rendered(
        subject,
        templates.render(f"{stem}.txt.j2", context),
        templates.render(f"{stem}.html.j2", context),
    )


def compose(letter: Letter, rendered: Rendered, *, sender: str, reply_to: str = "") -> bytes:
    """The message as it travels: the same input gives the same bytes. Raises :class:`MailError`."""
    from email.errors import MessageError
    from email.message import EmailMessage
    from email.policy import SMTP
    from email.utils import format_datetime

    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = _mailbox(sender)
        message["To"] = _mailbox(letter.recipient)
        if reply_to:
            message["Reply-To"] = _mailbox(reply_to)
        message["Subject"] = rendered.subject
        message["Date"] = format_datetime(letter.dated)
        message["Message-ID"] = message_id(letter.key, sender)
        message["Auto-Submitted"] = "auto-generated"
        message["MIME-Version"] = "1.0"
        message.make_alternative(boundary=f"=_{letter.key[:40]}")
        # set now: make_alternative would carry it off into a part
        message["Content-Language"] = letter.language
        for kind, body in (("plain", rendered.text), ("html", rendered.html)):
            part = EmailMessage(policy=SMTP)
            part.set_content(_lines(body), subtype=kind, charset="utf-8", cte="quoted-printable")
            del part["MIME-Version"]
            message.attach(part)
        return message.as_bytes()
    except (ValueError, MessageError, UnicodeError, LookupError) as problem:
        raise MailError(
            f"The letter to {letter.recipient!r} cannot be written: {problem}.",
            "Correct the address, the name or the template.",
        ) from problem


def message_id(key: str, sender: str) -> str:
    """Stable: a second copy of a letter is recognised by its Message-ID."""
    from email.utils import parseaddr

    return f"<{key[:40]}@{parseaddr(sender)[1].rpartition('@')[2]}>"


def _mailbox(text: str) -> Address:
    from email.headerregistry import Address
    from email.utils import parseaddr

    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not at or not local or not address.isascii() or any(c.isspace() or ord(c) < 33 for c in address):
        raise ValueError(f"{text!r} is not an address that mail can go to")
    if any(ord(character) < 32 or character in "\x7f\x85\u2028\u2029" for character in text):
        raise ValueError("control characters in an address")
    return Address(name, local, domain)


def _lines(text: str) -> str:
    """Bare carriage returns and exotic line ends become plain ones (no smuggled end of message)."""
    return "\n".join(text.replace("\x00", "").splitlines()) + "\n"


def _where(name: str, problem: BaseException) -> str:
    """The template's file and line, as the traceback that jinja rewrites tells them."""
    line = None
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>" or "jinja" in str(
            trace.tb_frame.f_globals.get("__jinja_template__", "")
        ):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{name}:{line}" if line else name


def _bounded(name: str, pieces: Iterator[str]) -> str:
    deadline = time.monotonic() + MAX_RENDER_SECONDS
    written: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_RENDERED_CHARACTERS or time.monotonic() > deadline:
            raise MailError(
                f"The mail template {name} makes too much: over {MAX_RENDERED_CHARACTERS:,} characters "
                f"or {MAX_RENDER_SECONDS:.0f} seconds.",
                "Look for a loop that does not end.",
            )
        written.append(piece)
    return "".join(written)


def _environment() -> Any:
    """A sandbox without functions, methods and arithmetic: letters need none, and bombs are made of them."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.runtime import BlockReference, Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses the operators and filters that make much out of little."""

        intercepted_binops = frozenset({"*", "**", "%", "//", "/"})

        def is_safe_callable(self, obj: Any) -> bool:
            return isinstance(obj, BlockReference | Macro)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            raise SecurityError(f"the operator {operator} is not available in letters")

    environment = Sandbox(
        undefined=StrictUndefined,
        # select_autoescape looks at the last ending only and would miss .html.j2
        autoescape=lambda name: bool(name and ".html" in name),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.clear()
    kept: dict[str, Callable[..., Any]] = {
        name: environment.filters[name]
        for name in ("capitalize", "default", "e", "escape", "lower", "title", "trim", "upper")
    }
    environment.filters.clear()
    environment.filters.update(kept)
    return environment
