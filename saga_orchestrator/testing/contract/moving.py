"""What a store keeps when sagas move: compare and swap, the fence, history together with the head."""

from __future__ import annotations

from dataclasses import replace

from ...kernel.effects import Phase, RecordStatus
from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Ownership, Write, Written
from .samples import (
    HOUR,
    OWNER,
    Contract,
    count_in,
    differing,
    ending,
    entry,
    newborn,
    over,
    past_of,
    poison,
    put,
    raised_by,
    read,
    step,
    taken,
    together,
    waiting,
    write,
)

_OWNERSHIP = ("step_execution_token", "lease_owner", "deadline_at", "awaiting", "finished_at")
_MOVED = ("revision", "state", "current_step_index")


class MovingContract(Contract):
    """Moves: written whole, once, and only by who holds the saga as it is."""

    async def test_a_move_writes_the_head_and_its_history_together(self, store: Store) -> None:
        """After a move the row says what the move said, and its history rows are there, with every column."""
        head = await put(store)
        later = head.updated_at + HOUR
        rows = (
            entry(0, later, status=RecordStatus.ERROR, attempt=2, output=None, error="no 'seat'"),
            entry(1, later, phase=Phase.ORDER, input=None, skipped=True, actor="ann", reason="?", started_at=None),
        )
        move = step(head, retry_counter=3, last_error="no seat", updated_at=later, history=rows)

        assert await store.write([move]) == [Written.DONE]

        moved = await read(store, head.id)
        assert (moved.revision, count_in(moved), moved.current_step_index) == (1, 1, 1)
        assert (moved.retry_counter, moved.last_error, moved.updated_at) == (3, "no seat", later)
        given = (head.id, later, head.step_execution_token)
        assert [_plain(row) for row in await past_of(store, head.id)] == [_plain((*given, *row)) for row in rows]

    async def test_a_move_that_keeps_the_ownership_touches_nothing_of_it(self, store: Store) -> None:
        """Token, owner, timer and what is awaited stay as they are, whatever they are."""
        head = await put(store)

        await store.write([step(head)])

        assert differing(head, await read(store, head.id), but=_MOVED) == {}

    async def test_a_move_that_keeps_the_ownership_may_change_the_status(self, store: Store) -> None:
        """A saga that turns back in its owner's hands stays his; one beside it that goes on is moved with it."""
        turned, other = await put(store), await put(store)
        turn = step(turned, status=SagaStatus.COMPENSATING)

        assert await store.write([turn, step(other)]) == [Written.DONE, Written.DONE]

        moved = await read(store, turned.id)
        assert moved.status is SagaStatus.COMPENSATING
        assert differing(turned, moved, but={*_MOVED, "status"}) == {}
        assert (await read(store, other.id)).status is SagaStatus.RUNNING

    async def test_a_move_does_not_take_back_a_renewal(self, store: Store) -> None:
        """A lease that was renewed since the move was decided stays renewed."""
        head = await put(store)
        until = head.created_at + 5 * HOUR
        await store.renew(OWNER, [head.id], until)

        assert await store.write([step(head)]) == [Written.DONE]

        assert (await read(store, head.id)).deadline_at == until

    async def test_a_move_that_changes_the_ownership_writes_all_of_it(self, store: Store) -> None:
        """A released saga has the new token, no owner, its timer, and what it awaits."""
        head = await put(store)
        ownership = waiting(head.created_at + 2 * HOUR)

        await store.write([step(head, ownership=ownership, status=SagaStatus.SUSPENDED)])

        moved = await read(store, head.id)
        assert Ownership(*(getattr(moved, name) for name in _OWNERSHIP)) == ownership
        assert moved.status is SagaStatus.SUSPENDED

    async def test_a_saga_that_is_over_is_nobodys(self, store: Store) -> None:
        """The last move takes away token, owner and timer, and says when it was."""
        head = await put(store)
        at = head.created_at + HOUR

        await store.write([ending(head, at)])

        moved = await read(store, head.id)
        assert Ownership(*(getattr(moved, name) for name in _OWNERSHIP)) == over(at)
        assert moved.status is SagaStatus.COMPLETED

    async def test_a_saga_without_a_token_can_be_moved(self, store: Store) -> None:
        """No token matches no token: a saga that is over can be taken up again by who knows its revision."""
        head = await put(store)
        await store.write([ending(head, head.created_at)])
        ended = await read(store, head.id)

        assert await store.write([step(ended, ownership=taken(head.created_at))]) == [Written.DONE]

        assert (await read(store, head.id)).lease_owner == OWNER

    async def test_a_move_written_again_is_done_again(self, store: Store) -> None:
        """A move whose answer was lost is answered DONE, and its history is there once."""
        kept, released, ended = [await put(store) for _ in range(3)]
        now = await store.now()
        moves = [step(kept), step(released, ownership=waiting(now)), ending(ended, now)]
        assert await store.write(moves) == [Written.DONE] * 3

        assert await store.write(moves) == [Written.DONE] * 3

        for head in (kept, released, ended):
            assert (await read(store, head.id)).revision == 1
            assert len(await past_of(store, head.id)) == 1

    async def test_a_move_from_an_old_revision_is_a_conflict(self, store: Store) -> None:
        """Who holds the token but decided on an old row is told so, and writes nothing, no history either."""
        head = await put(store)
        await store.write([step(head)])
        moved = await read(store, head.id)
        late = step(head, 5, status=SagaStatus.COMPENSATING)

        assert await store.write([late]) == [Written.CONFLICT]

        assert differing(moved, await read(store, head.id)) == {}
        assert [row.seq for row in await past_of(store, head.id)] == [0]

    async def test_a_move_under_an_old_token_is_fenced(self, store: Store) -> None:
        """Who has lost the saga to another owner writes nothing, whatever revision he names."""
        head = await put(store)
        await store.write([step(head, ownership=taken(head.created_at, "another"))])
        moved = await read(store, head.id)
        zombies = [step(head, 5), step(replace(head, revision=1), 5)]

        assert [await store.write([zombie]) for zombie in zombies] == [[Written.FENCED]] * 2

        assert differing(moved, await read(store, head.id)) == {}
        assert len(await past_of(store, head.id)) == 1

    async def test_a_move_of_a_saga_that_is_not_there_is_fenced(self, store: Store) -> None:
        """A saga that was deleted belongs to nobody any more."""
        assert await store.write([step(newborn(await store.now()).head)]) == [Written.FENCED]

    async def test_the_same_state_by_another_hand_is_not_ones_own_move(self, store: Store) -> None:
        """A saga taken over by another owner, in the very state that a late move says, is that owner's all the same."""
        head = await put(store)
        await store.write([step(head, ownership=taken(head.created_at, "another"))])

        handed_back = step(head, ownership=waiting(head.created_at), history=())

        assert await store.write([handed_back]) == [Written.FENCED]
        assert (await read(store, head.id)).lease_owner == "another"

    async def test_each_item_of_a_batch_is_judged_on_its_own(self, store: Store) -> None:
        """In a batch of births and moves those that fit are written, and each answer stands at its item's place."""
        now = await store.now()
        fits, old, lost = [await put(store) for _ in range(3)]
        await store.write([step(old), step(lost, ownership=taken(now, "another"))])
        born, taken_ = newborn(now), newborn(now, aggregation_id=fits.aggregation_id)
        batch: list[Write] = [step(lost, 5), born, step(old, 5), taken_, step(fits)]

        answers = await store.write(batch)

        assert [answer.value for answer in answers] == ["FENCED", "DONE", "CONFLICT", "TAKEN", "DONE"]
        assert (await read(store, fits.id)).revision == 1
        assert (await read(store, born.head.id)).revision == 0

    async def test_one_item_that_cannot_be_written_moves_nothing(self, store: Store) -> None:
        """A batch with a poisonous item raises and moves no saga; without that item it is written."""
        first, bad, last = [await put(store) for _ in range(3)]

        await raised_by(store.write([step(first), poison(bad), step(last)]))

        for head in (first, bad, last):
            assert differing(head, await read(store, head.id)) == {}
            assert await past_of(store, head.id) == []
        assert await store.write([step(first), step(last)]) == [Written.DONE] * 2

    async def test_history_is_never_written_twice(self, store: Store) -> None:
        """A move that would write a history row which is there already raises, and does not move the head."""
        head = await put(store)
        await store.write([step(head)])
        moved = await read(store, head.id)

        await raised_by(store.write([step(moved, history=(entry(0, head.created_at),))]))

        assert differing(moved, await read(store, head.id)) == {}

    async def test_of_many_moves_at_once_from_one_revision_one_is_done(self, store: Store) -> None:
        """However many write from one revision at once, exactly one is DONE, the others are in CONFLICT."""
        head = await put(store)
        moves = [step(head, 10 * i) for i in range(1, 7)]
        stores = [store, self.beside(store)]

        answers = await together(write(stores[i % 2], [move]) for i, move in enumerate(moves))

        assert sorted(answer.value for (answer,) in answers) == ["CONFLICT"] * 5 + ["DONE"]
        assert (await read(store, head.id)).revision == 1
        assert len(await past_of(store, head.id)) == 1

    async def test_batches_in_opposite_orders_do_not_block_each_other(self, store: Store) -> None:
        """Two writers that take the same sagas in opposite orders both come to an end."""
        heads = [await put(store) for _ in range(10)]
        forth, back = [step(head) for head in heads], [step(head, 5) for head in reversed(heads)]

        mine, theirs = await together([write(store, forth), write(self.beside(store), back)])

        pairs = zip(mine, reversed(theirs), strict=True)
        assert all(sorted(answer.value for answer in pair) == ["CONFLICT", "DONE"] for pair in pairs)

    async def test_a_large_batch_is_written_whole(self, store: Store) -> None:
        """Two hundred births, and then two hundred moves, are one batch each."""
        now = await store.now()
        births = [newborn(now) for _ in range(200)]
        assert await store.write(births) == [Written.DONE] * 200

        assert await store.write([step(birth.head) for birth in births]) == [Written.DONE] * 200

        past = await store.history([birth.head.id for birth in births])
        assert {len(rows) for rows in past.values()} == {1}


def _plain(row: object) -> tuple[object, ...]:
    """Return a history row with its JSON texts laid out alike."""
    return tuple(value.replace(" ", "") if isinstance(value, str) else value for value in row)  # type: ignore[attr-defined]
