"""What a store keeps when sagas that are over are deleted, and what it must not delete."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ...errors import SagaNotFoundError
from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.retention import Bygone
from ...storage.rows import Head, Move, Ownership, Written
from .posting import Clerk, fate, letter
from .samples import HOUR, NAME, Contract, aside, ending, newborn, past_of, put, raised_by, read, step, takes, together

FOREVER = timedelta.max
OLD = Bygone(
    older_than=HOUR,
    statuses=frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED}),
    undo_windows={(NAME, 1): timedelta(0)},
)


async def put_over(
    store: Store,
    hours: float = 2,
    status: SagaStatus = SagaStatus.COMPLETED,
    due: datetime | None = None,
    awaiting: str | None = None,
    **facts: Any,
) -> Head:
    """Write a saga that has been over for some hours; or whose row says so, and something else as well."""
    born = await put(store, **facts)
    ended = Ownership(None, None, due, awaiting, born.created_at - hours * HOUR)
    await store.write([step(born, ownership=ended, status=status)])
    return await read(store, born.id)


async def left(store: Store, *heads: Head) -> list[bool]:
    """Return which of the sagas are still there."""
    return [await store.head(head.id) is not None for head in heads]


class PurgingContract(Contract):
    """`purge`: what nobody needs any more is gone without a trace, and nothing else is."""

    async def test_what_is_over_is_gone_with_all_that_was_its(self, store: Store) -> None:
        """Its history, the letters that were sent to it and its routes, and not those of others."""
        gone, other = [await put(store, idempotency_key=key) for key in ("k-1", "k-2")]
        letters = [await letter(store, f"{kind}:{name}") for kind, name in _addresses(gone)]
        await store.inbox.deliver(gone.id, Clerk(()))
        letters.append(await letter(store, f"saga:{gone.id}"))
        others = [await letter(store, f"saga:{other.id}"), await letter(store, "aggregation:nobody")]
        for head in (gone, other):
            await store.inbox.route(head.id, ["invoice"])
        await store.write([ending(gone, gone.created_at - 2 * HOUR), step(other)])

        assert await store.purge(OLD, 9) == 1

        assert await left(store, gone, other) == [False, True]
        assert [await fate(store, each) for each in letters] == [None, None, None]
        assert None not in [await fate(store, each) for each in others]
        assert await store.inbox.addressees("correlation:invoice") == [other.id]
        assert len(await past_of(store, other.id)) == 1
        assert await store.write([newborn(gone.created_at, id=gone.id, idempotency_key="k-1")]) == [Written.DONE]
        assert await past_of(store, gone.id) == []
        assert await store.inbox.addressees("correlation:invoice") == [other.id]

    async def test_what_is_not_asked_for_stays(self, store: Store) -> None:
        """It is too young, or of another name, or has ended otherwise."""
        kept = [
            await put_over(store, 0.5),
            await put_over(store, saga_name="other", status=SagaStatus.COMPENSATED),
            await put_over(store, status=SagaStatus.FAILED),
        ]
        gone = await put_over(store, status=SagaStatus.COMPENSATED)

        assert await store.purge(replace(OLD, saga_name=NAME), 9) == 1

        assert await left(store, gone, *kept) == [False, True, True, True]
        assert await store.purge(replace(OLD, older_than=FOREVER, undo_windows={}, unregistered=True), 9) == 0
        assert await store.purge(replace(OLD, statuses=frozenset({SagaStatus.FAILED})), 9) == 1
        assert await left(store, *kept) == [True, True, False]

    async def test_what_is_active_or_due_stays(self, store: Store) -> None:
        """Whatever else its row says, and whatever is asked for."""
        due = await store.now() - HOUR
        kept = [
            await put_over(store, status=SagaStatus.STUCK, awaiting="operator"),
            await put_over(store, status=SagaStatus.RUNNING, due=due),
            await put_over(store, status=SagaStatus.SUSPENDED, due=due, awaiting="retry"),
            await put_over(store, status=SagaStatus.FAILED, due=due),
            await put_over(store, status=SagaStatus.COMPLETED, due=due),
            await put(store),
        ]

        over = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED})
        assert await store.purge(replace(OLD, statuses=over), 9) == 0

        assert await left(store, *kept) == [True] * len(kept)

    async def test_the_oldest_go_first_and_no_more_than_so_many(self, store: Store) -> None:
        """Call by call, until there is nothing left; then it says so."""
        heads = [await put_over(store, id=UUID(int=each)) for each in (3, 1, 2)]

        assert await store.purge(OLD, 2) == len(heads) - 1
        assert await left(store, *heads) == [True, False, False]
        assert await store.purge(OLD, 2) == 1
        assert await store.purge(OLD, 2) == 0

    async def test_what_has_completed_stays_while_it_can_be_undone(self, store: Store) -> None:
        """For as long as its own definition says; what has been undone already need not wait."""
        windows = {(NAME, 1): 3 * HOUR, (NAME, 2): 1.5 * HOUR, ("other", 1): FOREVER}
        kept = [await put_over(store), await put_over(store, saga_name="other")]
        gone = [await put_over(store, definition_version=2), await put_over(store, status=SagaStatus.COMPENSATED)]

        assert await store.purge(replace(OLD, undo_windows=windows), 9) == len(gone)

        assert await left(store, *kept, *gone) == [True, True, False, False]

    async def test_what_has_completed_stays_whose_definition_is_unknown(self, store: Store) -> None:
        """Nobody can tell whether it can still be undone, unless the caller vouches for it."""
        kept = [await put_over(store, definition_version=2), await put_over(store, saga_name="other")]
        gone = await put_over(store, saga_name="other", status=SagaStatus.COMPENSATED)

        assert await store.purge(OLD, 9) == 1
        assert await left(store, gone, *kept) == [False, True, True]

        vouched = replace(OLD, undo_windows={(NAME, 2): 3 * HOUR}, unregistered=True)
        assert await store.purge(vouched, 9) == 1
        assert await left(store, *kept) == [True, False]

    async def test_a_child_stays_while_its_parent_is_there(self, store: Store) -> None:
        """A parent that can go goes first, and its child with the next call; one that stays keeps its child."""
        going, failed, stuck = [
            await put_over(store, id=UUID(int=each + 10), status=status, awaiting=waits)
            for each, (status, waits) in enumerate(_PARENTS)
        ]
        heads = [
            await put_over(store, id=UUID(int=each), parent_id=parent.id)
            for each, parent in enumerate((going, failed, stuck))
        ]

        assert await store.purge(OLD, 9) == 1
        assert await left(store, going, *heads) == [False, True, True, True]
        assert await store.purge(OLD, 9) == 1
        assert await store.purge(OLD, 9) == 0
        assert await left(store, failed, stuck, *heads) == [True, True, False, True, True]

    async def test_a_parent_stays_while_a_child_is_active(self, store: Store) -> None:
        """Whoever looks at the child finds where it came from."""
        parent = await put_over(store)
        child = await put(store, parent_id=parent.id)
        assert await store.purge(OLD, 9) == 0

        await store.write([ending(child, child.created_at)])

        assert await store.purge(OLD, 9) == 1
        assert await left(store, parent, child) == [False, True]

    async def test_of_purges_at_once_each_deletes_its_own(self, store: Store) -> None:
        """Nothing is counted twice, and nothing is left."""
        heads = [await put_over(store) for _ in range(12)]
        stores = (store, self.beside(store), self.beside(store), store)

        counts = await together(each.purge(OLD, 3) for each in stores)

        assert sum(counts) + await store.purge(OLD, 99) == len(heads)
        assert not any(await left(store, *heads))

    async def test_what_is_revived_meanwhile_is_there_or_gone(self, store: Store) -> None:
        """Whoever revives it is told which."""
        heads = [await put_over(store) for _ in range(8)]

        async def revive(head: Head) -> bool:
            try:
                await self.beside(store).advance(head.id, _revives)
            except SagaNotFoundError:
                return False
            return True

        gone, revived = store.purge(OLD, 99), [revive(head) for head in heads]
        count, *answers = await together([gone, *revived])

        assert await left(store, *heads) == answers
        assert count == len(heads) - sum(answers)

    async def test_a_letter_to_who_is_gone_is_kept_for_nobody(self, store: Store) -> None:
        """To deliver to it is the error that it is for any other that never was."""
        head = await put_over(store)
        await store.purge(OLD, 9)

        assert await store.inbox.addressees(f"saga:{head.id}") == []
        assert isinstance(await raised_by(store.inbox.deliver(head.id, Clerk())), SagaNotFoundError)
        assert isinstance(await raised_by(store.advance(head.id, takes("me"))), SagaNotFoundError)
        assert await store.write([step(head)]) == [Written.FENCED]


_PARENTS = [(SagaStatus.COMPLETED, None), (SagaStatus.FAILED, None), (SagaStatus.STUCK, "operator")]


def _addresses(head: Head) -> list[tuple[str, object]]:
    return [("saga", head.id), ("aggregation", head.aggregation_id)]


def _revives(head: Head, now: datetime) -> Move:
    """Set a saga going again that was over."""
    return step(head, ownership=aside(), status=SagaStatus.STUCK)
