"""A real PgBouncer in transaction mode, in front of a PostgreSQL of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.support.postgres import NOBODY, PostgresServer, _free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
"""Where it is; None if the machine has none."""
CACHES_OFF: dict[str, Any] = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
"""The connect_args that a pooler in transaction mode needs."""

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
logfile = {folder}/log
ignore_startup_parameters = extra_float_digits, jit
"""


class PgBouncer:
    """A pooler that `with` starts and stops.

    Args:
        size: How many server connections its clients share.
    """

    def __init__(self, server: PostgresServer, size: int = 3) -> None:
        self._server = server
        self._size = size

    def __enter__(self) -> Self:
        assert PROGRAM
        self._folder = Path(tempfile.mkdtemp(prefix="saga-pgbouncer-", dir="/tmp"))
        self._port = _free_port()
        server = self._server.dsn().rpartition(":")[2].partition("/")[0]
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(server=server, port=self._port, size=self._size, folder=self._folder)
        )
        self._folder.chmod(0o777)
        account: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self._process = subprocess.Popen([PROGRAM, "-q", configuration], stderr=subprocess.DEVNULL, **account)
        while not self._listens():
            if self._process.poll() is not None:
                raise RuntimeError(f"PgBouncer did not start:\n{(self._folder / 'log').read_text()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Return the address as SQLAlchemy takes it."""
        return f"postgresql+asyncpg://postgres:any@127.0.0.1:{self._port}/{database}"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.05)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
