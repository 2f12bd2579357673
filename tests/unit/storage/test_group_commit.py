"""Group commit on its own: batches, splitting, patience, and who is answered what. The write is the test's own."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from saga_orchestrator.storage.dialect import is_passing
from saga_orchestrator.storage.group_commit import GroupCommit
from saga_orchestrator.storage.rows import Birth, Move, Write, Written
from saga_orchestrator.testing.contract.samples import newborn, step
from tests.support.sagas import Gate, soon

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class PoisonError(Exception):
    """What a database says to an item that it cannot take, however often."""


def born() -> Birth:
    return newborn(NOW)


def moved() -> Move:
    return step(newborn(NOW).head)


def coded(state: str) -> DBAPIError:
    """An error of a driver's, as SQLAlchemy hands it on, with this SQLSTATE."""
    cause = Exception("said the database")
    cause.sqlstate = state  # type: ignore[attr-defined]
    return DBAPIError("UPDATE …", {}, cause)


class Database:
    """Writes batches as it is told: `plan` says how the next writes go, `poison` which items it never takes.

    `busy` and `blocked` say how often an item's row is held by others, and how often it makes its batch wait too long.
    """

    def __init__(self) -> None:
        self.batches: list[list[Write]] = []
        self.written: list[Write] = []
        self.plan: list[BaseException | Callable[[], Awaitable[Any]]] = []
        self.poison: set[int] = set()
        self.busy: dict[int, int] = {}
        self.blocked: dict[int, int] = {}
        self.unknown: dict[int, int] = {}

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        self.batches.append(list(batch))
        act = self.plan.pop(0) if self.plan else None
        if isinstance(act, BaseException):
            raise act
        if act is not None:
            await act()
        if any(id(item) in self.poison for item in batch):
            raise PoisonError
        if [item for item in batch if self._counts_down(self.blocked, item)]:
            raise coded("55P03")
        if [item for item in batch if self._counts_down(self.unknown, item)]:
            raise coded("P0001")
        return [self._answer(item) for item in batch]

    def _answer(self, item: Write) -> Written:
        if self._counts_down(self.busy, item):
            return Written.BUSY
        self.written.append(item)
        return Written.DONE if isinstance(item, Birth) else Written.CONFLICT

    def _counts_down(self, times: dict[int, int], item: Write) -> bool:
        times[id(item)] = times.get(id(item), 0) - 1
        return times[id(item)] >= 0


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def commits(database: Database) -> GroupCommit:
    return GroupCommit(database.write)


async def test_what_arrives_during_a_write_is_the_next_batch(database: Database, commits: GroupCommit) -> None:
    """While one batch is being written the next one fills, and is written as soon as the first is done."""
    gate = Gate()
    database.plan.append(gate)
    first = commits.submit(born())
    await gate.wait_reached()
    others = [commits.submit(born()) for _ in range(3)]
    gate.open()

    await soon(asyncio.gather(first, *others))

    assert [len(batch) for batch in database.batches] == [1, 3]


async def test_nobody_is_answered_before_his_batch_is_written(database: Database, commits: GroupCommit) -> None:
    """An answer means durable: while the write is under way there is none."""
    gate = Gate()
    database.plan.append(gate)
    answer = commits.submit(born())
    await gate.wait_reached()

    assert not answer.done()

    gate.open()
    assert await soon(answer) is Written.DONE


async def test_everybody_gets_the_answer_to_his_own_item(commits: GroupCommit) -> None:
    """In a batch of births and moves each waiter is told about his own."""
    answers = [commits.submit(item) for item in (born(), moved(), moved(), born())]

    told = await soon(asyncio.gather(*answers))

    assert told == [Written.DONE, Written.CONFLICT, Written.CONFLICT, Written.DONE]


async def test_a_batch_is_no_larger_than_it_may_be(database: Database) -> None:
    """What exceeds the largest batch goes into the next, in the order of coming."""
    commits = GroupCommit(database.write, max_batch=2)
    items = [born() for _ in range(5)]

    await soon(asyncio.gather(*(commits.submit(item) for item in items)))

    assert [len(batch) for batch in database.batches] == [2, 2, 1]
    assert database.written == items


async def test_two_writes_of_one_saga_never_share_a_batch(database: Database, commits: GroupCommit) -> None:
    """The second is compared with what the first has made of the row; others are not held up by it."""
    saga = newborn(NOW)
    first, second, third, other = saga, step(saga.head), step(saga.head, 5), born()

    await soon(asyncio.gather(*(commits.submit(item) for item in (first, second, third, other))))

    assert database.batches == [[first, other], [second], [third]]


async def test_one_poisonous_item_fails_alone(database: Database, commits: GroupCommit) -> None:
    """A batch that cannot be written is split until the culprit is alone; everybody else is written."""
    items = [born() for _ in range(7)]
    database.poison = {id(items[4])}

    told = await soon(asyncio.gather(*(commits.submit(item) for item in items), return_exceptions=True))

    assert [isinstance(answer, PoisonError) for answer in told] == [item is items[4] for item in items]
    assert sorted(map(id, database.written)) == sorted(id(item) for item in items if item is not items[4])


async def test_when_all_are_poisonous_each_gets_an_error(database: Database, commits: GroupCommit) -> None:
    """Nobody is left waiting, and the next write is not affected."""
    items = [born() for _ in range(3)]
    database.poison = {id(item) for item in items}

    told = await soon(asyncio.gather(*(commits.submit(item) for item in items), return_exceptions=True))

    assert [type(answer) for answer in told] == [PoisonError] * 3
    assert await soon(commits.submit(born())) is Written.DONE


PASSING = [
    coded("40001"),
    coded("40P01"),
    coded("57P01"),
    coded("08006"),
    coded("53300"),
    ConnectionRefusedError("connect call failed"),
    ConnectionResetError(),
    TimeoutError(),
    PoolTimeoutError(),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked")),
    asyncpg.exceptions.CannotConnectNowError("the database system is starting up"),
    asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.exceptions.InterfaceError("connection is closed"),
    asyncpg.exceptions.SerializationError(),
    asyncpg.exceptions.DeadlockDetectedError(),
]
LASTING = [
    coded("23505"),
    coded("22021"),
    IntegrityError("INSERT …", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
    asyncpg.exceptions.CheckViolationError("never_stranded"),
    ValueError("no"),
    FileNotFoundError("no such file"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
async def test_an_error_that_passes_is_tried_again(
    error: BaseException, database: Database, commits: GroupCommit
) -> None:
    """A serialization failure, a deadlock, a lost connection: the same batch is written again, and nobody notices."""
    database.plan += [error, error]
    items = [born(), born()]

    told = await soon(asyncio.gather(*(commits.submit(item) for item in items)))

    assert told == [Written.DONE] * 2
    assert database.batches == [items] * 3


@pytest.mark.parametrize("error", LASTING, ids=repr)
async def test_an_error_that_lasts_is_not_tried_again(
    error: BaseException, database: Database, commits: GroupCommit
) -> None:
    """What a second try cannot cure is told at once."""
    database.plan.append(error)

    with pytest.raises(type(error)):
        await soon(commits.submit(born()))

    assert len(database.batches) == 1
    assert not is_passing(error)


@pytest.mark.parametrize(
    "error",
    [coded("42P01"), coded("42501"), OperationalError("…", {}, sqlite3.OperationalError("no such table: trip_saga"))],
    ids=repr,
)
async def test_missing_tables_are_told_to_a_start_and_waited_for_by_a_step(
    error: Exception, database: Database, commits: GroupCommit
) -> None:
    """A start fails at once, and its caller learns of it; what a step has done is written when a person has helped."""
    database.plan += [error, error]
    starting, moving = commits.submit(born()), commits.submit(moved())

    with pytest.raises(type(error)):
        await soon(starting)

    assert await soon(moving) is Written.CONFLICT


async def test_an_error_of_an_unknown_kind_keeps_only_its_own_item_waiting(
    database: Database, commits: GroupCommit
) -> None:
    """It may be the database's or the row's: the others are written at once, and it alone is tried again."""
    items = [born() for _ in range(4)]
    database.unknown = {id(items[2]): 4}

    told = await soon(asyncio.gather(*(commits.submit(item) for item in items)))

    assert told == [Written.DONE] * 4
    assert database.written[-1] is items[2]


async def test_patience_ends(database: Database) -> None:
    """A database that stays away is given up, for everybody in the batch, and is not asked item by item."""
    commits = GroupCommit(database.write, patience=timedelta(0))
    database.plan += [ConnectionError("away")] * 2

    told = await soon(asyncio.gather(*(commits.submit(born()) for _ in range(8)), return_exceptions=True))

    assert [type(answer) for answer in told] == [ConnectionError] * 8
    assert {len(batch) for batch in database.batches} == {8}


async def test_a_poisonous_item_and_a_passing_error_together(database: Database, commits: GroupCommit) -> None:
    """A deadlock while a batch is being split is tried again like any other; still only the culprit fails."""
    items = [born() for _ in range(4)]
    database.poison = {id(items[0])}
    database.plan += [PoisonError(), coded("40P01")]

    told = await soon(asyncio.gather(*(commits.submit(item) for item in items), return_exceptions=True))

    assert [isinstance(answer, PoisonError) for answer in told] == [True, False, False, False]


async def test_a_write_that_somebody_holds_up_keeps_nobody_else_waiting(
    database: Database, commits: GroupCommit
) -> None:
    """Its batch is answered without it; it comes back until the row is free, and is answered then."""
    items = [born(), moved(), born()]
    database.busy = {id(items[1]): 2}
    first, held, last = (commits.submit(item) for item in items)

    await soon(asyncio.gather(first, last))
    assert not held.done()

    assert await soon(held) is Written.CONFLICT
    assert [len(batch) for batch in database.batches] == [3, 1, 1]


async def test_a_blocked_birth_is_found_out_and_goes_alone(database: Database, commits: GroupCommit) -> None:
    """A birth that makes its batch wait is split off; from then on it makes nobody wait with it."""
    items = [born() for _ in range(4)]
    database.blocked = {id(items[2]): 4}
    answers = [commits.submit(item) for item in items]

    await soon(asyncio.gather(*(answers[place] for place in (0, 1, 3))))
    assert not answers[2].done()
    batches = len(database.batches)
    later = [commits.submit(born()) for _ in range(2)]

    assert await soon(answers[2]) is Written.DONE
    await soon(asyncio.gather(*later))
    alone = [batch for batch in database.batches[batches:] if items[2] in batch]
    assert {len(batch) for batch in alone} == {1}


@pytest.mark.parametrize("kind", ["busy", "blocked"])
async def test_patience_with_somebody_elses_transaction_ends(kind: str, database: Database) -> None:
    """A row that is held for ever is given up, with an error that says why."""
    commits = GroupCommit(database.write, patience=timedelta(0))
    item = born()
    setattr(database, kind, {id(item): 1_000})

    with pytest.raises(TimeoutError if kind == "busy" else DBAPIError):
        await soon(commits.submit(item))

    assert await soon(commits.submit(born())) is Written.DONE


async def test_closing_waits_for_what_is_held_up(database: Database, commits: GroupCommit) -> None:
    """A write that has left its batch is not forgotten by `aclose`."""
    item = born()
    database.busy = {id(item): 2}
    answer = commits.submit(item)

    await soon(commits.aclose())

    assert answer.result() is Written.DONE


async def test_a_waiter_that_gives_up_takes_nobody_with_him(database: Database, commits: GroupCommit) -> None:
    """His item is written all the same, and the others of his batch are answered."""
    gate = Gate()
    database.plan.append(gate)
    items = [born(), born()]
    impatient, patient = (commits.submit(item) for item in items)
    await gate.wait_reached()

    impatient.cancel()
    gate.open()

    assert await soon(patient) is Written.DONE
    assert database.written == items


async def test_closing_waits_until_everybody_is_answered(database: Database, commits: GroupCommit) -> None:
    """When it has returned, nothing is under way: what had queued is written."""
    gate = Gate()
    database.plan.append(gate)
    answers = [commits.submit(born())]
    await gate.wait_reached()
    answers.append(commits.submit(born()))
    closing = asyncio.ensure_future(commits.aclose())
    gate.open()

    await soon(closing)

    assert [answer.result() for answer in answers] == [Written.DONE] * 2


async def test_closing_an_idle_one_is_immediate(commits: GroupCommit) -> None:
    """There is nothing to wait for, once and again."""
    await commits.aclose()
    await commits.aclose()


async def test_blocked_births_take_turns_with_everybody_else(database: Database, commits: GroupCommit) -> None:
    """However many births somebody's transaction holds up, the others' writes wait for one of them at a time."""
    blocked = [born() for _ in range(5)]
    database.blocked = {id(item): 50 for item in blocked}
    held = [commits.submit(item) for item in blocked]
    while len(commits._busy) < len(blocked):
        await soon(commits.submit(born()))

    first = len(database.batches)
    for _ in range(5):
        await soon(commits.submit(moved()))

    between = [batch for batch in database.batches[first:] if batch[0] in blocked]
    assert len(between) <= 6
    for answer in held:
        answer.cancel()


async def test_a_leader_that_is_cut_off_leaves_nobody_to_wait_for(database: Database, commits: GroupCommit) -> None:
    """When the event loop's end cancels the leader, closing does not wait for a write that it had held back."""
    item = moved()
    database.busy = {id(item): 1}
    answer = commits.submit(item)
    await soon(commits.submit(born()))
    assert commits._busy
    gate = Gate()
    database.plan.append(gate)
    commits._enqueue((item, answer))
    await soon(gate.wait_reached())
    assert commits._leader is not None
    commits._leader.cancel()

    await soon(commits.aclose())

    assert answer.cancelled()
