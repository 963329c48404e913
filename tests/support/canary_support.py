"""Secrets that tests give to the program, and the search for them in everything that it writes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from urllib.parse import quote

PASSWORD = "CANARY-kéy-7f3a!%ß"
USERNAME = "acces"
LINK = "https://portail.durand-associes.fr/"


def spelled(secret: bytes) -> Iterator[bytes]:
    """Yield each encoding of a secret that may occur in files, protocols, logs and tracebacks."""
    text = secret.decode("utf-8", "replace")
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield base64.b64encode(f"\0{USERNAME}\0".encode() + secret).rstrip(b"=")
    yield quote(text).encode()
    yield text.encode("ascii", "backslashreplace")
    yield repr(secret)[2:-1].encode()
    yield text.encode("utf-16-le")
    yield text.encode("latin-1", "replace")


def searched(secrets: dict[str, bytes], haystack: dict[str, bytes]) -> None:
    for what, secret in secrets.items():
        assert len(secret) > 9
        for form in spelled(secret):
            for place, content in haystack.items():
                assert form not in content, f"the {what} stands in {place}"


def links_in(letters: list[bytes]) -> dict[str, bytes]:
    """The token and the signature of the link in each letter, by names that contain the recipient."""
    found = {}
    for content in letters:
        letter = message_from_bytes(content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        body = letter.get_body(("plain",))
        assert body is not None
        (link,) = re.findall(rf"{LINK}\S+", body.get_content())
        token = link.removeprefix(LINK)
        found[f"link of {letter['To']}"] = token.encode()
        found[f"signature of {letter['To']}"] = token.rpartition(".")[2].encode()
    return found
