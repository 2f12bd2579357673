"""Sagas to write to a store that is under test. What their states say is of no account to a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from json import loads
from typing import Any, TypeVar
from uuid import UUID, uuid4

from ...kernel.effects import Phase, Record, RecordStatus
from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Birth, Claimable, Head, HistoryRow, Judge, Move, Ownership, Write, Written

T = TypeVar("T")

NAME = "trip"
OWNER = "host:1:owner"
HOUR = timedelta(hours=1)
EXACT = '{"to": "z", "at":"ö",  "list":[1, 2.0,1e22,-0.0,12345678901234567890], "at2":null}'
"""A payload of which a database that reads what it is given keeps the meaning, and not the bytes."""
KNOWN = Claimable({NAME: frozenset({1})})


class Contract:
    """What the parts of the contract share."""

    def beside(self, store: Store) -> Store:
        """Return another handle to the same sagas, as another process would have it; the same one by default."""
        return store


def state(count: int) -> str:
    """Return a state document; one with another count is another state."""
    return f'{{"v":1,"c":"F","n":{count},"s":{{}}}}'


def count_in(head: Head) -> int:
    """Return the count in a row's state document, however the database has laid it out."""
    count: int = loads(head.state)["n"]
    return count


def newborn(now: datetime, **facts: Any) -> Birth:
    """Return a saga that is `OWNER`'s for an hour; `facts` are columns that are otherwise."""
    head = Head(
        id=uuid4(),
        saga_name=NAME,
        definition_version=1,
        fingerprint="f" * 32,
        aggregation_id=str(uuid4()),
        trace_id="trace",
        status=SagaStatus.RUNNING,
        state=state(0),
        context='{"initial_data":{"name":"Zoë"}}',
        step_execution_token=uuid4(),
        lease_owner=OWNER,
        deadline_at=now + HOUR,
        created_at=now,
        updated_at=now,
    )
    return Birth(replace(head, **facts))


async def put(store: Store, **facts: Any) -> Head:
    """Write a newborn saga and return its row."""
    birth = newborn(await store.now(), **facts)
    await store.write([birth])
    return birth.head


async def put_due(store: Store, hours: float = 1, **facts: Any) -> Head:
    """Write a saga that nobody owns and that has been due for some hours."""
    due = await store.now() - hours * HOUR
    return await put(store, **{"lease_owner": None, "deadline_at": due, **facts})


async def read(store: Store, saga_id: UUID) -> Head:
    """Return the row of a saga that is there."""
    head = await store.head(saga_id)
    assert head is not None
    return head


async def past_of(store: Store, saga_id: UUID) -> list[HistoryRow]:
    return (await store.history([saga_id]))[saga_id]


def entry(seq: int, at: datetime, **facts: Any) -> Record:
    """Return what a step that has succeeded leaves; `facts` are columns that are otherwise."""
    row = Record(
        seq=seq,
        phase=Phase.EXECUTE,
        status=RecordStatus.SUCCESS,
        step_id="flight",
        step_name="Flight",
        attempt=1,
        input='{"seat":"1A"}',
        output='{"ref":"é"}',
        error=None,
        skipped=False,
        actor=None,
        reason=None,
        started_at=at,
    )
    return row._replace(**facts)


def step(head: Head, count: int | None = None, *, ownership: Ownership | None = None, **facts: Any) -> Move:
    """Return the move by which a saga comes from the state `count` to the next, with one history row."""
    before = count_in(head) if count is None else count
    at = head.updated_at
    move = Move(
        saga_id=head.id,
        revision=head.revision,
        token=head.step_execution_token,
        status=SagaStatus.RUNNING,
        state=state(before + 1),
        current_step_index=before + 1,
        retry_counter=0,
        last_error=None,
        updated_at=at,
        ownership=ownership,
        history=(entry(before, at),),
    )
    return move._replace(**facts)


def taken(now: datetime, owner: str = OWNER) -> Ownership:
    """Return the ownership of a new owner, for an hour."""
    return Ownership(uuid4(), owner, now + HOUR, None, None)


def waiting(until: datetime) -> Ownership:
    """Return the ownership of a saga that waits for its next attempt."""
    return Ownership(uuid4(), None, until, "retry", None)


def aside() -> Ownership:
    """Return the ownership of a saga that waits for a person."""
    return Ownership(uuid4(), None, None, "operator", None)


def over(at: datetime) -> Ownership:
    """Return the ownership of a saga that has ended."""
    return Ownership(None, None, None, None, at)


def ending(head: Head, at: datetime) -> Move:
    """Return the move that ends a saga."""
    return step(head, ownership=over(at), status=SagaStatus.COMPLETED)


def poison(head: Head) -> Move:
    """Return a move that no store can write: it would leave an active saga neither due nor awaiting anything."""
    return step(head, ownership=Ownership(uuid4(), None, None, None, None))


def takes(owner: str) -> Judge:
    """Return a judge that takes every saga for this owner."""

    def judge(head: Head, now: datetime) -> Move:
        return step(head, ownership=taken(now, owner))

    return judge


def moves_on(head: Head, now: datetime) -> Move:
    """Move the saga by one step, and leave it to whoever has it."""
    return step(head)


def leaves_alone(head: Head, now: datetime) -> None:
    """Say that there is nothing to write."""


def poisons(head: Head, now: datetime) -> Move:
    """Ask for what no store can write."""
    return poison(head)


def ids(heads: Iterable[Head]) -> list[UUID]:
    return [head.id for head in heads]


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Make all the calls at once."""
    return list(await asyncio.gather(*calls))


async def write(store: Store, batch: Sequence[Write]) -> list[Written]:
    """Write a batch, and again whatever somebody else's transaction held meanwhile."""
    answers = await store.write(batch)
    while busy := [place for place, answer in enumerate(answers) if answer is Written.BUSY]:
        for place, answer in zip(busy, await store.write([batch[place] for place in busy]), strict=True):
            answers[place] = answer
    return answers


async def raised_by(call: Awaitable[Any]) -> BaseException:
    """Return what a call raises.

    Raises:
        AssertionError: It raised nothing.
    """
    try:
        answer = await call
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError(f"nothing was raised; the answer was {answer!r}")


def differing(before: Head, after: Head, but: Iterable[str] = ()) -> Mapping[str, tuple[Any, Any]]:
    """Return the columns in which two rows differ, save those named. JSON texts are compared by what they say."""
    found = {}
    for name in before.__dataclass_fields__.keys() - set(but):
        old, new = getattr(before, name), getattr(after, name)
        same = loads(old) == loads(new) if name in {"state", "context"} else old == new
        if not same:
            found[name] = old, new
    return found
