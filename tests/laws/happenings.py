"""What can happen to a saga from outside, in any order: what goes well, what goes wrong, and what operators order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

JUMPS = (timedelta(seconds=1), timedelta(seconds=40), timedelta(hours=1), timedelta(seconds=-20))


def work_ends(world: World) -> None:
    mine = [flight for flight in world.flights if flight.owner == world.owner]
    if mine:
        world.perform(world.tape.pick(mine))
    elif not world.is_at_rest():
        time_passes(world)


def work_acts(world: World) -> None:
    """Work takes effect, or does so too late, and nobody is told."""
    late = world.k.Probe | world.k.Collect
    acting = [f for f in world.flights if not isinstance(f.work, late) and not world.node(f.work.step_id).transactional]
    if acting:
        flight = world.tape.pick(acting)
        if isinstance(flight.work, world.k.Execute):
            world.ledger.act(flight)
        else:
            world.ledger.undo(flight.key)
    else:
        a_commit_is_told(world)


def a_commit_is_told(world: World) -> None:
    """A step in one transaction has committed by itself, for an owner of now or of old, and it is told."""
    k = world.k
    may_be_clean = k.Running | k.Retrying | k.Failed
    late = [
        f
        for f in world.flights
        if isinstance(f.work, k.Execute)
        and world.node(f.work.step_id).transactional
        and f.key == world.key(f.work.step_id)
        and f.key not in world.ledger.closed
        and isinstance(world.state.of(f.work.step_id), may_be_clean)
    ]
    if late:
        flight = world.tape.pick(late)
        told = k.Doubted(flight.work.step_id, flight.work.attempt, "its own COMMIT")
        if will_apply(world, told):
            world.flights.remove(flight)
            world.ledger.standing.add(flight.key)
        world.tell(told)


def time_passes(world: World) -> None:
    due = world.k.wake_at(world.state)
    jumps = JUMPS if due is None else (due - world.now, *JUMPS)
    world.now += world.tape.pick(jumps)
    if world.k.outstanding(world.state):
        world.happen(world.k.Ticked())
        world.check_timers()
    else:
        world.wake()


def clock_jumps(world: World) -> None:
    """Nobody looks at the clock yet: the next event comes late, or early."""
    world.now += world.tape.pick(JUMPS)


def owner_crashes(world: World) -> None:
    if world.k.is_live(world.state) or world.state.action is not None:
        world.change_owner(world.k.Claimed(crashed=True))


def owner_lets_go(world: World) -> None:
    world.wake()


def reply_is_repeated(world: World) -> None:
    if world.said:
        world.happen(world.tape.pick(world.said))


def reply_is_foreign(world: World) -> None:
    k, tape = world.k, world.tape
    step_id = tape.pick((*world.graph.nodes, "nowhere"))
    attempt = getattr(world.state.of(step_id), "attempt", 1) + tape.pick((1, -1, 7))
    replies = (k.Raised(step_id, attempt), k.Compensated(step_id, attempt), k.CompensationRaised(step_id, attempt))
    world.happen(tape.pick((*replies, k.Probed(step_id, attempt, k.ProbeOutcome.DONE), k.Returned("nowhere", 1))))


def somebody_notifies(world: World) -> None:
    world.tell(world.k.Notified())


def operator_orders(world: World) -> None:
    k, tape = world.k, world.tape
    step_id = tape.pick((*k.residue(world.definition, world.state), *world.graph.nodes, "nowhere"))
    finished = world.now if world.status.is_terminal else None
    orders = (
        k.RetryOrdered(step_id=tape.pick((None, step_id))),
        k.SkipOrdered(step_id=tape.pick((None, step_id)), acted=tape.happens(2)),
        k.CompensateOrdered(),
        k.CompensateOrdered(finished_at=finished),
        k.CompensateOrdered(by_parent=True),
        k.CancelOrdered(),
        k.WaiveOrdered(step_id=step_id, actor=tape.pick(("ann", None))),
        k.AbortOrdered(),
        k.RewindOrdered(step_id=step_id, finished_at=finished),
        k.RewindOrdered(step_id=tape.pick((*world.graph.nodes, "nowhere")), finished_at=finished),
        about_failure(world),
    )
    order = tape.pick(orders)
    give(world, order, step_id)
    if isinstance(order, k.FailureOrdered) and order.actor == "ann" and world.state.action is not None:
        give(world, k.ActionEnded(came_off=True, actor="ann"), step_id)


def about_failure(world: World) -> Any:
    """Return the order that claims an action, or the end of the one that is under way.

    Ann's hooks come off at once; those of others stay under way.
    """
    k, actor = world.k, world.tape.pick(("ann", None))
    if world.state.action is not None:
        return k.ActionEnded(came_off=actor is not None, error="no", actor=actor)
    if actor is None:
        return k.FailureOrdered(action="CLOSE_ALL", calls=True, closes=True, actor="bob")
    return k.FailureOrdered(action="CLOSE_ALL", calls=True, closes=True, actor=actor)


def operator_holds(world: World) -> None:
    """Hold the saga, or let it go on, or make it take one step."""
    k, tape = world.k, world.tape
    step_id = tape.pick((*world.graph.nodes, "nowhere"))
    stop = k.PauseOrdered(step_id=step_id)
    of_paused = (k.StepOrdered(), k.ResumeOrdered(), stop, k.StepOrdered(), k.PauseOrdered(), k.RetryOrdered())
    of_others = (k.PauseOrdered(), stop, stop, k.ResumeOrdered(), k.StepOrdered())
    give(world, tape.pick(of_paused if world.state.paused else of_others), step_id)


def give(world: World, order: Any, step_id: str) -> None:
    """Give an order, and make true what it says of the step."""
    k, ledger, before = world.k, world.ledger, world.state
    if isinstance(order, k.SkipOrdered):
        prepare_by_hand(world, order)
    elif isinstance(order, k.WaiveOrdered) and will_apply(world, order):
        ledger.waived.add(world.key(step_id))
    elif isinstance(order, k.ActionEnded) and will_apply(world, order):
        after = k.decide(world.graph, world.state, order, now=world.now).state
        ledger.waived |= {world.key(i) for i, status in after.all() if isinstance(status, k.Waived)}
    decision = world.tell(order)
    after = decision.state
    is_let_go = before.paused and not after.paused
    if is_let_go and any(is_due(s, world.now) for s in after.open.values()):
        world.blame("what is due when a pause ends is due at once")
    if decision.verdict is k.Verdict.APPLIED and facts(after) == facts(before):
        world.blame("an order that is carried out changes something")


def is_due(status: Any, now: datetime) -> bool:
    """Return whether a rest should have come to its end by now."""
    until = None if status.is_live else getattr(status, "until", None)
    return until is not None and until <= now


def facts(state: Any) -> tuple[Any, ...]:
    """Return what an order may change."""
    return dict(state.all()), state.course, state.quarantined, state.rewind, state.paused, state.stops, state.action


def will_apply(world: World, order: Any) -> bool:
    return world.k.decide(world.definition, world.state, order, now=world.now).verdict is world.k.Verdict.APPLIED


def prepare_by_hand(world: World, order: Any) -> None:
    """Make true what an operator says of a step: that it was done by hand, or that it was not and never will be."""
    would_be = world.k.decide(world.definition, world.state, order, now=world.now)
    if would_be.verdict is not world.k.Verdict.APPLIED:
        return
    (step_id,) = [record.step_id for record in would_be.records if record.skipped]
    world.forget(step_id)
    if order.acted:
        world.ledger.standing.add(world.key(step_id))
    else:
        world.ledger.standing.discard(world.key(step_id))


def an_event_comes(world: World) -> None:
    if world.tape.is_of_waits:
        world.send()
    else:
        work_ends(world)


HAPPENINGS: tuple[Callable[[World], None], ...] = (
    *(work_ends,) * 9,
    time_passes,
    work_acts,
    owner_crashes,
    time_passes,
    operator_orders,
    owner_lets_go,
    clock_jumps,
    reply_is_repeated,
    work_acts,
    owner_crashes,
    operator_orders,
    reply_is_foreign,
    somebody_notifies,
    an_event_comes,
    an_event_comes,
)
HAPPENINGS_WITH_PAUSES = (*HAPPENINGS, *(operator_holds,) * 6)
