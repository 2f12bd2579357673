"""The server that the other tests trust: it keeps its promises about crashes, copies and its own end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.support.postgres import PostgresServer, find_binaries

ORPHANING_PARENT = """
from tests.support.postgres import PostgresServer

server = PostgresServer().start()
print(server._server.pid, server._folder, flush=True)
input()
"""


async def rows(dsn: str, statement: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def test_a_database_made_from_a_template_holds_its_rows(postgres: PostgresServer) -> None:
    template = postgres.create_database()
    await rows(postgres.dsn(template), "CREATE TABLE t AS SELECT 7 AS n")

    copy = postgres.create_database(template)

    assert copy != template
    assert await rows(postgres.dsn(copy), "SELECT n FROM t") == [7]
    for name in (template, copy):
        postgres.drop_database(name)


async def test_what_was_committed_survives_a_crash_of_the_server() -> None:
    with PostgresServer().start(fsync=True) as server:
        before = server.dsn()
        await rows(before, "CREATE TABLE t AS SELECT 7 AS n")
        server.stop("immediate")
        with pytest.raises(OSError, match="onnect"):
            await rows(before, "SELECT 1")

        server.restart()

        assert server.dsn() == before
        assert await rows(before, "SELECT n FROM t") == [7]
        assert await rows(before, "SHOW fsync") == ["on"]
    assert not server._folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stops a child when its parent is killed")
def test_the_server_stops_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-c", ORPHANING_PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        server = os.pidfd_open(int(pid))
        parent.send_signal(signal.SIGKILL)

    try:
        ended, _, _ = select.select([server], [], [], 60)
        assert ended
    finally:
        os.close(server)
        subprocess.run(["rm", "-rf", folder], check=True)


def test_a_wrong_folder_of_binaries_is_named_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAGA_PG_BIN", str(tmp_path))

    with pytest.raises(RuntimeError, match=f"SAGA_PG_BIN={tmp_path}"):
        find_binaries()
