"""What a store keeps when sagas are born."""

from __future__ import annotations

from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Written
from .samples import (
    OWNER,
    Contract,
    aside,
    differing,
    ending,
    newborn,
    past_of,
    put,
    raised_by,
    read,
    step,
    together,
)


class BirthContract(Contract):
    """Births: durable, once, and one active saga for an aggregate."""

    async def test_a_newborn_is_read_as_it_was_written(self, store: Store) -> None:
        """Every column of a birth is in the row, and its history is empty."""
        birth = newborn(await store.now(), idempotency_key="key", priority=7, current_step_index=0)

        assert await store.write([birth]) == [Written.DONE]

        assert differing(birth.head, await read(store, birth.head.id)) == {}
        assert await past_of(store, birth.head.id) == []

    async def test_an_empty_batch_is_no_batch(self, store: Store) -> None:
        """Writing nothing is answered with nothing."""
        assert await store.write([]) == []

    async def test_a_birth_written_again_is_done_again(self, store: Store) -> None:
        """A birth whose answer was lost is answered DONE, also when the saga has moved on, and changes nothing."""
        birth = newborn(await store.now(), idempotency_key="key")
        await store.write([birth])
        await store.write([step(birth.head)])
        moved = await read(store, birth.head.id)

        assert await store.write([birth]) == [Written.DONE]

        assert differing(moved, await read(store, birth.head.id)) == {}

    async def test_an_aggregate_has_one_active_saga(self, store: Store) -> None:
        """A second saga for an aggregate is TAKEN while the first is active, under another name too."""
        first = await put(store, aggregation_id="order-1")
        second = newborn(await store.now(), aggregation_id="order-1", saga_name="other")

        assert await store.write([second]) == [Written.TAKEN]

        assert await store.head(second.head.id) is None
        assert await store.head(first.id) is not None

    async def test_an_aggregate_is_free_again_once_its_saga_is_over(self, store: Store) -> None:
        """After the first saga of an aggregate has ended, the next one can be born."""
        now = await store.now()
        first = await put(store, aggregation_id="order-1")
        await store.write([ending(first, now)])

        assert await store.write([newborn(now, aggregation_id="order-1")]) == [Written.DONE]

    async def test_a_stuck_saga_still_holds_its_aggregate(self, store: Store) -> None:
        """STUCK is active: a person has to decide first."""
        now = await store.now()
        head = await put(store, aggregation_id="order-1")
        await store.write([step(head, status=SagaStatus.STUCK, ownership=aside())])

        assert await store.write([newborn(now, aggregation_id="order-1")]) == [Written.TAKEN]

    async def test_an_idempotency_key_is_taken_for_good(self, store: Store) -> None:
        """A second birth under a key of the same saga name is TAKEN, also after the first saga has ended."""
        now = await store.now()
        first = await put(store, idempotency_key="key")
        assert await store.write([newborn(now, idempotency_key="key")]) == [Written.TAKEN]

        await store.write([ending(first, now)])

        assert await store.write([newborn(now, idempotency_key="key")]) == [Written.TAKEN]

    async def test_an_idempotency_key_belongs_to_a_saga_name(self, store: Store) -> None:
        """The same key under another saga name is another key; no key at all clashes with nothing."""
        now = await store.now()
        await put(store, idempotency_key="key")
        others = [newborn(now, idempotency_key="key", saga_name="other"), newborn(now), newborn(now)]

        assert await store.write(others) == [Written.DONE] * 3

    async def test_of_two_births_in_one_batch_one_is_taken(self, store: Store) -> None:
        """Two births for one aggregate in one batch: exactly one comes to be, and the answers say which."""
        now = await store.now()
        twins = [newborn(now, aggregation_id="order-1") for _ in range(2)]

        answers = await store.write(twins)

        assert sorted(answer.value for answer in answers) == ["DONE", "TAKEN"]
        there = [await store.head(twin.head.id) is not None for twin in twins]
        assert there == [answer is Written.DONE for answer in answers]

    async def test_of_many_births_at_once_one_comes_to_be(self, store: Store) -> None:
        """However many processes start a saga for one aggregate at once, exactly one is DONE."""
        now = await store.now()
        births = [newborn(now, aggregation_id="order-1") for _ in range(8)]
        stores = [store, self.beside(store)]

        answers = await together(stores[i % 2].write([birth]) for i, birth in enumerate(births))

        assert [answer for (answer,) in answers].count(Written.DONE) == 1

    async def test_a_birth_that_cannot_be_written_is_raised(self, store: Store) -> None:
        """A newborn that would be neither due nor awaiting anything is refused by the store, and is not there."""
        birth = newborn(await store.now(), deadline_at=None, lease_owner=OWNER)

        await raised_by(store.write([birth]))

        assert await store.head(birth.head.id) is None
