"""What a store keeps when an event from outside moves one saga."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import uuid4

from ...errors import ActiveSagaAlreadyExistsError, SagaNotFoundError
from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Head, Move, Written
from .samples import (
    HOUR,
    OWNER,
    Contract,
    count_in,
    differing,
    ending,
    leaves_alone,
    moves_on,
    past_of,
    poisons,
    put,
    raised_by,
    read,
    step,
    takes,
    together,
    write,
)

_MANY = 12


class AdvancingContract(Contract):
    """`advance`: the judge decides on the row as it is, and nobody comes between his decision and its write."""

    async def test_what_the_judge_says_is_written(self, store: Store) -> None:
        """The head that was judged and the move are returned, and are durable, with the history."""
        head = await put(store)

        judged, move = await store.advance(head.id, moves_on)

        assert differing(head, judged) == {}
        assert move is not None
        assert (await read(store, head.id)).revision == 1
        assert len(await past_of(store, head.id)) == 1

    async def test_a_judge_may_leave_a_saga_alone(self, store: Store) -> None:
        """Where the judge says None, nothing is written."""
        head = await put(store)

        judged, move = await store.advance(head.id, leaves_alone)

        assert (judged.id, move) == (head.id, None)
        assert differing(head, await read(store, head.id)) == {}

    async def test_a_judge_sees_the_row_as_it_is(self, store: Store) -> None:
        """A judge that comes after a write sees what was written, and the database's time."""
        head = await put(store)
        await store.write([step(head)])
        before = await store.now()
        seen: list[tuple[int, datetime]] = []

        def judge(found: Head, now: datetime) -> None:
            seen.append((count_in(found), now))

        await store.advance(head.id, judge)

        (count, now), after = seen[-1], await store.now()
        assert count == 1
        assert before <= now <= after

    async def test_an_unknown_saga_is_not_found(self, store: Store) -> None:
        """There is nothing to judge about a saga that does not exist."""
        error = await raised_by(store.advance(uuid4(), leaves_alone))

        assert isinstance(error, SagaNotFoundError)

    async def test_a_judge_that_raises_changes_nothing(self, store: Store) -> None:
        """What a judge raises comes out as it is, and the saga can be advanced afterwards."""
        head = await put(store)

        def judge(found: Head, now: datetime) -> Move:
            raise LookupError("no")

        assert isinstance(await raised_by(store.advance(head.id, judge)), LookupError)

        assert differing(head, await read(store, head.id)) == {}
        await store.advance(head.id, moves_on)
        assert (await read(store, head.id)).revision == 1

    async def test_a_move_that_cannot_be_written_changes_nothing(self, store: Store) -> None:
        """A judge's move that no store can write is raised, and neither the head nor the history has changed."""
        head = await put(store)

        error = await raised_by(store.advance(head.id, poisons))

        assert not isinstance(error, ActiveSagaAlreadyExistsError)
        assert differing(head, await read(store, head.id)) == {}
        assert await past_of(store, head.id) == []

    async def test_advances_at_once_lose_no_update(self, store: Store) -> None:
        """Many who advance one saga at once come one after the other: nobody's move is lost."""
        head = await put(store)
        stores = [store, self.beside(store)]

        await together(stores[i % 2].advance(head.id, moves_on) for i in range(_MANY))

        moved = await read(store, head.id)
        assert (moved.revision, count_in(moved)) == (_MANY, _MANY)
        assert [row.seq for row in await past_of(store, head.id)] == list(range(_MANY))

    async def test_an_advance_and_a_write_at_once_do_not_both_count(self, store: Store) -> None:
        """An owner's move that meets an operator's is either in time, or in CONFLICT; the history has no gap."""
        head = await put(store)

        def order(found: Head, now: datetime) -> Move:
            return step(found, updated_at=found.updated_at + HOUR)

        written, ordered = write(store, [step(head)]), self.beside(store).advance(head.id, order)
        (answer,), _ = await asyncio.gather(written, ordered)

        moved = await read(store, head.id)
        assert moved.revision == count_in(moved) == (2 if answer is Written.DONE else 1)
        assert len(await past_of(store, head.id)) == moved.revision

    async def test_a_saga_cannot_come_back_to_life_beside_its_successor(self, store: Store) -> None:
        """Reviving a saga whose aggregate has an active one by now is refused, and the error names that one."""
        head = await put(store, aggregation_id="order-1")
        await store.write([ending(head, head.created_at)])
        ended = await read(store, head.id)
        successor = await put(store, aggregation_id="order-1")

        error = await raised_by(store.advance(head.id, takes(OWNER)))

        assert isinstance(error, ActiveSagaAlreadyExistsError)
        assert error.saga_id == successor.id
        assert differing(ended, await read(store, head.id)) == {}

    async def test_a_saga_can_come_back_to_life_alone(self, store: Store) -> None:
        """A saga that is over can be taken up again while its aggregate has no other."""
        head = await put(store)
        await store.write([ending(head, head.created_at)])

        await store.advance(head.id, takes(OWNER))

        assert (await read(store, head.id)).status is SagaStatus.RUNNING
