"""A request to a faulty server ends with an error sentence, within limits of time and bytes.

No secret is disclosed. The tests cover rows 13 and 23 for the HTTP client; test_rest_faults.py covers both
rows for the whole program.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import gc
import gzip
import logging
import signal
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from http_support import CUT, PAUSE, RESET, SILENCE, Asked, http_server, reply

from provisioner import limits
from provisioner.errors import PortalError
from provisioner.portals.http import HttpClient
from provisioner.portals.http_messages import (
    HttpResponse,
    NoResponse,
    Request,
)
from provisioner.portals.oauth import BearerToken

SECRET = "s3cret-of-the-client-0123456789"
TOKEN = "t0ken-given-by-the-portal-0123456789"
READING = Request("GET", "/v1/portal")
LONGEST = 20.0
"""The maximum duration of each call in seconds. A call that takes longer fails the test."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(limits, "CALL_SECONDS", 20.0)
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.001)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts."""
    monkeypatch.setattr(limits, "REPLY_SECONDS", 0.25)
    monkeypatch.setattr(limits, "CALL_SECONDS", 1.0)


class Outcome(NamedTuple):
    """The result of a request: its response or its error."""

    reply: HttpResponse | None
    problem: PortalError | None

    @property
    def sentence(self) -> str:
        assert self.problem is not None
        return f"{self.problem} {self.problem.remedy}"


def ask(url: str, request: Request = READING, *, token: str = TOKEN, ca_file: Path | None = None) -> Outcome:
    """Send one request with a token. Assert that it ends in time and that no error contains the token."""
    web = HttpClient(url, ca_file=ca_file, secrets=(token,))
    began = time.monotonic()
    try:
        return Outcome(web.run(web.request(request, BearerToken(token))), None)
    except PortalError as problem:
        outcome = Outcome(None, problem)
    finally:
        web.close()
        assert time.monotonic() - began < LONGEST
    assert token not in f"{outcome.sentence} {problem_of(outcome)!r} {problem_of(outcome).__cause__!r}"
    return outcome


def problem_of(outcome: Outcome) -> PortalError:
    assert outcome.problem is not None
    return outcome.problem


def header_drip(_: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: yes\r\n"
        yield PAUSE


def body_drip(_: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    while True:
        yield b" "
        yield PAUSE


def endless(_: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    while True:
        yield b" " * 65536


def endless_chunks(_: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 65536 + b"\r\n"


def endless_headers(_: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: " + b"y" * 65536 + b"\r\n"


def endless_interim(_: Asked) -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100
        yield PAUSE


BOMB = gzip.compress(b"\0" * 20_000_000)

EACH = limits.CALL_TRIES
REPEATED: dict[str, tuple[Callable[[Asked], bytes | Iterable[bytes]], int]] = {
    "hangs up": (lambda _: [CUT], EACH),
    "resets": (lambda _: [RESET], EACH),
    "half a head": (lambda _: [b"HTTP/1.1 200 OK\r\nContent-Ty", CUT], EACH),
    "half a body": (lambda _: [reply(200, {"a": 1})[:-3], CUT], EACH),
    "half a body, reset": (lambda _: [reply(200, {"a": 1})[:-3], RESET], EACH),
    "half a chunk": (
        lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n1234", CUT],
        EACH,
    ),
    "garbage": (lambda _: [b"\0\1\2 what? \r\n\r\n", CUT], EACH),
    "another protocol": (lambda _: [b"220 mail.example.com ESMTP\r\n", CUT], EACH),
    "huge headers": (
        lambda _: reply(headers="".join(f"X-{number}: {'y' * 1000}\r\n" for number in range(200))),
        EACH,
    ),
    "headers without end": (endless_headers, EACH),
    "two lengths": (lambda _: reply(200, {}, "Content-Length: 5\r\n"), EACH),
    "busy": (lambda _: reply(429, {}), EACH),
    "away": (lambda _: reply(503, {}), EACH),
    "bad gateway": (lambda _: reply(502, b"<html>", kind="text/html"), EACH),
    "gateway time-out": (lambda _: reply(504, b"<html>", kind="text/html"), EACH),
    "request time-out": (lambda _: [reply(408, b"", "Connection: close\r\n"), CUT], EACH),
}
SLOW: dict[str, Callable[[Asked], bytes | Iterable[bytes]]] = {
    "says nothing": lambda _: [SILENCE],
    "header drip": header_drip,
    "body drip": body_drip,
    "interim replies without end": endless_interim,
}
FINAL: dict[str, Callable[[Asked], bytes | Iterable[bytes]]] = {
    "packed": lambda _: reply(200, BOMB, "Content-Encoding: gzip\r\n"),
    "packed twice": lambda _: reply(200, BOMB, "Content-Encoding: gzip, gzip\r\n"),
    "packed otherwise": lambda _: reply(200, b"x", "Content-Encoding: br\r\n"),
    "a body without end": endless,
    "chunks without end": endless_chunks,
}


@pytest.mark.parametrize("fault", REPEATED)
def test_lost_response_is_requested_again_a_few_times(fault: str) -> None:
    """If each response is lost, the request is repeated a limited number of times."""
    answer, tries = REPEATED[fault]
    with http_server(answer) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.problem, NoResponse)
    assert outcome.problem.outcome_unknown is (fault != "busy")
    # a plain request to a TLS server gets no other hint
    assert outcome.problem.remedy.startswith("Check that it runs, and portal: url: in provisioner.yaml.")
    assert ("https://" in outcome.problem.remedy) is outcome.problem.outcome_unknown
    assert len(server.asked) == tries
    assert server.url in outcome.sentence
    assert server.sent < 5 * limits.MAX_REPLY_BYTES


def test_server_that_has_answered_is_not_said_to_speak_tls() -> None:
    hung_up = REPEATED["hangs up"][0]
    with http_server(once(lambda _: reply(200, {}), hung_up)) as server:
        web = HttpClient(server.url)
        try:
            web.run(web.request(READING, BearerToken(TOKEN)))
            with pytest.raises(NoResponse) as caught:
                web.run(web.request(READING, BearerToken(TOKEN)))
        finally:
            web.close()
    assert caught.value.remedy == "Try again in a while."


@pytest.mark.parametrize("fault", REPEATED)
def test_response_lost_once_has_no_effect(fault: str) -> None:
    """If one response is lost, the repeated request succeeds."""
    faulty, _ = REPEATED[fault]
    with http_server(once(faulty, lambda _: reply(200, {"fine": True}))) as server:
        outcome = ask(server.url)
    assert outcome.reply is not None
    assert outcome.reply.json() == {"fine": True}
    assert len(server.asked) == 2


def once(
    first: Callable[[Asked], bytes | Iterable[bytes]], then: Callable[[Asked], bytes | Iterable[bytes]]
) -> Callable[[Asked], bytes | Iterable[bytes]]:
    """Return a function that answers the first request with ``first`` and all others with ``then``."""
    answers = iter([first])
    lock = threading.Lock()

    def answer(asked: Asked) -> bytes | Iterable[bytes]:
        with lock:
            chosen = next(answers, then)
        return chosen(asked)

    return answer


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", SLOW)
def test_slow_response_and_slow_call_time_out(fault: str) -> None:
    """A slow response ends in a timeout, although each single read is fast enough."""
    with http_server(SLOW[fault]) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.problem, NoResponse)
    assert outcome.problem.outcome_unknown
    assert 2 <= len(server.asked) <= limits.CALL_TRIES
    assert server.sent < limits.MAX_REPLY_BYTES


@pytest.mark.parametrize("fault", FINAL)
def test_oversized_response_is_refused_at_once(fault: str) -> None:
    """An oversized or compressed response is refused without another attempt."""
    with http_server(FINAL[fault]) as server:
        outcome = ask(server.url)
    assert not isinstance(outcome.problem, NoResponse)
    assert ("packed" in outcome.sentence) or ("longer than 10,485,760 bytes" in outcome.sentence)
    assert len(server.asked) == 1
    # what was on its way when the line was cut
    assert server.sent < limits.MAX_REPLY_BYTES + 16 * 1024 * 1024


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_response_size_is_limited_at_n_and_n_plus_1(
    more: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REPLY_BYTES", 1_000)
    with http_server(lambda _: reply(200, b" " * (1_000 + more))) as server:
        outcome = ask(server.url)
    assert (outcome.reply is not None) is fits


def test_compression_is_not_requested_and_few_headers_are_sent() -> None:
    with http_server(lambda _: reply(200, {}, "Set-Cookie: a=b; Path=/\r\n")) as server:
        web = HttpClient(server.url)
        for _ in range(2):
            web.run(web.request(READING, BearerToken(TOKEN)))
        web.close()
    first, second = (asked.headers for asked in server.asked)
    assert first == second
    assert first.keys() == {"host", "accept", "accept-encoding", "user-agent", "authorization"}
    assert first["accept-encoding"] == "identity"
    assert server.connections == 1


# --- being left alone ---


@pytest.mark.parametrize(("status", "form"), [(429, "seconds"), (503, "date")])
def test_retry_after_is_respected(status: int, form: str) -> None:
    """The client waits as long as the header Retry-After requests."""
    arrived: list[float] = []

    def answer(_: Asked) -> bytes:
        arrived.append(time.monotonic())
        if len(arrived) > 1:
            return reply(200, {})
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
        when = "1" if form == "seconds" else format_datetime(soon, usegmt=True)
        return reply(status, {}, f"Retry-After: {when}\r\n")

    with http_server(answer) as server:
        assert ask(server.url).reply is not None
    assert arrived[1] - arrived[0] >= 0.9


@pytest.mark.parametrize("when", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "86400"])
def test_retry_after_beyond_the_deadline_ends_the_call(when: str) -> None:
    """The call ends at once if Retry-After is later than the deadline of the call."""
    with http_server(lambda _: reply(503, {}, f"Retry-After: {when}\r\n")) as server:
        outcome = ask(server.url)
    assert len(server.asked) == 1
    assert isinstance(outcome.problem, NoResponse)
    assert outcome.problem.outcome_unknown
    assert "asks to be left alone" in outcome.sentence


@pytest.mark.parametrize(
    "when",
    [
        "soon", "-1", "1e9", "", "9" * 400, "0", "Sat, 99 Nov 2026 25:61:61 GMT",
        f"Thu, 01 Jan 1970 00:00:00 +{'9' * 23}",
    ],
)  # fmt: skip
def test_invalid_retry_after_is_ignored(when: str) -> None:
    with http_server(
        once(lambda _: reply(503, {}, f"Retry-After: {when}\r\n"), lambda _: reply(200, {}))
    ) as server:
        assert ask(server.url).reply is not None


# --- what is repeated ---

WRITING = Request("POST", "/v1/users", {"Idempotency-Key": "k"}, b"{}")
ONCE_ONLY = Request("POST", "/v1/users", {}, b"{}", repeatable=False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 413, 422, 423, 428, 500, 501])
def test_refusal_is_a_response_and_is_not_retried(status: int) -> None:
    with http_server(lambda _: reply(status, {"status": status})) as server:
        outcome = ask(server.url, WRITING)
    assert outcome.reply is not None
    assert outcome.reply.status == status
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "fault", ["hangs up", "resets", "half a body", "garbage", "bad gateway", "away", "request time-out"]
)
def test_request_without_a_key_is_not_repeated_after_an_unknown_outcome(fault: str) -> None:
    with http_server(REPEATED[fault][0]) as server:
        outcome = ask(server.url, ONCE_ONLY)
    assert isinstance(outcome.problem, NoResponse)
    assert outcome.problem.outcome_unknown
    assert len(server.asked) == 1


def test_request_without_a_key_is_repeated_if_it_was_surely_not_done() -> None:
    with http_server(once(REPEATED["busy"][0], lambda _: reply(200, {}))) as server:
        outcome = ask(server.url, ONCE_ONLY)
    assert outcome.reply is not None
    assert len(server.asked) == 2


@pytest.mark.parametrize("then", ["refused", "no token"])
def test_unknown_outcome_is_kept_when_the_next_token_fails(then: str) -> None:
    """The outcome stays unknown if the request for the next token fails.

    A response is lost, then the token expires, then the server is unavailable.
    """

    class Other:
        async def token(self, refused: str, deadline: float) -> str:
            if refused and then == "no token":
                raise NoResponse("Nobody gives out tokens.", outcome_unknown=False)
            return f"{refused}x"

    answers: Iterator[Any] = iter([[CUT], reply(401, {}), reply(429, {}, "Retry-After: 3600\r\n")])
    with http_server(lambda _: next(answers)) as server:
        web = HttpClient(server.url)
        with pytest.raises(NoResponse) as outcome:
            web.run(web.request(WRITING, Other()))
        web.close()
    assert outcome.value.outcome_unknown


def test_refused_connection_has_a_known_outcome() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    outcome = ask(f"http://localhost:{port}", ONCE_ONLY)
    assert isinstance(outcome.problem, NoResponse)
    assert not outcome.problem.outcome_unknown
    assert "cannot be reached: Connection refused" in outcome.sentence


def test_unknown_host_is_named() -> None:
    outcome = ask("https://nobody.invalid")
    assert "There is no server nobody.invalid" in outcome.sentence or "cannot be reached" in outcome.sentence


# --- secrets ---


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("relative", [False, True])
def test_redirect_is_named_and_not_followed(status: int, relative: bool) -> None:
    """A redirect is reported and not followed, because another host would receive the token."""
    with http_server(lambda _: reply(200, {})) as elsewhere:
        where = "/elsewhere" if relative else f"{elsewhere.url}/elsewhere"
        with http_server(
            lambda _: reply(status, b"", f"Location: {where}?token={TOKEN}\r\n", kind="text/html")
        ) as server:
            outcome = ask(server.url)
    assert elsewhere.connections == 0
    assert len(server.asked) == 1
    assert where in outcome.sentence


@pytest.mark.parametrize("where", ["http://[", "http://[::1", "", "http://a\u2100b/"])
def test_redirect_without_an_address_is_reported(where: str) -> None:
    with http_server(lambda _: reply(302, {}, f"Location: {where}\r\n")) as server:
        assert "sends us on to nowhere" in ask(server.url).sentence


def test_nothing_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client ignores variables for proxies, credentials, certificates and TLS key logs."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login eve password eve\n")
    netrc.chmod(0o600)
    keys = tmp_path / "keys"
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    with http_server(lambda _: reply(200, {})) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
        with http_server(lambda _: reply(200, {})) as server:
            outcome = ask(server.url)
            assert outcome.reply is not None
        assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        context = server_context(authority.issue_cert("localhost"))
        with http_server(lambda _: reply(200, {}), tls=context) as server:
            assert "cannot prove who it is" in ask(server.url).sentence
            assert ask(server.url, ca_file=file).reply is not None
        assert proxy.connections == 0
    assert not keys.exists()


@pytest.mark.parametrize(
    "url", ["http://portal.example.fr", "http://10.0.0.1", "http://localhost.example.fr", "ftp://localhost"]
)
def test_http_is_refused_beyond_this_machine(url: str) -> None:
    with pytest.raises(PortalError, match="would travel unprotected"):
        HttpClient(url)


def test_http_through_a_proxy_is_refused() -> None:
    with pytest.raises(PortalError, match="would travel unprotected"):
        HttpClient("http://localhost:8080", proxy="http://proxy.example.fr:3128")


def test_proxy_sees_only_the_host_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = server_context(authority.issue_cert("localhost"))
    with http_server(lambda _: reply(200, {"fine": True}), tls=context) as server, tunnel() as proxy:
        web = HttpClient(server.url, ca_file=file, proxy=f"http://127.0.0.1:{proxy.port}")
        try:
            assert web.run(web.request(READING, BearerToken(TOKEN))).json() == {"fine": True}
        finally:
            web.close()
    assert proxy.heard.startswith(b"CONNECT localhost:")
    assert not hears(bytes(proxy.heard))


def test_refusing_proxy_is_named() -> None:
    with http_server(lambda _: reply(407, {})) as proxy:
        web = HttpClient("https://portal.example.fr", proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(PortalError, match=f"The proxy http://127.0.0.1:{proxy.port} does not lead to"):
            web.run(web.request(READING, BearerToken(TOKEN)))
        web.close()
    assert not hears(bytes(proxy.clear))


def test_server_text_is_shortened_and_redacted() -> None:
    web = HttpClient("https://portal.example.fr", secrets=(SECRET, ""))
    web.redact(TOKEN)
    said = web.redacted(f"you said\n{SECRET}\tand {TOKEN} {'x' * 1000}")
    web.close()
    assert said.startswith("you said … and … xxx")
    assert len(said) <= 301


@pytest.mark.parametrize("token", ["two words", "line\r\nX-Other: header", "é", "nul\0"])
def test_invalid_token_is_not_repeated_in_the_error(token: str) -> None:
    with http_server(lambda _: reply(200, {})) as server:
        outcome = ask(server.url, token=token)
    assert "has characters that no token has" in outcome.sentence
    assert server.asked == []


def test_logs_contain_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with http_server(lambda _: [RESET]) as server:
        ask(server.url)
    assert caplog.records == []


# --- TLS ---


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


LONG_AGO, AGO = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2019, 2020))


def old_protocol(authority: trustme.CA) -> ssl.SSLContext:
    context = server_context(authority.issue_cert("localhost"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


FLAWS: dict[str, tuple[Callable[[trustme.CA], ssl.SSLContext], str]] = {
    "self-signed": (lambda _: server_context(trustme.CA().issue_cert("localhost")), "cannot prove who it is"),
    "wrong host": (
        lambda ca: server_context(ca.issue_cert("portal.example.fr")),
        "cannot prove who it is: Hostname mismatch",
    ),
    "expired": (
        lambda ca: server_context(ca.issue_cert("localhost", not_before=LONG_AGO, not_after=AGO)),
        "cannot prove who it is: certificate has expired",
    ),
    "TLS 1.0": (old_protocol, "does not speak TLS as it should"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_nothing_is_sent_to_a_server_with_an_invalid_certificate(flaw: str, tmp_path: Path) -> None:
    """Nothing is sent to a server with an invalid certificate.

    The request is not repeated, because another attempt would fail as well.
    """
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    make, sentence = FLAWS[flaw]
    with http_server(lambda _: reply(200, {}), tls=make(authority)) as server:
        outcome = ask(server.url, ca_file=file)
    assert sentence in outcome.sentence
    assert server.asked == []
    assert server.connections == 1
    assert not hears(bytes(server.clear))


def test_nothing_is_sent_to_a_plain_server_on_a_tls_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda _: reply(200, {})) as warm:
        # what is imported for a first call is not waited for in the next one
        assert ask(warm.url).reply is not None
    # connecting ends well before the whole try does, also on a busy machine
    monkeypatch.setattr(limits, "REPLY_SECONDS", 2.0)
    monkeypatch.setattr(limits, "CALL_TRIES", 1)
    with http_server(lambda _: reply(200, {})) as server:
        outcome = ask(server.url.replace("http:", "https:"))
    assert isinstance(outcome.problem, NoResponse)
    assert not outcome.problem.outcome_unknown
    assert server.asked == []
    assert not hears(bytes(server.clear))


@pytest.mark.usefixtures("impatient")
def test_plain_client_on_a_tls_port_ends_in_a_sentence(tmp_path: Path) -> None:
    """A plain HTTP request to a TLS port ends with an error sentence.

    Plain HTTP is allowed only to this machine.
    """
    context = server_context(trustme.CA().issue_cert("localhost"))
    with http_server(lambda _: reply(200, {}), tls=context) as server:
        outcome = ask(server.url.replace("https:", "http:"))
    assert isinstance(outcome.problem, NoResponse)


def test_ca_file_is_trusted(tmp_path: Path) -> None:
    """A client trusts the authority in its ``ca_file``. Other clients do not trust it."""
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = server_context(authority.issue_cert("localhost"))
    with http_server(lambda _: reply(200, {"fine": True}), tls=context) as server:
        assert ask(server.url, ca_file=file).reply is not None
        assert "cannot prove who it is" in ask(server.url).sentence
    assert len(server.asked) == 1
    assert not hears(bytes(server.clear))


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe"])
def test_ca_file_without_certificates_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PortalError, match=r"certificates in .*ca\.pem cannot be read"):
        HttpClient("https://localhost", ca_file=file)


# --- JSON ---

NOT_JSON: dict[str, bytes] = {
    "empty": reply(200, b""),
    "a page": reply(200, b"<html>log in</html>", kind="text/html"),
    "a page that says it is JSON": reply(200, b"<html>log in</html>"),
    "of no kind": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "half": reply(200, b'{"a": '),
    "two": reply(200, b"{}{}"),
    "NaN": reply(200, b'{"a": NaN}'),
    "infinity": reply(200, b"[-Infinity]"),
    "latin-1": reply(200, '{"a": "é"}'.encode("latin-1")),
    "half a pair": reply(200, b'{"a": "\\ud800"}'),
    "half a pair in a name": reply(200, b'{"\\uDC00": 1}'),
    "deep": reply(200, b"[" * 100_000 + b"]" * 100_000),
    "a number of many digits": reply(200, b"1" * 5_000),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_invalid_json_is_reported_without_its_text(case: str) -> None:
    """A response that is not valid JSON is reported. The error does not contain its text."""
    with http_server(lambda _: NOT_JSON[case]) as server:
        outcome = ask(server.url)
    assert outcome.reply is not None
    with pytest.raises(PortalError, match="gave a reply that cannot be used") as refused:
        outcome.reply.json()
    assert "html" not in str(refused.value).replace("text/html", "")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/scim+json"]
)
def test_json_is_decoded(kind: str) -> None:
    with http_server(lambda _: reply(200, '{"a": "é\\ud83d\\ude00"}'.encode(), kind=kind)) as server:
        outcome = ask(server.url)
    assert outcome.reply is not None
    assert outcome.reply.json() == {"a": "é😀"}


# --- threads, and the end ---


def test_many_threads_share_few_connections() -> None:
    found: list[int] = []
    with http_server(lambda asked: reply(200, {"path": asked.path})) as server:
        web = HttpClient(server.url, connections=3)

        def work(number: int) -> None:
            for turn in range(5):
                path = f"/{number}/{turn}"
                assert web.run(web.request(Request("GET", path))).json() == {"path": path}
                found.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        web.close()
    assert len(found) == 60
    assert server.connections <= 5


def test_gather_limited_keeps_order_and_starts_nothing_after_a_failure() -> None:
    web = HttpClient("https://portal.example.fr")
    begun: list[int] = []
    most = under_way = 0

    async def work(number: int) -> int:
        nonlocal most, under_way
        begun.append(number)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (number % 3))
        under_way -= 1
        if number == 20:
            raise PortalError("twenty")
        return number

    def works(count: int) -> list[Callable[[], object]]:
        return [lambda number=number: work(number) for number in range(count)]  # type: ignore[misc]

    assert web.run(web.gather_limited(works(20), 4)) == list(range(20))  # type: ignore[arg-type]
    assert most == 4
    assert web.run(web.gather_limited([], 4)) == []
    with pytest.raises(PortalError, match="twenty"):
        web.run(web.gather_limited(works(200), 4))  # type: ignore[arg-type]
    assert max(begun) < 30
    assert under_way == 0
    web.close()


def test_ctrl_c_ends_a_hanging_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLY_SECONDS", 60.0)
    monkeypatch.setattr(limits, "CALL_SECONDS", 60.0)

    def hang(_: Asked) -> Iterable[bytes]:
        # to the thread that waits, as a terminal does
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return [SILENCE]

    with http_server(hang) as server:
        web = HttpClient(server.url)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            web.run(web.request(READING))
        web.close()
    assert time.monotonic() - began < LONGEST
    assert len(server.asked) == 1


def test_close_cancels_running_work_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaks: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", leaks.append)
    monkeypatch.setattr(limits, "REPLY_SECONDS", 60.0)
    monkeypatch.setattr(limits, "CALL_SECONDS", 60.0)
    before = set(threading.enumerate())
    with http_server(lambda _: [SILENCE]) as server, ThreadPoolExecutor(1) as pool:
        web = HttpClient(server.url)
        waiting = pool.submit(web.run, web.request(READING))
        while not server.asked:
            time.sleep(0.001)
        web.close()
        assert waiting.exception(5) is not None
        mine = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("web ")]
        assert mine == []
        web.close()
        gc.collect()
    assert leaks == []


def hears(line: bytes) -> bool:
    """True if these bytes contain a secret in clear text or in base64."""
    for secret in (SECRET, TOKEN):
        looks = {secret.encode()}
        for lead in range(3):
            coded = base64.b64encode(b"\0" * lead + secret.encode())
            looks.add(coded[(lead * 8 + 5) // 6 : len(coded) // 4 * 4 - 4])
        if any(look in line for look in looks):
            return True
    return False


def test_relay_would_hear_a_secret_on_the_wire() -> None:
    for words in (SECRET, f"client:{SECRET}", f"some-client:{SECRET}", f"a-client:{SECRET}"):
        assert hears(base64.b64encode(words.encode()))
    with http_server(lambda _: reply(200, {})) as server:
        ask(server.url)
    assert hears(bytes(server.clear))


class Tunnel:
    """A proxy that forwards all bytes and records the bytes that the client sends."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    def __enter__(self) -> Tunnel:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _serve(self) -> None:
        try:
            near, _ = self._listener.accept()
            self._ends.append(near)
            while b"\r\n\r\n" not in self.heard:
                self.heard += near.recv(65536)
            port = int(bytes(self.heard).split()[1].rpartition(b":")[2])
            far = socket.create_connection(("127.0.0.1", port))
            self._ends.append(far)
            near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=self._carry, args=(far, near, bytearray()), daemon=True)
            self._threads.append(back)
            back.start()
            self._carry(near, far, self.heard)
        except OSError:
            return

    def _carry(self, source: socket.socket, target: socket.socket, log: bytearray) -> None:
        try:
            while data := source.recv(65536):
                log += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


def tunnel() -> Tunnel:
    return Tunnel()
