"""What a store keeps of the letters that a move posts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ...runtime.ids import new_id
from ...storage.contract import Store
from ...storage.rows import Delivery, Fate, Head, Letter, Move, Whereabouts, Write, Written
from .posting import Clerk
from .samples import HOUR, KNOWN, Contract, ending, poison, put, put_due, raised_by, read, step, write


def telling(head: Head, to: UUID, event_id: str = "end") -> Move:
    """Return the move that ends a saga and tells another, which is due to be told at once."""
    at = head.updated_at
    return ending(head, at)._replace(letters=(said(to, event_id, at),))


def said(to: UUID, event_id: str, at: datetime) -> Letter:
    content = '{"type":"go","payload":0.10}'
    return Letter(new_id(at), f"saga:{to}", "go", event_id, "child", content, at, at - HOUR)


class TellingContract(Contract):
    """`Move.letters`: they are there if, and only if, the move is."""

    async def test_what_a_move_says_is_posted_with_it(self, store: Store) -> None:
        """In a batch with others, it is due, and delivered like any letter."""
        parent, child, other = await put(store), await put(store), await put(store)
        move = telling(child, parent.id)

        assert await store.write([move, step(other)]) == [Written.DONE, Written.DONE]

        (letter,) = move.letters
        assert await store.inbox.due(KNOWN, 9) == [(letter.id, letter.address)]
        clerk = Clerk()
        await self.beside(store).inbox.deliver(parent.id, clerk)
        assert clerk.seen == [letter.id]
        assert await store.inbox.find(letter.id) == Whereabouts(Fate.APPLIED, parent.id)
        assert (await read(store, child.id)).status.is_terminal

    async def test_what_an_unwritten_move_says_is_not_posted(self, store: Store) -> None:
        """Neither that of a move under an old token, nor that of a batch which cannot be written."""
        parent, child, other = await put(store), await put(store), await put(store)
        fenced = telling(child, parent.id)._replace(token=other.step_execution_token)
        assert await store.write([fenced]) == [Written.FENCED]
        batch: list[Write] = [telling(child, parent.id), poison(other)]
        await raised_by(store.write(batch))

        assert await store.inbox.due(KNOWN, 9) == []

    async def test_what_is_written_again_is_said_once(self, store: Store) -> None:
        """As when the answer was lost."""
        parent, child = await put(store), await put(store)
        move = telling(child, parent.id)

        assert await write(store, [move]) == await write(store, [move]) == [Written.DONE]

        assert len(await store.inbox.due(KNOWN, 9)) == 1

    async def test_every_way_of_moving_posts(self, store: Store) -> None:
        """A decision under the lock, a claim, a delivery, and a step's own transaction."""
        parent = await put(store)
        ordered, due, told, working = await put(store), await put_due(store), await put(store), await put(store)

        def judge(head: Head, now: datetime) -> Move:
            return telling(head, parent.id, str(head.id))

        await store.advance(ordered.id, judge)
        await store.claim(KNOWN, 1, judge)
        await store.inbox.deliver(told.id, _Teller(parent.id))
        async with store.transaction() as transaction:
            await transaction.settle(judge(working, working.updated_at), judge)

        addresses = [address for _, address in await store.inbox.due(KNOWN, 9)]
        assert addresses == [f"saga:{parent.id}"] * 4
        for head in (ordered, due, told, working):
            assert (await read(store, head.id)).status.is_terminal

    async def test_a_transaction_that_finds_the_saga_moved_posts_what_the_judge_says(self, store: Store) -> None:
        """And not what was likely before."""
        parent, working = await put(store), await put(store)
        likely = telling(working, parent.id, "likely")
        await store.write([step(working)])

        def judge(head: Head, now: datetime) -> Move:
            return telling(head, parent.id, "judged")

        async with store.transaction() as transaction:
            await transaction.settle(likely, judge)

        clerk = Clerk()
        await store.inbox.deliver(parent.id, clerk)
        assert len(clerk.seen) == 1
        assert clerk.seen != [likely.letters[0].id]


class _Teller(Clerk):
    """A reader that ends its saga, and tells another."""

    def __init__(self, to: UUID) -> None:
        super().__init__()
        self.to = to

    def read(self, head: Head, letters: object, now: datetime) -> Delivery:
        return Delivery(telling(head, self.to, str(head.id)))
