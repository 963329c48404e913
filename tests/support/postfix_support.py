"""Debian's Postfix on loopback: a separate instance with TLS, a password, and a mailbox for each user.

All its files (configuration, queue, certificates, passwords and mailboxes) are in one folder, which is
deleted at the end. The Postfix of the machine and /etc/postfix are not touched. No mail leaves the machine,
because Postfix refuses each recipient without a mailbox.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme
from needs import lack, need

USERNAME = "acces@durand-associes.fr"
PASSWORD = "mot de passe Postfix №1"
MAIL_UID = 65534
SECONDS = 30

MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
multi_instance_enable = no
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.com
mydestination =
mynetworks =
alias_maps =
default_transport = error:nothing leaves this machine
biff = no
smtputf8_enable = yes

smtpd_tls_security_level = may
smtpd_tls_chain_files = {home}/server.pem
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
  check_recipient_access texthash:{home}/access, permit_sasl_authenticated, reject
smtpd_error_sleep_time = 0
message_size_limit = {size}

virtual_mailbox_domains = static:all
virtual_mailbox_base = {home}/boxes
virtual_mailbox_maps = texthash:{home}/users
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
"""

# these processes do one thing and end, so that the next one reads the tables as they are then
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd -o max_use=1
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual -o max_use=1
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: {home}/sasldb
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running instance of Postfix."""

    home: Path
    port: int

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that signed the server's certificate for ``localhost``."""
        return self.home / "ca.pem"

    def give_mailboxes(self, users: Iterable[str]) -> None:
        """Give these users a mailbox, and remove all other mailboxes, from the next connection on."""
        _write_table(self.home / "users", {user: f"{user}/" for user in users})

    def refuse(self, answers: Mapping[str, str]) -> None:
        """Set the reply to RCPT TO for each user in ``answers``, from the next connection on."""
        _write_table(self.home / "access", answers)

    def mails(self, expected: int) -> dict[str, list[bytes]]:
        """Wait until ``expected`` mails have arrived and the queue is empty; returns the mails by mailbox."""
        end = time.monotonic() + SECONDS
        while True:
            boxes = {
                box.name: [mail.read_bytes() for mail in sorted((box / "new").iterdir())]
                for box in sorted((self.home / "boxes").iterdir())
                if (box / "new").is_dir()
            }
            if sum(map(len, boxes.values())) >= expected and not self._queued():
                return boxes
            assert time.monotonic() < end, f"{boxes.keys()} after {SECONDS} s\n{self.log()}"
            time.sleep(0.02)

    def log(self) -> str:
        """The log of this instance."""
        return (self.home / "log").read_text()

    def _queued(self) -> list[Path]:
        return [
            path
            for name in ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
            for path in (self.home / "queue" / name).rglob("*")
            if path.is_file()
        ]


@contextmanager
def running_postfix(*, size: int = 10_240_000) -> Iterator[Postfix]:
    """Run an instance of Postfix for this block. ``size`` is the maximum size of a mail in bytes."""
    need("postfix", "postconf", "saslpasswd2")
    if os.geteuid() != 0:
        lack("Postfix runs as several users, so only root can start one")
    # not below pytest's own folder, which others than root may not enter
    home = Path(tempfile.mkdtemp(prefix="provisioner-postfix-"))
    try:
        home.chmod(0o755)
        instance = Postfix(home, _free_port())
        _configure(instance, size)
        with _master(instance):
            yield instance
    finally:
        shutil.rmtree(home)


def _configure(instance: Postfix, size: int) -> None:
    home = instance.home
    values = {"home": home, "port": instance.port, "size": size, "uid": MAIL_UID}
    for folder in ("etc/sasl", "queue", "data"):
        (home / folder).mkdir(parents=True)
    shutil.chown(home / "data", "postfix")
    for path, text in (("main.cf", MAIN), ("master.cf", MASTER), ("sasl/smtpd.conf", SASL)):
        _write(home / "etc" / path, text.format(**values))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(instance.ca_file)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(home / "server.pem")
    (home / "boxes").mkdir()
    os.chown(home / "boxes", MAIL_UID, MAIL_UID)
    instance.give_mailboxes([])
    instance.refuse({})
    user, _, domain = USERNAME.partition("@")
    subprocess.run(
        ["saslpasswd2", "-p", "-c", "-f", home / "sasldb", "-u", domain, user],
        input=PASSWORD.encode(), check=True, timeout=SECONDS,
    )  # fmt: skip
    shutil.chown(home / "sasldb", "postfix")


@contextmanager
def _master(instance: Postfix) -> Iterator[None]:
    output = instance.home / "start"
    with output.open("wb") as said:
        master = subprocess.Popen(
            ["postfix", "-c", instance.home / "etc", "start-fg"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for_greeting(instance, master, output)
        yield
    finally:
        # it left our process group when it started, and takes its own with it
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((instance.home / "queue" / "pid" / "master.pid").read_text()), signal.SIGTERM)
        master.wait(SECONDS)


def _wait_for_greeting(instance: Postfix, master: subprocess.Popen[bytes], output: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", instance.port), SECONDS) as probe:
            if probe.recv(3) == b"220":
                return
        running = master.poll() is None and time.monotonic() < end
        assert running, f"Postfix did not start\n{output.read_text()}"
        time.sleep(0.02)


def _write_table(path: Path, rows: Mapping[str, str]) -> None:
    _write(path, "".join(f"{key} {value}\n" for key, value in rows.items()))


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    # Postfix waits until a file that it reads is two seconds old
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
