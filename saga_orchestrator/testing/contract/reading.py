"""What a store keeps when sagas are looked at."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Claimable, Head, SagaFilter
from .samples import EXACT, HOUR, KNOWN, Contract, aside, ending, entry, ids, newborn, past_of, put, put_due, read, step


class ReadingContract(Contract):
    """`head`, `heads`, `history`, `rival`, `started`, `next_due`, `now`: they read, and change nothing."""

    async def test_a_saga_that_is_not_there_is_none(self, store: Store) -> None:
        """No row, no head, and an empty history."""
        nobody = uuid4()

        assert await store.head(nobody) is None
        assert await store.history([nobody]) == {nobody: []}
        assert await store.history([]) == {}

    async def test_history_is_read_oldest_first_and_each_sagas_own(self, store: Store) -> None:
        """The rows of each saga come in the order of their numbers, and to nobody else."""
        first, second = await put(store), await put(store)
        at = first.created_at
        rows = tuple(entry(seq, at) for seq in (2, 0, 1))
        await store.write([step(first, history=rows), step(second)])

        past = await store.history([second.id, first.id])

        assert [row.seq for row in past[first.id]] == [0, 1, 2]
        assert [row.saga_id for row in past[second.id]] == [second.id]

    async def test_a_number_is_read_as_it_was_written(self, store: Store) -> None:
        """A payload that is nothing but a number comes back to the last digit: it may be money."""
        head = await put(store)
        numbers = ("0.30000000000000004", "12345678901234567890", "12345678901234567.25", "-7", "true")
        rows = tuple(entry(seq, head.created_at, output=number) for seq, number in enumerate(numbers))
        await store.write([step(head, history=rows)])

        assert tuple(row.output for row in await past_of(store, head.id)) == numbers

    async def test_a_payload_is_read_byte_for_byte(self, store: Store) -> None:
        """The order of its keys, its spaces and the form of its numbers are those that were written."""
        heads = [await put(store, context=f'{{"initial_data":{EXACT}}}') for _ in range(3)]
        births = [newborn(await store.now(), context=EXACT) for _ in range(2)]
        await store.write(births)
        heads += [birth.head for birth in births]
        at = heads[0].created_at
        rows = tuple(entry(seq, at, input=EXACT, output=f"[{EXACT}]") for seq in range(2))
        await store.write([step(heads[0], history=rows)])
        await store.write([step(head, history=rows[:1]) for head in heads[1:]])

        for head in heads:
            assert (await read(store, head.id)).context == head.context
            for row in await past_of(store, head.id):
                assert (row.input, row.output) == (EXACT, f"[{EXACT}]")

    async def test_sagas_are_listed_newest_first_and_page_by_page(self, store: Store) -> None:
        """The greatest id comes first; a page begins where the one before ended."""
        heads = await _numbered(store, 5)

        first = await store.heads(SagaFilter(), 2, None)
        second = await store.heads(SagaFilter(), 10, first[-1].id)

        assert ids(first) == [heads[4].id, heads[3].id]
        assert ids(second) == [heads[2].id, heads[1].id, heads[0].id]

    async def test_sagas_are_listed_by_what_they_are(self, store: Store) -> None:
        """Every filter narrows the list, and all of them together."""
        now = await store.now()
        old, wanted, ended, parked = await _numbered(store, 4, created_at=now - 3 * HOUR)
        await put(store, saga_name="other", trace_id="t-2", aggregation_id="order-9", created_at=now)
        await store.write([ending(ended, now), step(parked, status=SagaStatus.STUCK, ownership=aside())])

        async def listed(**filters: Any) -> list[UUID]:
            return ids(await store.heads(SagaFilter(**filters), 10, None))

        completed, stuck = SagaStatus.COMPLETED, SagaStatus.STUCK
        assert await listed(status=frozenset({completed, stuck})) == [parked.id, ended.id]
        assert await listed(awaiting="operator") == [parked.id]
        assert await listed(aggregation_id=wanted.aggregation_id) == [wanted.id]
        assert len(await listed(saga_name="other", trace_id="t-2", aggregation_id="order-9")) == 1
        assert await listed(saga_name="other", trace_id="trace") == []
        assert len(await listed(created_after=now - HOUR)) == 1
        assert old.id in await listed(created_before=now - HOUR)
        assert await listed(status=frozenset()) == []

    async def test_a_rival_by_key_comes_before_one_by_aggregate(self, store: Store) -> None:
        """Who holds the key is the answer, even where an older saga, with a key of its own, holds the aggregate."""
        holder = await put(store, aggregation_id="order-1", idempotency_key="k-1", id=UUID(int=1))
        namesake = await put(store, aggregation_id="order-2", idempotency_key="k-2", id=UUID(int=2))
        now = await store.now()

        async def rival(**facts: Any) -> Head | None:
            return await store.rival(newborn(now, **facts))

        assert await _id(rival(aggregation_id="order-1", idempotency_key="k-2")) == namesake.id
        assert await _id(rival(aggregation_id="order-1", idempotency_key="k-9")) == holder.id
        assert await _id(rival(aggregation_id="order-1")) == holder.id
        assert await rival(aggregation_id="order-9") is None

    async def test_a_saga_is_found_by_the_key_that_it_was_started_under(self, store: Store) -> None:
        """Whether it is over or not; a key is of one name."""
        head = await put(store, idempotency_key="k-1")
        await put(store, idempotency_key="k-2")
        assert await _id(store.started(head.saga_name, "k-1")) == head.id

        await store.write([ending(head, head.updated_at)])

        assert await _id(store.started(head.saga_name, "k-1")) == head.id
        assert await store.started(head.saga_name, "k-3") is None
        assert await store.started("other", "k-1") is None

    async def test_a_rival_by_aggregate_is_active_and_one_by_key_need_not_be(self, store: Store) -> None:
        """A saga that is over stands in nobody's way, save of its own key; a key counts for its saga name only."""
        ended = await put(store, aggregation_id="order-1", idempotency_key="k-1")
        now = await store.now()
        await store.write([ending(ended, now)])

        assert await store.rival(newborn(now, aggregation_id="order-1")) is None
        assert await _id(store.rival(newborn(now, idempotency_key="k-1"))) == ended.id
        assert await store.rival(newborn(now, idempotency_key="k-1", saga_name="other")) is None

    async def test_the_next_saga_that_is_due(self, store: Store) -> None:
        """It is the first of those that the asker can run; others, and those without a timer, do not count."""
        assert await store.next_due(KNOWN) is None
        await put_due(store, 5, saga_name="other")
        await put_due(store, 4, definition_version=2)
        ended = await put_due(store, 3)
        await store.write([ending(ended, ended.created_at)])
        assert await store.next_due(KNOWN) is None

        later, sooner = await put(store), await put_due(store, 2)

        assert await store.next_due(KNOWN) == sooner.deadline_at
        assert sooner.deadline_at != later.deadline_at
        assert await store.next_due(Claimable({})) is None

    async def test_time_is_an_instant_and_does_not_run_backwards(self, store: Store) -> None:
        """The database's time is aware, in UTC, and what comes later is not earlier."""
        first = await store.now()
        second = await store.now()

        assert first.utcoffset() == timedelta(0)
        assert first <= second

    async def test_reading_changes_nothing(self, store: Store) -> None:
        """Whoever only looks leaves no trace."""
        head = await put(store)

        await store.heads(SagaFilter(), 10, None)
        await past_of(store, head.id)

        assert (await read(store, head.id)).revision == 0


async def _numbered(store: Store, count: int, **facts: Any) -> list[Head]:
    """Write sagas whose ids are in the order of their writing."""
    start = uuid4().int >> 64 << 64
    return [await put(store, id=UUID(int=start + number), **facts) for number in range(count)]


async def _id(found: Awaitable[Head | None]) -> UUID | None:
    head = await found
    return None if head is None else head.id
