"""The floor on SQLite: batched commits through the `sqlite3` module in a thread, durable (WAL, synchronous=FULL)."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from .contender import main
from .floor_saga import FloorSaga
from .floor_schema import FINGERPRINT, sqlite

Row = tuple[Any, ...]

BIRTH = f"""
INSERT INTO floor_saga (id, aggregation_id, trace_id, state, context, step_execution_token, deadline_at, created_at,
                        updated_at, saga_name, fingerprint, status, lease_owner)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'trivial', '{FINGERPRINT}', 'RUNNING', 'floor')"""
MOVE = """
UPDATE floor_saga SET revision = revision + 1, state = ?, current_step_index = ?, updated_at = ?
WHERE id = ? AND revision = ? AND step_execution_token = ?"""
END = """
UPDATE floor_saga SET finished_at = ?, revision = revision + 1, state = ?, current_step_index = ?, updated_at = ?,
    status = 'COMPLETED', step_execution_token = NULL, lease_owner = NULL, deadline_at = NULL
WHERE id = ? AND revision = ? AND step_execution_token = ?"""
PAST = """
INSERT INTO floor_saga_history (saga_id, seq, timestamp, phase, status, step_id, step_name, attempt, token, input,
                                output, skipped, started_at)
VALUES (?, ?, ?, 'EXECUTE', 'SUCCESS', ?, 'Trivial', 1, ?, ?, ?, 0, ?)"""


class SqliteBatches:
    """One connection in one thread; a leader hands it everything that has queued, as one transaction."""

    async def open(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._queue: list[tuple[bool, Row, asyncio.Future[None]]] = []
        self._leader: asyncio.Task[None] | None = None
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connect, url)

    async def saga(self, number: int, steps: int) -> None:
        saga = FloorSaga(number, steps)
        await self._write(True, saga.birth())
        for _ in range(steps):
            await self._write(False, saga.step())

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    def _connect(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        for statement in sqlite():
            self._connection.execute(statement)

    def _write(self, birth: bool, row: Row) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._queue.append((birth, row, written))
        if self._leader is None:
            self._leader = loop.create_task(self._lead())
        return written

    async def _lead(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch, self._queue = self._queue, []
            births = [row for birth, row, _ in batch if birth]
            steps = [row for birth, row, _ in batch if not birth]
            await loop.run_in_executor(self._thread, self._commit, births, steps)
            for _, _, written in batch:
                written.set_result(None)
        self._leader = None

    def _commit(self, births: list[Row], steps: list[Row]) -> None:
        born = [_born(*row) for row in births]
        moves = [_moved(*row) for row in steps if not row[6]]
        ends = [(_text(row[5]), *_moved(*row)) for row in steps if row[6]]
        history = [_past(*row) for row in steps]
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(BIRTH, born)
        moved = connection.executemany(MOVE, moves).rowcount if moves else 0
        moved += connection.executemany(END, ends).rowcount if ends else 0
        if moved != len(steps):
            raise RuntimeError("a row was not the one that was expected")
        connection.executemany(PAST, history)
        connection.execute("COMMIT")


def _born(saga_id, aggregation_id, trace_id, state, context, token, deadline_at, now) -> Row:
    at = _text(now)
    return saga_id.hex, aggregation_id, trace_id, state, context, token.hex, _text(deadline_at), at, at


def _moved(saga_id, revision, token, state, current, now, *_) -> Row:
    return state, current, _text(now), saga_id.hex, revision, token.hex


def _past(saga_id, revision, token, state, current, now, ends, step_id, given, answer, started_at) -> Row:
    return saga_id.hex, current, _text(now), step_id, token.hex, given, answer, _text(started_at)


def _text(moment: datetime) -> str:
    return moment.isoformat(" ", "microseconds")[:26]


if __name__ == "__main__":
    main(SqliteBatches, postgresql=False)
