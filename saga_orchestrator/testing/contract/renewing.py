"""What a store keeps when leases are renewed."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from ...storage.contract import Store
from .samples import HOUR, OWNER, Contract, differing, ending, newborn, put, read, step, write


class RenewingContract(Contract):
    """`renew`: only the owner's, and nothing but the lease."""

    async def test_a_renewal_extends_the_lease_and_nothing_else(self, store: Store) -> None:
        """The owner's sagas are due later, and are named with their revisions."""
        first, second = await put(store), await put(store)
        await store.write([step(second)])
        until = first.created_at + 3 * HOUR

        assert await store.renew(OWNER, [first.id, second.id], until) == {first.id: 0, second.id: 1}

        renewed = await read(store, first.id)
        assert renewed.deadline_at == until
        assert differing(first, renewed, but=["deadline_at"]) == {}

    async def test_a_renewal_extends_only_what_the_owner_still_has(self, store: Store) -> None:
        """Sagas of others, sagas that are over, and sagas that are not there are neither extended nor named."""
        mine, theirs, ended = await put(store), await put(store, lease_owner="another"), await put(store)
        await store.write([ending(ended, ended.created_at)])
        until = mine.created_at + 3 * HOUR

        alive = await store.renew(OWNER, [mine.id, theirs.id, ended.id, uuid4()], until)

        assert set(alive) == {mine.id}
        assert (await read(store, theirs.id)).deadline_at == theirs.deadline_at
        assert (await read(store, ended.id)).deadline_at is None

    async def test_a_renewal_never_shortens_a_lease(self, store: Store) -> None:
        """One that was long under way, while its owner took the saga anew, leaves the longer lease alone."""
        head = await put(store)
        until = head.created_at + 3 * HOUR
        await store.renew(OWNER, [head.id], until)

        assert set(await store.renew(OWNER, [head.id], until - HOUR)) == {head.id}

        assert (await read(store, head.id)).deadline_at == until

    async def test_renewing_nothing_is_nothing(self, store: Store) -> None:
        """Without sagas there is nothing to renew."""
        assert await store.renew(OWNER, [], await store.now()) == {}

    async def test_many_leases_are_renewed_at_once(self, store: Store) -> None:
        """More sagas than any one statement may carry are renewed all the same."""
        now = await store.now()
        births = [newborn(now) for _ in range(700)]
        await store.write(births)

        alive = await store.renew(OWNER, [birth.head.id for birth in births], now + 3 * HOUR)

        assert set(alive) == {birth.head.id for birth in births}

    async def test_a_renewal_and_a_move_at_once_both_stand(self, store: Store) -> None:
        """A renewal that meets its owner's own move loses neither of them."""
        head = await put(store)
        until = head.created_at + 3 * HOUR

        await asyncio.gather(write(store, [step(head)]), self.beside(store).renew(OWNER, [head.id], until))

        moved = await read(store, head.id)
        assert moved.revision == 1
        assert moved.deadline_at in {head.deadline_at, until}

    async def test_an_owner_takes_its_name_off_only_what_it_has_claimed_so(self, store: Store) -> None:
        """Of `disown`: a row with another token, or another owner, is left alone; nothing else of a row changes."""
        first, again, others = await put(store), await put(store), await put(store, lease_owner="another")
        tokens = {head.id: head.step_execution_token or head.id for head in (first, others)} | {again.id: again.id}

        assert await store.disown(OWNER, tokens) == set()

        assert differing(first, await read(store, first.id), but=["lease_owner"]) == {}
        found = [(await read(store, head.id)).lease_owner for head in (first, again, others)]
        assert found == [None, OWNER, "another"]
