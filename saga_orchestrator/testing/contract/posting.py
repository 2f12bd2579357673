"""What a store keeps of events that were sent to its sagas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from ...errors import SagaNotFoundError
from ...runtime.ids import new_id
from ...storage.contract import Store
from ...storage.rows import Claimable, Delivery, Fate, Head, Letter, Settled, Want, Whereabouts
from .samples import EXACT, KNOWN, Contract, aside, count_in, ending, put, raised_by, read, step, together

GO = Want(("go",), None)


@dataclass
class Clerk:
    """A reader that wants what it is told to, takes all of it, and moves its saga once for each delivery."""

    wanted: tuple[Want, ...] | None = (GO,)
    seen: list[UUID] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)

    def wants(self, head: Head) -> tuple[Want, ...] | None:
        return self.wanted

    def read(self, head: Head, letters: Sequence[Letter], now: datetime) -> Delivery:
        self.seen = [letter.id for letter in letters]
        self.contents = [letter.content for letter in letters]
        taken = tuple(Settled(letter.id, Fate.APPLIED) for letter in letters)
        return Delivery(step(head) if letters else None, taken)


async def letter(store: Store, address: str, **facts: Any) -> Letter:
    """Post a letter, due in an hour, and return it."""
    now = await store.now()
    plain = Letter(
        new_id(now), address, "go", None, None, '{"type":"go","payload":0.10}', now, now + timedelta(hours=1)
    )
    posted = plain._replace(**facts)
    assert await store.inbox.post(posted) is None
    return posted


async def fate(store: Store, of: Letter) -> Whereabouts | None:
    return await store.inbox.find(of.id)


class PostingContract(Contract):
    """`inbox`: what was posted is kept, and reaches one saga once."""

    async def test_a_letter_that_was_posted_is_there(self, store: Store) -> None:
        """It waits for its saga; one that never was is not there."""
        posted = await letter(store, "aggregation:nobody")

        assert await fate(store, posted) == Whereabouts(Fate.BUFFERED, None)
        assert await store.inbox.find(uuid4()) is None

    async def test_a_letter_is_read_byte_for_byte(self, store: Store) -> None:
        """Whoever waits for it is given what was sent, whichever process delivers it."""
        head = await put(store)
        await letter(store, f"saga:{head.id}", content=EXACT)

        clerk = Clerk()
        await self.beside(store).inbox.deliver(head.id, clerk)

        assert clerk.contents == [EXACT]

    async def test_a_letter_is_posted_once_under_its_id(self, store: Store) -> None:
        """The second of one address, type and event id is answered with the first; without an id each is its own."""
        first = await letter(store, "aggregation:a", event_id="1")

        again = first._replace(id=uuid4())
        known = await self.beside(store).inbox.post(again)
        assert known is not None
        assert known.id == first.id
        assert await store.inbox.find(again.id) is None
        for other in (
            {"address": "aggregation:b"},
            {"type": "stop"},
            {"event_id": "2"},
            {"event_id": None},
            {"event_id": None},
        ):
            assert await store.inbox.post(first._replace(id=uuid4(), **other)) is None

    async def test_of_letters_posted_at_once_under_one_id_one_is_kept(self, store: Store) -> None:
        """Whoever was first, all are answered with the same."""
        now = await store.now()
        sent = [Letter(uuid4(), "aggregation:a", "go", "1", None, "{}", now, now) for _ in range(5)]

        answers = await together(store.inbox.post(each) for each in sent)

        (kept,) = [each for each, answer in zip(sent, answers, strict=True) if answer is None]
        assert {answer.id for answer in answers if answer is not None} == {kept.id}

    async def test_addresses_mean_sagas(self, store: Store) -> None:
        """By id, by aggregate while it is active, and by the correlations that it was routed for, active ones first."""
        over, active = await put(store), await put(store)
        await store.write([ending(over, over.updated_at)])
        for saga_id in (over.id, active.id, active.id):
            await store.inbox.route(saga_id, ["invoice", "invoice"])

        async def meant(address: str) -> list[UUID]:
            return await store.inbox.addressees(address)

        assert await meant(f"saga:{over.id}") == [over.id]
        assert await meant(f"saga:{uuid4()}") == []
        assert await meant(f"aggregation:{active.aggregation_id}") == [active.id]
        assert await meant(f"aggregation:{over.aggregation_id}") == []
        assert await meant("correlation:invoice") == [active.id, over.id]
        assert await meant("correlation:other") == []

    async def test_a_delivery_moves_the_saga_and_settles_its_letters(self, store: Store) -> None:
        """Both are durable, oldest letter first, and what was settled is not delivered again."""
        head = await put(store)
        sent = [await letter(store, f"saga:{head.id}"), await letter(store, f"aggregation:{head.aggregation_id}")]
        clerk = Clerk()

        before, delivery = await store.inbox.deliver(head.id, clerk)

        assert before.id == head.id
        assert delivery.move is not None
        assert clerk.seen == [each.id for each in sent]
        assert count_in(await read(store, head.id)) == 1
        for each in sent:
            assert await fate(store, each) == Whereabouts(Fate.APPLIED, head.id)
        assert (await store.inbox.deliver(head.id, clerk))[1] == Delivery()

    async def test_deliveries_at_once_give_a_letter_to_one_of_them(self, store: Store) -> None:
        """Also where two sagas want it, and two processes deliver it."""
        first, second = await put(store), await put(store)
        sent = await letter(store, "correlation:invoice", correlation_id="invoice")
        clerks = [Clerk((Want(("go",), "invoice"),)) for _ in range(4)]
        ids = (first.id, second.id, first.id, second.id)
        stores = (store, self.beside(store), self.beside(store), store)

        await together(each.inbox.deliver(i, clerk) for each, i, clerk in zip(stores, ids, clerks, strict=True))

        assert sum(clerk.seen == [sent.id] for clerk in clerks) == 1
        assert count_in(await read(store, first.id)) + count_in(await read(store, second.id)) == 1

    async def test_only_what_a_saga_wants_is_read(self, store: Store) -> None:
        """Its types and, where it names one, its correlation; the rest stays."""
        head = await put(store)
        here = f"saga:{head.id}"
        wanted = await letter(store, here, type="stop", correlation_id="mine")
        others = [
            await letter(store, here, type="go"),
            await letter(store, here, type="stop", correlation_id="other"),
            await letter(store, here, type="stop"),
            await letter(store, "aggregation:somebody", type="stop", correlation_id="mine"),
        ]
        clerk = Clerk((Want(("stop",), "mine"),))

        await store.inbox.deliver(head.id, clerk)

        assert clerk.seen == [wanted.id]
        assert [found and found.fate for found in [await fate(store, each) for each in others]] == [Fate.BUFFERED] * 4

    async def test_a_letter_that_is_named_is_read_in_any_case(self, store: Store) -> None:
        """So that its sender can be told what has become of it."""
        head = await put(store)
        sent = await letter(store, f"saga:{head.id}", type="never")
        clerk = Clerk()

        await store.inbox.deliver(head.id, clerk, sent.id)

        assert clerk.seen == [sent.id]

    async def test_what_was_sent_to_an_aggregate_is_the_sagas_that_it_found(self, store: Store) -> None:
        """The aggregate's next saga is not given what its last one left."""
        head = await put(store)
        sent = await letter(store, f"aggregation:{head.aggregation_id}")
        await store.inbox.deliver(head.id, Clerk(()))
        assert await fate(store, sent) == Whereabouts(Fate.BUFFERED, head.id)
        await store.write([ending(await read(store, head.id), head.updated_at)])
        following = await put(store, aggregation_id=head.aggregation_id)
        clerk = Clerk()

        await store.inbox.deliver(following.id, clerk)

        assert clerk.seen == []

    async def test_a_delivery_to_nobody_is_an_error(self, store: Store) -> None:
        """It says which saga is not there."""
        assert isinstance(await raised_by(store.inbox.deliver(uuid4(), Clerk())), SagaNotFoundError)

    async def test_a_letter_is_due_until_somebody_has_looked(self, store: Store) -> None:
        """Delivered or shelved, it is not; of several, the one that is due longest comes first."""
        now = await store.now()
        head = await put(store)
        early = await letter(store, f"saga:{head.id}", due_at=now - timedelta(hours=2))
        late = await letter(store, "aggregation:nobody", due_at=now - timedelta(hours=1))
        await letter(store, "aggregation:nobody")

        assert await store.inbox.due(KNOWN, 9) == [(early.id, early.address), (late.id, late.address)]
        assert await store.inbox.due(KNOWN, 1) == [(early.id, early.address)]
        await store.inbox.deliver(head.id, Clerk(()))
        await store.inbox.shelve(late.id)
        assert await store.inbox.due(KNOWN, 9) == []

    async def test_a_letter_for_a_saga_that_the_reader_does_not_know_is_left_to_others(self, store: Store) -> None:
        """It is due for whoever can run the saga, and for nobody else."""
        now = await store.now()
        head = await put(store)
        sent = await letter(store, f"saga:{head.id}", due_at=now - timedelta(hours=2))

        await store.inbox.deliver(head.id, Clerk(None), sent.id)

        assert await fate(store, sent) == Whereabouts(Fate.BUFFERED, head.id)
        assert await store.inbox.due(Claimable({"another": frozenset({1})}), 9) == []
        clerk = Clerk()
        await store.inbox.deliver(head.id, clerk)
        assert clerk.seen == [sent.id]

    async def test_a_letter_that_was_taken_is_never_due_again(self, store: Store) -> None:
        """Also if somebody who does not know the saga, or cannot deliver it, comes late: it stood in others' way."""
        head = await put(store)
        sent = await letter(store, f"saga:{head.id}")
        await store.inbox.deliver(head.id, Clerk())
        long_ago = await store.now() - timedelta(hours=2)

        await store.inbox.deliver(head.id, Clerk(None), sent.id)
        await store.inbox.defer(sent.id, long_ago)

        assert await fate(store, sent) == Whereabouts(Fate.APPLIED, head.id)
        assert await store.inbox.due(KNOWN, 9) == []

    async def test_what_is_too_old_is_forgotten(self, store: Store) -> None:
        """Letters by when they came, routes by when their saga was over."""
        now = await store.now()
        head = await put(store)
        await store.inbox.route(head.id, ["invoice"])
        sent = await letter(store, "aggregation:nobody")
        await store.inbox.purge(now - timedelta(days=1))
        assert await store.inbox.addressees("correlation:invoice") == [head.id]

        await store.write([step(head, ownership=aside())])
        await store.inbox.purge(now + timedelta(days=36_500))

        assert await store.inbox.addressees("correlation:invoice") == [head.id]
        assert await fate(store, sent) is None
