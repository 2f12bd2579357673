"""Planted bugs, each a mistake that an engine or a store of this kind has really made: the simulation must find every one.

A simulation that finds nothing may be right, or blind. Each mutant breaks one rule, by replacing one method; it is caught
if some seed of a fixed few reports a violation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from unittest import mock
from uuid import UUID

from saga_orchestrator.kernel import claim
from saga_orchestrator.kernel.state import Running
from saga_orchestrator.runtime.claims import Claims
from saga_orchestrator.runtime.clock import DatabaseClock
from saga_orchestrator.runtime.driver import Driver
from saga_orchestrator.runtime.engine import SagaEngine
from saga_orchestrator.runtime.lease import LeaseKeeper
from saga_orchestrator.runtime.performer import Performer
from saga_orchestrator.runtime.tenure import Tenure
from saga_orchestrator.storage.group_commit import GroupCommit
from saga_orchestrator.storage.rows import Head, Move, Written
from saga_orchestrator.testing.memory import MemoryStore

from .plan import Plan

HOSTILE = Plan(
    sagas=10,
    crashes_at_store=0.02,
    crashes_in_steps=0.02,
    freezes=0.02,
    refused_calls=0.03,
    lost_answers=0.05,
    slow_calls=0.03,
    slow_renewals=0.3,
    unruly=0.25,
    orders=15,
    notifications=6,
    shutdowns=3,
    cancelled_callers=0.2,
)
"""Everything at once, so that a mutant meets the fault that it needs within few seeds."""

Mutation = Callable[[], Iterator[None]]
MUTANTS: dict[str, Any] = {}


def mutant(owner: Any, method: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Register a mutant: what is decorated gets the right method and returns the wrong one."""

    def register(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @contextmanager
        def planted() -> Iterator[None]:
            with mock.patch.object(owner, method, make(getattr(owner, method))):
                yield

        MUTANTS[make.__name__] = planted
        return make

    return register


# --- the store ---------------------------------------------------------------------------------------------------------


@mutant(MemoryStore, "_write")
def the_store_does_not_compare_revisions(right: Any) -> Any:
    def wrong(self: MemoryStore, item: Any) -> Written:
        head = self.rows.get(getattr(item, "saga_id", None))
        return right(self, item if head is None else item._replace(revision=head.revision))

    return wrong


@mutant(MemoryStore, "_write")
def the_store_does_not_compare_tokens(right: Any) -> Any:
    def wrong(self: MemoryStore, item: Any) -> Written:
        head = self.rows.get(getattr(item, "saga_id", None))
        return right(self, item if head is None else item._replace(token=head.step_execution_token))

    return wrong


@mutant(MemoryStore, "_move")
def the_store_writes_the_state_and_not_the_history(right: Any) -> Any:
    return lambda self, head, move: right(self, head, move._replace(history=()))


@mutant(MemoryStore, "_rival")
def the_store_has_no_unique_keys(right: Any) -> Any:
    return lambda self, born: None


@mutant(MemoryStore, "renew")
def the_store_renews_what_the_owner_has_lost(right: Any) -> Any:
    async def wrong(self: MemoryStore, owner: str, saga_ids: Iterable[UUID], until: datetime) -> dict[UUID, int]:
        await asyncio.sleep(0)
        return {saga_id: self.rows[saga_id].revision for saga_id in saga_ids}

    return wrong


@mutant(GroupCommit, "submit")
def a_write_is_answered_before_it_is_durable(right: Any) -> Any:
    def wrong(self: GroupCommit, item: Any) -> asyncio.Future[Written]:
        right(self, item)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(Written.DONE)
        return answer

    return wrong


# --- claims and leases -------------------------------------------------------------------------------------------------


@mutant(Claims, "owned")
def a_claim_keeps_the_old_token(right: Any) -> Any:
    def wrong(self: Claims, head: Head, *others: Any) -> Move:
        move = right(self, head, *others)
        return move._replace(ownership=move.ownership._replace(token=head.step_execution_token))

    return wrong


@mutant(LeaseKeeper, "_let_go")
def an_owner_never_gives_up_its_belief(right: Any) -> Any:
    return lambda self: None


@mutant(LeaseKeeper, "lasts")
def a_lease_is_believed_in_however_late_it_came(right: Any) -> Any:
    return lambda self, lease_until: True


@mutant(DatabaseClock, "_narrowed")
def a_slow_answer_sets_the_clock(right: Any) -> Any:
    return lambda self, earliest, latest, at: (earliest, earliest)


@mutant(Driver, "release")
def a_release_forgets_to_let_go(right: Any) -> Any:
    async def wrong(self: Driver) -> None:
        self.lose()

    return wrong


# --- driving -----------------------------------------------------------------------------------------------------------


@mutant(Driver, "_commit")
def work_begins_before_its_commit(right: Any) -> Any:
    async def wrong(self: Driver, done: Any, *others: Any) -> bool:
        self.tenure.state = done.state
        self._begin()
        return await right(self, done, *others)

    return wrong


@mutant(Driver, "run")
def outstanding_work_is_not_begun_by_a_new_owner(right: Any) -> Any:
    async def wrong(self: Driver) -> None:
        if self.tenure.state.recorded == 0:
            await right(self)
        else:
            with mock.patch.object(self, "_begin"):
                await right(self)

    return wrong


@mutant(SagaEngine, "_drive")
def a_claimed_saga_is_not_driven(right: Any) -> Any:
    async def wrong(self: SagaEngine[Any], tenure: Tenure) -> None:
        if tenure.state.recoveries == 0:
            await right(self, tenure)

    return wrong


@mutant(Driver, "_reload")
def a_conflict_is_overwritten(right: Any) -> Any:
    async def wrong(self: Driver) -> None:
        head = await self.tenure.store.head(self.tenure.saga_id)
        if head is None or head.step_execution_token != self.tenure.token:
            self._fence()
        else:
            self.tenure.revision = head.revision

    return wrong


@mutant(Performer, "_context")
def each_attempt_has_a_key_of_its_own(right: Any) -> Any:
    def wrong(self: Performer, *arguments: Any) -> Any:
        ctx = right(self, *arguments)
        return replace(ctx, idempotency_key=f"{ctx.idempotency_key}/{ctx.attempt}")

    return wrong


@mutant(Tenure, "_history")
def an_error_of_the_database_fails_the_step(right: Any) -> Any:
    async def wrong(self: Tenure) -> Any:
        try:
            return (await self.store.history([self.saga_id]))[self.saga_id]
        except ConnectionError:
            return []

    return wrong


# --- the kernel --------------------------------------------------------------------------------------------------------


@mutant(claim, "_lost")
def a_lost_attempt_is_not_in_doubt(right: Any) -> Any:
    return lambda draft, step_id, status: draft.start(step_id, status.attempt, status.failures)


@mutant(claim, "take_over")
def a_lost_attempt_is_taken_for_a_failed_one(right: Any) -> Any:
    def wrong(draft: Any) -> None:
        for step_id, status in tuple(draft.open.items()):
            if isinstance(status, Running):
                draft.start(step_id, status.attempt + 1, status.failures + 1)

    return wrong
