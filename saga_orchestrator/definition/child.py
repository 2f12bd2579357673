"""A saga that another saga starts and waits for: a child, with a row and a life of its own.

The step that starts it begins in a transaction of its own, so the child is there if, and only if, its parent waits for
it: no crash leaves a child that nobody knows, and none is started twice. From then on the step only looks. What wakes
it is a letter that the child's end has left; what it goes by is how the child stands when it looks, so a letter that
is late, or one of several, does no harm.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import to_json

from ..errors import OutcomeUnknown, PermanentError, SagaDefinitionError
from .awaited import then
from .context import StepContext
from .graph import StepKind
from .io import reasons
from .options import StepOptions
from .parts import SagaInput
from .readers import find_twins, reader_of
from .step import BaseStep, OutputT, StepDefinition
from .waiting import Event, WaitFor, check_event_name

ENDED = "saga.ended"
"""The type of the event by which a child tells its parent that it is over."""


_LATER = timedelta(minutes=1)


class Child(NamedTuple):
    """How a child stands.

    Attributes:
        is_known: This process has the child's definition, and can tell what it has come to.
        output: Of one that is COMPLETED: what its last step returned, as plain JSON values.
        error: Of one that has failed, what turned it.
        standing: Of one that is over, the steps whose effects stand.
    """

    saga_id: UUID
    status: str
    is_over: bool
    output: Any = None
    error: str | None = None
    standing: tuple[str, ...] = ()
    is_known: bool = True


class ChildKey(NamedTuple):
    """What a child is known by: its saga's name, and the key that it was started under."""

    saga_name: str
    key: str


class Children(Protocol):
    """The children of the sagas of one process."""

    async def begin(self, ctx: StepContext, child: ChildKey, initial_data: Any, *, detached: bool) -> UUID:
        """Start a child in the step's own transaction, once; return its id.

        Raises:
            PermanentError: No saga of this name is registered.
        """
        ...

    async def look(self, child: ChildKey) -> Child | None:
        """Return how a child stands; None if there is none."""
        ...

    async def undo(self, child: ChildKey) -> Child | None:
        """Have a child undone, if anything of it stands or may come to; return how it stands then.

        Raises:
            SagaStateError: It can only go forward.
        """
        ...


class Kin(NamedTuple):
    """What a step is given to have a child by.

    Attributes:
        begun_under: The idempotency key of the step's first call, whatever call this is.
        failures: How often the step, or its undo, has failed before.
    """

    children: Children
    begun_under: str
    failures: int


class StartedSaga(RootModel[UUID]):
    """The id of a saga that was started, and that nobody waits for."""


class _Child(BaseStep[SagaInput, OutputT]):
    """Starts a saga, waits for its end, and returns what it has come to."""

    transactional = True
    _begins_only = True

    def __init__(self, saga_name: str) -> None:
        self.saga_name = saga_name

    async def execute(self, inp: SagaInput, ctx: StepContext) -> OutputT | WaitFor:
        return awaited(await begun(ctx, self.saga_name, inp, detached=False))

    async def on_event(self, inp: SagaInput, event: Event[Any], ctx: StepContext) -> OutputT | WaitFor | None:
        children, key, failures = kin_of(ctx)
        child = ChildKey(self.saga_name, key)
        if ctx.phase == "compensate":
            found = None if event.timed_out or failures else await children.look(child)
            if found is None or (found.is_over and found.status == "COMPLETED"):  # an operator had it go on meanwhile
                found = await children.undo(child)
            return undone(found)
        return self._come_to(await children.look(child))

    def _come_to(self, child: Child | None) -> OutputT | WaitFor:
        """Return the child's output.

        Raises:
            PermanentError: It has none, and nothing of it stands.
            OutcomeUnknown: It has none, and something of it stands.
        """
        if child is None:
            raise PermanentError(f"the row of its child, a saga '{self.saga_name}', is gone")
        if not child.is_over:
            return awaited(child.saga_id, is_known=child.is_known)
        if child.status == "COMPLETED":
            return fitted(self.output_model, child)
        failed = f"child saga {child.saga_id} ('{self.saga_name}') is {child.status}: {child.error}"
        if child.standing:
            raise OutcomeUnknown(f"{failed}. What stands: {', '.join(child.standing)}")
        raise PermanentError(failed)


class _UndoableChild(_Child[OutputT]):
    """Such a step whose child is undone with its parent."""

    async def compensate(self, inp: SagaInput, out: OutputT | None, ctx: StepContext) -> WaitFor | None:
        children, key, _ = kin_of(ctx)
        return undone(await children.undo(ChildKey(self.saga_name, key)))


class DetachedSaga(BaseStep[SagaInput, StartedSaga]):
    """Starts a saga, and goes on."""

    transactional = True
    _begins_only = True

    def __init__(self, saga_name: str) -> None:
        self.saga_name = saga_name

    async def execute(self, inp: SagaInput, ctx: StepContext) -> StartedSaga:
        return StartedSaga(await begun(ctx, self.saga_name, inp, detached=True))


def child_step(
    saga_name: str, model: type[BaseModel] | None, options: StepOptions, *, detached: bool
) -> BaseStep[SagaInput, Any]:
    """Return the step that starts a child, and, unless it is detached, waits for its end.

    It undoes the child where the options leave anything to undo; a detached child it never does.

    Raises:
        SagaDefinitionError: The name is no name, or a model is given for a child that nobody waits for.
    """
    check_event_name("The name of a child saga", saga_name)
    if detached and model is not None:
        raise SagaDefinitionError(f"Child saga '{saga_name}' is detached: its output is its id; drop output_model.")
    if detached:
        if options.get("kind") in (None, StepKind.COMPENSATABLE):
            options.setdefault("compensation", None)
        return DetachedSaga(saga_name)
    is_undoable = "compensation" not in options and options.get("kind") in (None, StepKind.COMPENSATABLE)
    base: Any = (_UndoableChild if is_undoable else _Child)[model or RootModel[Any]]
    made: BaseStep[SagaInput, Any] = types.new_class("ChildSaga", (base,))(saga_name)
    return made


def certain_children(steps: Iterable[StepDefinition]) -> dict[str, str]:
    """Return the sagas that these steps start and wait for, whatever is chosen; each with the id of such a step."""
    certain = (each for each in steps if not each.node.branches)
    return {each.step.saga_name: each.step_id for each in certain if isinstance(each.step, _Child)}


def given(input_map: Callable[..., Any]) -> Callable[..., Any]:
    """Return the `input_map` of a step that starts a saga with what this one makes."""
    return lambda *arguments: then(input_map(*arguments), SagaInput)


def kin_of(ctx: StepContext) -> Kin:
    """Return what a step is given to have a child by."""
    found: Kin = ctx._kin  # noqa: SLF001 - hidden from authors of steps, not from this one
    return found


async def begun(ctx: StepContext, saga_name: str, inp: SagaInput, *, detached: bool) -> UUID:
    """Start the step's child; return its id."""
    children, key, _ = kin_of(ctx)
    return await children.begin(ctx, ChildKey(saga_name, key), inp.root, detached=detached)


def awaited(child: UUID, *, is_known: bool = True) -> WaitFor:
    """Return the wait for a child's end; a child that this process does not know is looked at again a little later."""
    return WaitFor(ENDED, correlation_id=str(child), timeout=None if is_known else _LATER, on_timeout="resume")


def undone(child: Child | None) -> WaitFor | None:
    """Return the wait for a child that is on its way back, and None for one of which nothing is left.

    Raises:
        PermanentError: It is over, and something of it stands.
    """
    if child is None or (child.is_over and not child.standing):
        return None
    if not child.is_over:
        return awaited(child.saga_id, is_known=child.is_known)
    raise PermanentError(
        f"child saga {child.saga_id} is {child.status}, and not undone. What stands: {', '.join(child.standing)}. "
        "Compensate its parent to have that tried again, or waive it in the child first"
    )


def fitted(model: type[OutputT], child: Child) -> OutputT:
    """Return a child's output as the model that its parent wants. It was stored by the names of its fields.

    Raises:
        PermanentError: It does not fit.
    """
    try:
        found: OutputT = reader_of(model).validate_json(
            to_json(child.output), by_alias=find_twins(model) is None, by_name=True
        )
    except ValidationError as error:
        raise PermanentError(
            f"child saga {child.saga_id} is COMPLETED, and its output does not fit {model.__name__}: "
            f"{reasons(error, model)}"
        ) from error
    return found
