"""Planted bugs, each a mistake that an engine or a store of this kind has really made; the simulation finds each.

A simulation that finds nothing may be right, or blind. Each mutant breaks one rule, by replacing one method; it is
caught if some seed of a fixed few reports a violation. A mutant that few seeds catch names one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from unittest import mock
from uuid import UUID

from saga_orchestrator import FailureAction, SagaAdmin
from saga_orchestrator.definition.constant import Nothing
from saga_orchestrator.definition.finish import DECISION, Finish
from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.kernel import backward_orders, claim, rewind
from saga_orchestrator.kernel.notes import ONCE
from saga_orchestrator.kernel.step_status import Running
from saga_orchestrator.runtime import deciding, failing, tenure
from saga_orchestrator.runtime.alarm import Alarm
from saga_orchestrator.runtime.children import SagaChildren
from saga_orchestrator.runtime.claims import Claims
from saga_orchestrator.runtime.driver import Driver
from saga_orchestrator.runtime.engine import SagaEngine
from saga_orchestrator.runtime.lease import LeaseKeeper
from saga_orchestrator.runtime.performer import Performer
from saga_orchestrator.storage.group_commit import GroupCommit
from saga_orchestrator.storage.rows import Head, HistoryRow, Move, Written
from saga_orchestrator.testing import memory_retention
from saga_orchestrator.testing.memory import MemoryStore

from .plan import LEASE, Plan

EVERYTHING = Plan(
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
"""Every fault at once, so that a mutant meets the one that it needs within few seeds."""

LATENESS = Plan(sagas=8, slow_calls=0.08, slow_renewals=0.7, refused_calls=0.05, slowness=2 * LEASE, seconds=60.0)
"""Steps that outlast leases, and a store that is slow to renew them."""

SLOWNESS = Plan(sagas=16, slow_calls=0.1, slowness=5.0, seconds=60.0)
"""A store that takes about as long as a lease to do what it is asked."""

DOUBT = Plan(sagas=16, crashes_in_steps=0.25, unruly=0.6, seconds=60.0)
"""Machines that die in the middle of a step, and steps that fail after that."""

OUTAGES = Plan(sagas=16, refused_calls=0.3, crashes_in_steps=0.15, seconds=60.0)
"""A store that is away every now and then, and machines that die, so that others must read what they have left."""

RETURNS = Plan(sagas=10, rewinds=80, slowness=1.0, unruly=0.1, seconds=60.0)
"""Operators who have sagas go back, again and again, and do the same again."""

DECISIONS = Plan(
    sagas=16, rewinds=150, decisions=40, holds=40, slow_calls=0.1, slowness=1.0, crashes_at_store=0.03, seconds=60.0
)
"""People who commit sagas and reject them, while others have them go back."""

FAMILIES = Plan(sagas=10, families=True, rewinds=20, orders=10, unruly=0.2, crashes_in_steps=0.03, seconds=60.0)
"""Sagas that have children, and are undone with them."""

PARTS = Plan(sagas=12, parts=True, crashes_in_steps=0.08, unruly=0.3, seconds=60.0)
"""Steps that do a part of their work by itself, and machines that die after that."""

PURGES = Plan(sagas=14, purges=60, rewinds=20, families=True, slowness=1.0, seconds=60.0)
"""Operators who delete what is over, while others have it go back."""

ACTIONS = Plan(sagas=16, actions=80, unruly=0.4, slowness=3.0, resolved=False, seconds=60.0)
"""Operators who have failed sagas reverted and closed, two at a time."""

DEFECTS = Plan(sagas=12, defects=0.08, shutdowns=6, seconds=60.0)
"""An engine that fails itself."""

SICKNESS = Plan(sagas=12, sick_calls=0.2, seconds=60.0, resolved=False)
"""A database whose disk is full now and then, or whose operator's limits cut calls off."""

SILENCE = Plan(sagas=12, silent_calls=0.04, seconds=60.0)
"""Connections that say nothing any more."""

SILENCES = Plan(sagas=16, silent_calls=0.1, slowness=5.0, unruly=0.2, seconds=60.0, resolved=False)
"""Connections that say nothing, so often that leases run out while their owners wait for an answer."""

DEPLOYMENTS = Plan(sagas=8, shutdowns=8, slowness=5.0)
"""Nothing but machines that are asked to stop."""


@dataclass(frozen=True)
class Mutant:
    """A planted bug, and the faults under which it shows."""

    owner: Any
    method: str
    make: Callable[[Any], Any]
    plan: Plan
    seed: int = 0
    """One that has caught it; if it does no more, another one is looked for."""

    def planted(self) -> AbstractContextManager[Any]:
        """Return the context in which the bug is there."""
        return mock.patch.object(self.owner, self.method, self.make(getattr(self.owner, self.method)))


MUTANTS: dict[str, Mutant] = {}


def mutant(
    owner: Any, method: str, plan: Plan = EVERYTHING, *, seed: int = 0
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Register a mutant: what is decorated gets the right method and returns the wrong one."""

    def register(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MUTANTS[make.__name__] = Mutant(owner, method, make, plan, seed)
        return make

    return register


# --- the store ---------------------------------------------------------------------------------------------


@mutant(MemoryStore, "_write")
def the_store_does_not_compare_revisions(right: Any) -> Any:
    def wrong(self: MemoryStore, item: Any) -> Written:
        head = self.rows.get(getattr(item, "saga_id", None))
        return right(self, item if head is None else item._replace(revision=head.revision))

    return wrong


@mutant(MemoryStore, "_move")
def the_store_writes_the_state_and_not_the_history(right: Any) -> Any:
    return lambda self, head, move: right(self, head, move._replace(history=()))


@mutant(MemoryStore, "_rival")
def the_store_has_no_unique_keys(right: Any) -> Any:
    return lambda self, born: None


@mutant(MemoryStore, "renew", LATENESS)
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


@mutant(memory_retention, "_is_settled", PURGES)
def a_purge_takes_what_may_still_be_undone(right: Any) -> Any:
    return lambda head, finished_at, bygone, now: True


@mutant(SagaEngine, "__init__", SICKNESS)
def a_full_disk_counts_as_the_crash_of_an_owner(right: Any) -> Any:
    def wrong(self: SagaEngine[Any], **options: Any) -> None:
        right(self, **options)
        self._commits._patience = -1.0
        self.surrenders.add = lambda saga_id, token: None

    return wrong


# --- claims and leases -------------------------------------------------------------------------------------


@mutant(Claims, "owned")
def a_claim_keeps_the_old_token(right: Any) -> Any:
    def wrong(self: Claims, head: Head, *others: Any) -> Move:
        move = right(self, head, *others)
        return move._replace(ownership=move.ownership._replace(token=head.step_execution_token))

    return wrong


@mutant(LeaseKeeper, "_let_go", LATENESS)
def an_owner_never_gives_up_its_belief(right: Any) -> Any:
    return lambda self: None


@mutant(LeaseKeeper, "_let_go", SILENCES)
def an_owner_believes_in_a_lease_that_a_silence_has_outlasted(right: Any) -> Any:
    return lambda self: None


@mutant(LeaseKeeper, "lasts", LATENESS)
def a_lease_is_believed_in_however_late_it_came(right: Any) -> Any:
    return lambda self, lease_until: True


@mutant(Alarm, "spared", SLOWNESS, seed=1)
def the_time_of_an_attempt_runs_while_its_order_is_being_written(right: Any) -> Any:
    return lambda self, now: frozenset()


@mutant(Driver, "release", DEPLOYMENTS)
def a_release_forgets_to_let_go(right: Any) -> Any:
    async def wrong(self: Driver) -> None:
        self.lose()

    return wrong


# --- driving -----------------------------------------------------------------------------------------------


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


@mutant(Driver, "run", DEFECTS)
def a_defect_of_a_driver_is_silent(right: Any) -> Any:
    async def wrong(self: Driver) -> None:
        with suppress(RuntimeError):
            await right(self)

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


@mutant(Performer, "_context", RETURNS)
def what_is_done_again_has_the_key_of_what_was_undone(right: Any) -> Any:
    def wrong(self: Performer, *arguments: Any) -> Any:
        ctx = right(self, *arguments)
        return replace(ctx, idempotency_key=ctx.idempotency_key.partition("~")[0])

    return wrong


@mutant(Performer, "_confirm", DECISIONS)
def what_is_committed_is_not_confirmed(right: Any) -> Any:
    async def wrong(self: Performer, *arguments: Any) -> Nothing:
        return Nothing()

    return wrong


@mutant(deciding, "rewound", DECISIONS)
def a_decision_outlives_a_rewind(right: Any) -> Any:
    return lambda row: []


@mutant(SagaChildren, "undo", FAMILIES)
def a_child_is_not_undone_with_its_parent(right: Any) -> Any:
    async def wrong(self: SagaChildren, child: Any) -> None:
        return None

    return wrong


@mutant(Finish, "rest", DECISIONS)
def the_confirms_do_not_wait_for_the_decision(right: Any) -> Any:
    def wrong(self: Finish, steps: Any) -> Any:
        return right(self, [step for step in steps if step.step_id != DECISION])

    return wrong


@mutant(tenure.Past, "_learn_event", PARTS)
def a_new_owner_forgets_which_parts_are_done(right: Any) -> Any:
    def wrong(self: tenure.Past, row: Any) -> None:
        if not (isinstance(row, HistoryRow) and row.step_id.startswith(ONCE)):
            right(self, row)

    return wrong


@mutant(tenure, "patiently", OUTAGES)
def a_history_that_cannot_be_read_is_taken_for_an_empty_one(right: Any) -> Any:
    async def wrong(read: Callable[[], Any], *others: Any) -> Any:
        try:
            return await read()
        except ConnectionError:
            return defaultdict(list)

    return wrong


@mutant(SagaAdmin, "_call", ACTIONS)
def a_hook_is_called_before_its_action_is_claimed(right: Any) -> Any:
    async def wrong(self: SagaAdmin[Any], dirty: Any, order: Any) -> Any:
        head = await self._engine.store.head(dirty.saga_id)
        definition = head and self._engine.registry.find(head.saga_name, head.definition_version)
        if definition and order.calls:
            await failing.call_hook(definition.failure, FailureAction(order.action), dirty)
        return await right(self, dirty, order)

    return wrong


# --- payloads ----------------------------------------------------------------------------------------------


@mutant(Payloads, "dump", DOUBT)
def what_reads_back_as_something_else_is_kept(right: Any) -> Any:
    def wrong(self: Payloads, value: Any, *, model: Any = None, **said: Any) -> Any:
        return right(self, value, **said)

    return wrong


# --- the kernel --------------------------------------------------------------------------------------------


@mutant(claim, "_lost", DOUBT)
def a_lost_attempt_is_not_in_doubt(right: Any) -> Any:
    return lambda draft, step_id, status: draft.start(step_id, status.attempt, status.failures)


@mutant(rewind, "_is_gone", RETURNS)
def a_rewind_goes_forward_before_all_is_undone(right: Any) -> Any:
    return lambda draft, step_id: True


@mutant(rewind, "_spent", RETURNS, seed=9)
def a_rewind_forgets_how_far_it_has_counted(right: Any) -> Any:
    return lambda draft, rewound: {}


@mutant(backward_orders, "undo_is_closed", RETURNS)
def an_undo_window_never_closes(right: Any) -> Any:
    return lambda draft, order: ""


@mutant(claim, "take_over", DOUBT)
def a_lost_attempt_is_taken_for_a_failed_one(right: Any) -> Any:
    def wrong(draft: Any) -> None:
        for step_id, status in tuple(draft.open.items()):
            if isinstance(status, Running):
                draft.start(step_id, status.attempt + 1, status.failures + 1)

    return wrong
