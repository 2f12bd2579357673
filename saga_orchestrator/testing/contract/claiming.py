"""What a store keeps when due sagas are claimed."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ...kernel.state import SagaStatus
from ...storage.contract import Store
from ...storage.rows import Claimable, Head, Move
from .samples import (
    HOUR,
    KNOWN,
    NAME,
    Contract,
    aside,
    differing,
    ids,
    past_of,
    poison,
    put,
    put_due,
    read,
    step,
    taken,
    takes,
    together,
)


class ClaimingContract(Contract):
    """`claim`: what is due and can be run, in order, each saga to one claimer."""

    async def test_only_what_is_due_is_claimed(self, store: Store) -> None:
        """A saga whose time has not come, or that waits for no time, is left alone."""
        now = await store.now()
        due = await put_due(store)
        await put(store, lease_owner=None, deadline_at=now + HOUR)
        stuck = await put_due(store)
        await store.write([step(stuck, status=SagaStatus.STUCK, ownership=aside())])

        claimed = await store.claim(KNOWN, 10, takes("me"))

        assert ids(head for head, _ in claimed) == [due.id]

    async def test_a_lease_that_has_run_out_is_due(self, store: Store) -> None:
        """A saga whose owner vanished is claimed, and the judge sees who that owner was."""
        now = await store.now()
        await put(store, lease_owner="gone", deadline_at=now - HOUR)

        [(head, _)] = await store.claim(KNOWN, 10, takes("me"))

        assert head.lease_owner == "gone"

    async def test_what_is_claimed_is_durable(self, store: Store) -> None:
        """After a claim the row is the claimer's, with the history of the claim, and is not due any more."""
        due = await put_due(store)

        [(head, move)] = await store.claim(KNOWN, 10, takes("me"))

        claimed = await read(store, due.id)
        assert differing(due, head) == {}
        assert move.ownership is not None
        assert (claimed.lease_owner, claimed.step_execution_token) == ("me", move.ownership.token)
        assert claimed.revision == 1
        assert len(await past_of(store, due.id)) == 1
        assert await store.claim(KNOWN, 10, takes("another")) == []

    async def test_a_claim_takes_the_urgent_first_and_then_the_longest_due(self, store: Store) -> None:
        """Higher priority comes first; among equals, what has been due longest; and no more than asked for."""
        late = await put_due(store, 1)
        later = await put_due(store, 3)
        urgent = await put_due(store, 0.5, priority=5)
        unhurried = await put_due(store, 9, priority=-1)

        first = await store.claim(KNOWN, 3, takes("me"))
        second = await store.claim(KNOWN, 3, takes("me"))

        assert ids(head for head, _ in first) == [urgent.id, later.id, late.id]
        assert ids(head for head, _ in second) == [unhurried.id]

    async def test_a_limit_of_nothing_claims_nothing(self, store: Store) -> None:
        """Who asks for none gets none."""
        await put_due(store)

        assert await store.claim(KNOWN, 0, takes("me")) == []

    async def test_only_what_the_claimer_can_run_is_claimed(self, store: Store) -> None:
        """Sagas of other names and other versions are left as they are, for those who know them."""
        mine = await put_due(store, definition_version=2)
        others = [
            await put_due(store, saga_name="other"),
            await put_due(store, definition_version=3),
            await put_due(store, saga_name="another", definition_version=2),
        ]
        able = Claimable({NAME: frozenset({1, 2}), "another": frozenset({1})})

        claimed = await store.claim(able, 10, takes("me"))

        assert ids(head for head, _ in claimed) == [mine.id]
        assert all([differing(other, await read(store, other.id)) == {} for other in others])
        assert await store.claim(Claimable({}), 10, takes("me")) == []

    async def test_a_judge_may_pass_a_saga_over(self, store: Store) -> None:
        """What the judge says None to is not claimed and not changed; the others are."""
        left, taken_ = await put_due(store, 2), await put_due(store, 1)

        def judge(head: Head, now: datetime) -> Move | None:
            return None if head.id == left.id else step(head, ownership=taken(now))

        claimed = await store.claim(KNOWN, 10, judge)

        assert ids(head for head, _ in claimed) == [taken_.id]
        assert differing(left, await read(store, left.id)) == {}

    async def test_the_judge_is_told_the_databases_time(self, store: Store) -> None:
        """Leases begin at the time of the one clock that all share."""
        await put_due(store)
        before = await store.now()
        told: list[datetime] = []

        def judge(head: Head, now: datetime) -> None:
            told.append(now)

        await store.claim(KNOWN, 10, judge)

        assert before <= told[-1] <= await store.now()

    async def test_claimers_at_once_never_share_a_saga(self, store: Store) -> None:
        """However many claim at once, each saga is claimed by one, and in the end none is left."""
        due = [await put_due(store) for _ in range(20)]
        stores = [store, self.beside(store)]

        claimed: list[UUID] = []
        while len(claimed) < len(due):
            answers = await together(stores[i % 2].claim(KNOWN, 4, takes(f"claimer-{i}")) for i in range(6))
            assert any(answers), "nobody got anything although sagas are due"
            claimed += [head.id for pairs in answers for head, _ in pairs]

        assert len(claimed) == len(set(claimed))
        assert set(claimed) == set(ids(due))
        assert {(await read(store, head.id)).revision for head in due} == {1}

    async def test_one_saga_that_cannot_be_claimed_stops_none_of_the_others(self, store: Store) -> None:
        """A saga whose claim cannot be written is set aside for a person, and the others are claimed."""
        bad = await put_due(store, 5)
        good = [await put_due(store, hours) for hours in (4, 3, 2)]

        def judge(head: Head, now: datetime) -> Move:
            return poison(head) if head.id == bad.id else step(head, ownership=taken(now))

        claimed = await store.claim(KNOWN, 10, judge)

        assert ids(head for head, _ in claimed) == ids(good)
        aside = await read(store, bad.id)
        assert (aside.status, aside.awaiting, aside.deadline_at) == (SagaStatus.STUCK, "operator", None)
        assert (aside.revision, aside.lease_owner) == (1, None)
        assert aside.last_error is not None
        assert aside.last_error.startswith("quarantined: ")
