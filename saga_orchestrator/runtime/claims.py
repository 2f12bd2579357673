"""What is decided under a row's lock: may this engine have the saga, what does an event from outside do to it.

The functions here are judges (`storage.rows.Judge`): pure but for the fresh token that they hand out, so the store
may run them again. None of them raises for what a row says. A row that makes no sense is quarantined, so that it
stops nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..definition.failure import FailureAction
from ..definition.graph import Graph, Node
from ..definition.io import Payloads
from ..definition.saga import SagaDefinition
from ..errors import ActiveSagaAlreadyExistsError, IdempotencyConflictError, SagaStateError
from ..kernel.codec import NewerStateError, UnreadableStateError, decode
from ..kernel.effects import Verdict
from ..kernel.events import Claimed, Doubted, Event
from ..kernel.laws import STRUCTURAL_LAWS
from ..kernel.order_events import (
    AbortOrdered,
    ActionEnded,
    CompensateOrdered,
    FailureOrdered,
    Order,
    RewindOrdered,
    WaiveOrdered,
)
from ..kernel.state import SagaStatus, State
from ..storage.contract import Store
from ..storage.rows import Birth, Head, Move, Ownership
from .birth import Beginning, born, equal, unborn
from .error_text import describe
from .moves import (
    Fold,
    Grip,
    compose,
    fold,
    fold_on,
    is_at_work,
    is_left_to_act,
    left_by_owner,
    let_go,
    read_state,
    released,
    taken,
)
from .registry import Registry
from .tenure import Tenure, initial_of

ENGINE = "engine"
"""Who has given an order that the definition gives."""
CHANGED = "definition"
"""The `awaiting` of a saga that this process leaves alone, because its definition has changed."""
CUT_OFF = "owner:"
"""How the `awaiting` of an aborted saga begins; then follows when the lease of its former owner ends."""
_LOST = "given up: its owner is gone, and its hook is not registered where the saga was given up; it may have acted"
"""The error of an action that another order has ended."""
_DEFERRED = timedelta(minutes=1)
"""How long a saga that this process cannot run, although it knows its name and version, is left to others."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The judges of one engine."""

    registry: Registry
    owner: str
    lease: timedelta
    payloads: Payloads
    is_given_up: Callable[[Head], bool] = lambda _: False
    """Returns whether this engine has given a saga up because of the database, and not in a crash."""

    def born(self, wanted: Beginning, now: datetime) -> tuple[Birth, State | None]:
        """Return a newborn saga, and its state if it is this engine that begins it."""
        if wanted.saga_name in self.registry.held:
            return unborn(wanted, now), None
        return born(wanted, now, self.owner, self.lease)

    def judge(self, head: Head, now: datetime) -> Move | None:
        """Take a due saga if it has work, or put it back until it has; set aside what cannot be run."""
        definition = self.registry.find(head.saga_name, head.definition_version)
        if definition is None or head.saga_name in self.registry.held:
            return None
        if head.fingerprint != definition.fingerprint:
            self.registry.warn_changed(head.saga_name, head.definition_version)
            return _set_aside(head, now, now + _DEFERRED, _changed(head), waiting=CHANGED)
        try:
            return self._claim(head, definition, now)
        except NewerStateError as error:
            return _set_aside(head, now, now + _DEFERRED, f"deferred: {error}")
        except Exception as error:  # noqa: BLE001 - what is wrong with this row must not reach the others
            is_open = self.payloads.codec is None
            why = f"quarantined: {error}" if is_open else describe(error, "quarantined", self.payloads)
            return _set_aside(head, now, None, why)

    def judge_if_due(self, head: Head, now: datetime) -> Move | None:
        """Judge a saga that was named, not found: nobody takes it before it is due.

        A newborn that nobody has had yet is due, even if it was born by a clock that is a little ahead of this one.
        """
        if head.deadline_at is None:
            return None
        is_newborn = head.revision == 0 and head.lease_owner is None
        return self.judge(head, now) if is_newborn or head.deadline_at <= now else None

    def _claim(self, head: Head, definition: SagaDefinition, now: datetime) -> Move:
        state = _sound_state(definition, head)
        event = Claimed(crashed=head.lease_owner is not None and not self.is_given_up(head))
        done = fold(definition.graph, state, head.last_error, [event], now)
        if state.action is None and is_left_to_act(definition, done.state):
            done = fold_on(definition.graph, done, [by_definition(definition)], now)
        move = self.owned(head, definition, done, now)
        is_put_back = done.state == state and state.action is None and not is_at_work(state)
        return _with_token_of(head, move) if is_put_back else move

    def owned(self, head: Head, definition: SagaDefinition, done: Fold, now: datetime) -> Move:
        """Return the move that takes the saga if it has work, or an action under way, and releases it otherwise."""
        if is_at_work(done.state):
            ownership = taken(self.owner, now + self.lease)
        elif done.state.action is not None:
            finished = (head.finished_at or now) if head.status.is_terminal else None
            ownership = taken(self.owner, now + self.lease)._replace(finished_at=finished)
        else:
            ownership = released(definition.graph, done.state, now)
        return compose(grip_of(head, definition), done, now, ownership)

    def aborted(self, head: Head, definition: SagaDefinition, before: State, done: Fold, now: datetime) -> Move:
        """Return the move of an abort; it says until when another process may be at work on what it cuts off."""
        move = self.owned(head, definition, done, now)
        is_elsewhere = is_at_work(before) and head.lease_owner not in (None, self.owner)
        if not is_elsewhere or head.deadline_at is None or head.deadline_at <= now or move.ownership is None:
            return move
        return move._replace(ownership=move.ownership._replace(awaiting=f"{CUT_OFF}{head.deadline_at.isoformat()}"))

    def moved(self, head: Head, definition: SagaDefinition, before: State, done: Fold, now: datetime) -> Move:
        """Return the move that leaves a saga at work to its owner, as long as it is, and else takes it if it is now."""
        if head.deadline_at is not None and is_left_to_act(definition, done.state) and head.status.is_terminal:
            return compose(grip_of(head, definition), done, now, None)
        if not is_at_work(before):
            return self.owned(head, definition, done, now)
        return compose(grip_of(head, definition), done, now, left_by_owner(definition, done.state, now))

    def known(self, head: Head) -> SagaDefinition | None:
        """Return the definition that a saga was started with; None if this process does not have it, step by step."""
        definition = self.registry.find(head.saga_name, head.definition_version)
        return definition if definition is not None and definition.fingerprint == head.fingerprint else None

    def is_changed(self, head: Head) -> bool:
        """Return whether this process has another definition under the version that a saga was started with."""
        return self.registry.find(head.saga_name, head.definition_version) is not None and self.known(head) is None

    def sound(self, head: Head) -> tuple[SagaDefinition, State] | None:
        """Return the definition and the state of a row; None if this process does not know it, or it makes no sense."""
        definition = self.known(head)
        if definition is None:
            return None
        try:
            return definition, _sound_state(definition, head)
        except ValueError:
            return None

    def tenure(self, head: Head, move: Move, store: Store, lease_until: float) -> Tenure:
        """Return the tenure that a move has begun."""
        definition = self.registry.find(head.saga_name, head.definition_version)
        assert definition is not None
        assert move.ownership is not None
        assert move.ownership.token is not None
        state = _state_of(move, definition, head)
        return Tenure(
            head.id,
            head.saga_name,
            head.aggregation_id,
            head.trace_id,
            definition,
            move.ownership.token,
            move.revision + 1,
            state,
            move.last_error,
            initial_of(head),
            store,
            lease_until,
            past_is_known=not state.recorded,
            parent_id=head.parent_id,
        )

    def rival(self, wanted: Beginning, birth: Birth, found: Head | None) -> Head:
        """Return the saga that answers a repeated start.

        Raises:
            ActiveSagaAlreadyExistsError: It is another saga of the aggregate.
            IdempotencyConflictError: The key has started a saga that is not the one wanted now.
            SagaStateError: There is none: something else stands in this start's way.
        """
        if found is None:
            raise SagaStateError(
                f"A saga for aggregation_id {birth.head.aggregation_id!r} could not be started, and none is active: "
                "something else of its row is taken, perhaps a value in a unique column of your own."
            )
        key = birth.head.idempotency_key
        if key is None or (found.saga_name, found.idempotency_key) != (birth.head.saga_name, key):
            raise ActiveSagaAlreadyExistsError(birth.head.aggregation_id, found.id)
        if wanted.on_conflict == "refuse" and (difference := self._difference(wanted, found)) is not None:
            raise IdempotencyConflictError(key, found.id, difference)
        return found

    def _difference(self, wanted: Beginning, found: Head) -> str | None:
        """Return how a saga differs from the one that is wanted under its key; None if both are the same start."""
        if found.aggregation_id != wanted.aggregation_id:
            return f"for aggregation_id {found.aggregation_id!r} and not {wanted.aggregation_id!r}"
        try:
            is_same = equal(self.payloads.load(initial_of(found)), self.payloads.load(wanted.initial))
        except (KeyError, TypeError, ValueError):  # a PayloadError is a ValueError
            return "with initial_data that cannot be read here"
        return None if is_same else "with other initial_data"


@dataclass
class Intake:
    """An event from outside, on its way to one saga."""

    claims: Claims
    event: Event
    verdict: Verdict = field(default=Verdict.UNMATCHED, init=False)
    reason: str = field(default="", init=False)
    is_early: bool = field(default=False, init=False)
    """Whether it was refused only because the former owner of an aborted saga may still be at work."""

    def judge(self, head: Head, now: datetime) -> Move | None:
        """Decide the event; take the saga when it is nobody's and the event has set it going."""
        definition = self._definition(head)
        state = _readable(definition, head)
        event = self.event_for(head, definition, state)
        if event is None:
            self.verdict = Verdict.STALE
            return None
        if begins_work(event) and (until := cut_off_until(head)) is not None and until > now:
            self.verdict, self.reason, self.is_early = Verdict.REFUSED, _still_at_work(until), True
            return None
        events = [*self._end_of_lost_action(head, definition, state, now), event]
        done = fold(definition.graph, state, head.last_error, events, now)
        self.verdict, self.reason = done.verdict, done.reason
        is_to_write = done.moved and done.verdict is not Verdict.REFUSED
        return self._move(head, definition, state, done, now) if is_to_write else None

    def _move(self, head: Head, definition: SagaDefinition, state: State, done: Fold, now: datetime) -> Move:
        if head.status.is_terminal and head.deadline_at is not None and definition.is_unknown:
            return compose(grip_of(head, definition), done, now, None)  # its hook is left to a process that has it
        if isinstance(self.event, Doubted) and head.status.is_terminal:
            rests = let_go(definition, done.state, now)
            awaiting = rests.awaiting if cut_off_until(head) is None else head.awaiting
            rests = rests._replace(finished_at=head.finished_at, awaiting=awaiting)
            return compose(grip_of(head, definition), done, now, rests)
        if isinstance(self.event, AbortOrdered):
            return self.claims.aborted(head, definition, state, done, now)
        if isinstance(self.event, FailureOrdered):
            return self.claims.owned(head, definition, done, now)
        move = self.claims.moved(head, definition, state, done, now)
        if isinstance(self.event, WaiveOrdered) and move.ownership is not None and cut_off_until(head) is not None:
            return move._replace(ownership=move.ownership._replace(awaiting=head.awaiting))
        return move

    def raise_if_refused(self, head: Head) -> None:
        """Raise what an operator is to read.

        Raises:
            SagaStateError: The order was refused.
        """
        if self.verdict is Verdict.REFUSED:
            raise SagaStateError(f"Saga {head.id} ({head.saga_name}): refused, {self.reason}.")

    def event_for(self, head: Head, definition: SagaDefinition, state: State) -> Event | None:
        """Return the event that is meant for a saga in this state; None if none is."""
        if isinstance(self.event, CompensateOrdered | RewindOrdered):
            return replace(self.event, finished_at=head.finished_at)
        if isinstance(self.event, FailureOrdered):
            return replace(self.event, again=head.deadline_at is not None and is_left_to_act(definition, state))
        return self.event

    def _end_of_lost_action(
        self, head: Head, definition: SagaDefinition, state: State, now: datetime
    ) -> tuple[ActionEnded, ...]:
        """Return the end of an action whose owner is gone, and whose hook this process does not have to call again."""
        is_owned = head.lease_owner is not None and head.deadline_at is not None and head.deadline_at > now
        if not definition.is_unknown or state.action is None or is_owned:
            return ()
        return (ActionEnded(in_doubt=True, error=_LOST, actor=state.action.actor, reason=state.action.reason),)

    def _definition(self, head: Head) -> SagaDefinition:
        definition = self.claims.known(head)
        if definition is None and (definition := self._stand_in(head)) is None:
            if self.claims.is_changed(head):
                raise SagaStateError(f"Saga {head.id} is {_changed(head)}.")
            raise SagaStateError(
                f"Saga {head.id} was started with version {head.definition_version} of '{head.saga_name}', which this "
                "process does not know; register that definition to give orders to the saga, or abort it."
            )
        return definition

    def _stand_in(self, head: Head) -> SagaDefinition | None:
        """Return what is known of a saga without its definition, for an order that can be carried out by that."""
        if isinstance(self.event, AbortOrdered):
            return unknown_definition(head)
        is_halted = head.status is SagaStatus.FAILED
        return unknown_definition(head) if isinstance(self.event, WaiveOrdered) and is_halted else None


def begins_work(event: Event) -> bool:
    """Return whether an order may call code of the author's for a saga that is over."""
    return isinstance(event, Order) and not isinstance(event, WaiveOrdered | ActionEnded)


def cut_off_until(head: Head) -> datetime | None:
    """Return until when the former owner of an aborted saga may be at work on it; None if none may."""
    said = head.awaiting or ""
    return datetime.fromisoformat(said.removeprefix(CUT_OFF)) if said.startswith(CUT_OFF) else None


def _still_at_work(until: datetime) -> str:
    return (
        f"it was aborted while another process was at work on it, which may go on until {until:%H:%M:%S} UTC; what is "
        "done before that could be done twice. Try again then"
    )


def by_definition(definition: SagaDefinition) -> FailureOrdered:
    """Return the order of an action that no operator has given, but the definition."""
    action = definition.failure.action
    closes, reason = action is FailureAction.CLOSE_ALL, f"on_failure={action.value}"
    return FailureOrdered(action=action.value, calls=True, closes=closes, again=True, actor=ENGINE, reason=reason)


def unknown_definition(head: Head) -> SagaDefinition:
    """Return a definition of the steps that a row names: each may have acted, and none can be run or undone.

    Raises:
        SagaStateError: The row's state cannot be read.
    """
    try:
        state = decode(head.state)
    except ValueError as error:
        raise SagaStateError(f"Saga {head.id}: {error}. Only a change of the row itself can mend this.") from error
    back_to = () if state.rewind is None else (state.rewind.to,)
    names = dict.fromkeys((*(step_id for step_id, _ in state.all()), *state.fans, *state.stops, *back_to))
    return SagaDefinition((), Graph.of(*(Node(step_id=step_id) for step_id in names)), is_unknown=True)


def grip_of(head: Head, definition: SagaDefinition) -> Grip:
    """Return what is known of a row that has just been read."""
    return Grip(definition, head.id, head.revision, head.step_execution_token, head.parent_id)


def _sound_state(definition: SagaDefinition, head: Head) -> State:
    """Return the state of a row that a saga of this definition could have.

    Raises:
        UnreadableStateError: It could not; somebody has edited it.
    """
    state = read_state(definition, head)
    if definition.is_unknown:
        return state
    graph = definition.graph.unfolded(state.fans)
    for law in STRUCTURAL_LAWS:
        if not law(graph, state):
            raise UnreadableStateError(f"no saga can be in this state, for it breaks a law. {law.__doc__}")
    try:
        initial_of(head)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableStateError(f"its context has no initial_data ({error!r})") from error
    return state


def _readable(definition: SagaDefinition, head: Head) -> State:
    try:
        return _sound_state(definition, head)
    except ValueError as error:
        raise SagaStateError(f"Saga {head.id}: {error}. Only a change of the row itself can mend this.") from error


def _changed(head: Head) -> str:
    return (
        f"deferred: version {head.definition_version} of '{head.saga_name}' has other steps in this process than those "
        "that the saga was started with; give the changed definition a higher version and keep this one registered"
    )


def _with_token_of(head: Head, move: Move) -> Move:
    """Put a row back without ending its wait: the token that somebody may hold stays good."""
    if move.ownership is None or head.step_execution_token is None:
        return move
    return move._replace(ownership=move.ownership._replace(token=head.step_execution_token))


def _set_aside(head: Head, now: datetime, until: datetime | None, why: str, waiting: str | None = None) -> Move:
    """Put a row back as it is: for later, or for a person to look at."""
    status = head.status if until is not None else SagaStatus.STUCK
    waiting = waiting or (head.awaiting if until is not None else "operator")
    shown = why if until is None or head.last_error is None else head.last_error  # a deferral hides no other error
    ownership = Ownership(head.step_execution_token, None if until is None else head.lease_owner, until, waiting, None)
    place = head.current_step_index, head.retry_counter
    token = head.step_execution_token
    return Move(head.id, head.revision, token, status, head.state, *place, shown, now, ownership, ())


def _state_of(move: Move, definition: SagaDefinition, head: Head) -> State:
    return read_state(definition, replace(head, state=move.state))
