"""How a saga is finished, as it is written down: what `build` adds, and what it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator import (
    BaseStep,
    Event,
    ExponentialRetry,
    FixedRetry,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    StepContext,
    StepKind,
    TypeValidationError,
    WaitFor,
)
from saga_orchestrator.definition.constant import Nothing
from saga_orchestrator.definition.finish import COMMIT, DECISION, REJECT, Confirm, Decide, Decision

from .sums import Final, Loose, Pay, Sum

HOUR = timedelta(hours=1)


class Hold(Pay):
    """Holds a sum, and takes it when it is confirmed."""

    async def confirm(self, inp: Sum, out: Sum) -> None:
        raise NotImplementedError


def steps(
    *named: tuple[str, BaseStep[Any, Any]], settings: dict[str, Any] | None = None, **more: Any
) -> SagaDefinition:
    """Return a definition of these steps, one after the other; all are added with the same keywords."""
    builder = SagaBuilder(**settings or {})
    for step_id, step in named:
        builder.add_step(step=step, input_map=lambda ctx: Sum(), step_id=step_id, **more)
    return builder.build()


def added(definition: SagaDefinition) -> list[tuple[str, StepKind, tuple[str, ...]]]:
    """Return what the author has not written: each step's id, its kind, and what it comes after."""
    nodes = [definition.graph.nodes[step.step_id] for step in definition.steps if step.is_finish]
    return [(node.step_id, node.kind, node.after) for node in nodes]


def test_m14_nothing_is_added_to_a_saga_that_confirms_nothing() -> None:
    """A definition without confirm is what it was, and so is its fingerprint."""
    definition = steps(("pay", Pay()), ("mail", Loose()))

    assert added(definition) == []
    assert definition.written == definition.steps
    assert definition.commit == "auto"


def test_m14_confirms_come_after_a_point_of_no_return_that_comes_after_all() -> None:
    """They stand side by side; a step without confirm has none, and neither it nor the last step need an undo more."""
    builder = SagaBuilder()
    with builder.parallel():
        builder.add_step(step=Hold(), input_map=lambda ctx: Sum(), step_id="money")
        builder.add_step(step=Hold(), input_map=lambda ctx: Sum(), step_id="goods")
        builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="mail")
    definition = builder.build()

    assert added(definition) == [
        (COMMIT, StepKind.PIVOT, ("money", "goods", "mail")),
        ("money.confirm", StepKind.RETRIABLE, (COMMIT,)),
        ("goods.confirm", StepKind.RETRIABLE, (COMMIT,)),
    ]
    assert [step.step_id for step in definition.written] == ["money", "goods", "mail"]
    assert definition.step("goods.confirm").confirms == "goods"
    assert added(steps(("hold", Hold()), ("last", Loose())))[0] == (COMMIT, StepKind.PIVOT, ("last",))


def test_m14_a_saga_with_a_pivot_of_its_own_is_confirmed_after_it() -> None:
    """Its point of no return stays where its author put it."""
    definition = steps(("hold", Hold()), ("ship", Final()))

    assert added(definition)[0] == (COMMIT, StepKind.RETRIABLE, ("ship",))


def test_m14_a_builder_may_go_on_after_build() -> None:
    """What one build has added is not in the way of the next."""
    builder = SagaBuilder()
    builder.add_step(step=Hold(), input_map=lambda ctx: Sum(), step_id="a")
    builder.build()
    builder.add_step(step=Hold(), input_map=lambda ctx: Sum(), step_id="b")

    assert added(builder.build())[0] == (COMMIT, StepKind.PIVOT, ("b",))


def test_m14_a_manual_commit_is_waited_for() -> None:
    """Also where nothing is confirmed: the saga is then only asked about."""
    definition = steps(("pay", Pay()), settings={"commit": "manual"})

    assert added(definition) == [
        (DECISION, StepKind.READ_ONLY, ("pay",)),
        (COMMIT, StepKind.PIVOT, (DECISION,)),
    ]
    assert definition.commit == "manual"


def test_m14_how_a_confirm_is_tried() -> None:
    """As it is said when the step is added; patiently by default."""
    said = steps(("hold", Hold()), confirm_retry=FixedRetry(3, HOUR), confirm_timeout=HOUR).graph.nodes["hold.confirm"]
    default = steps(("hold", Hold())).graph.nodes["hold.confirm"]

    assert (said.retry, said.timeout) == (FixedRetry(3, HOUR), HOUR)
    assert isinstance(default.retry, ExponentialRetry)
    assert (default.retry.max_attempts, default.timeout) == (20, None)


def test_m14_a_part_is_confirmed_with_the_whole() -> None:
    """It brings its confirms along, and no point of no return of its own; its last step is still its last."""
    part = steps(("money", Hold()), ("goods", Hold()), confirm_timeout=HOUR)
    builder = SagaBuilder()
    stay = builder.add_saga(part, input_map=lambda ctx: {}, namespace="stay")
    builder.add_step(step=Pay(), input_map=lambda out: Sum(), depends_on=stay, step_id="mail")
    definition = builder.build()

    assert [step.step_id for step in definition.written] == ["stay", "stay.money", "stay.goods", "mail"]
    assert [step_id for step_id, *_ in added(definition)] == [COMMIT, "stay.money.confirm", "stay.goods.confirm"]
    assert definition.graph.nodes["stay.money.confirm"].timeout == HOUR
    assert definition.seen_from(None) == {"stay": "stay.goods", "mail": "mail"}


def test_m14_a_branch_is_confirmed_if_it_was_taken() -> None:
    """Its confirm is there whichever was: nothing comes before the commit that is not decided by then."""
    builder = SagaBuilder()
    branches = {"card": steps(("hold", Hold())), "cash": steps(("hold", Hold()))}
    builder.add_choice(choose=lambda ctx: "card", branches=branches, step_id="how")
    nodes = builder.build().graph.nodes

    assert nodes[COMMIT].after == ("how.card.hold", "how.cash.hold")
    assert nodes["how.cash.hold.confirm"].branches == ()


def test_m14_a_transactional_step_is_confirmed_in_a_transaction() -> None:
    """Its confirm, too, is committed with the record of it."""

    class Book(Hold):
        transactional = True

    saga = steps(("book", Book()))
    assert saga.graph.nodes["book.confirm"].transactional
    assert saga.step("book").needs_session
    assert saga.step("book.confirm").needs_session


def test_m14_the_finish_is_drawn() -> None:
    """The point of no return as a pivot; each confirm under the name of its step's class."""
    drawn = steps(("hold", Hold())).to_mermaid()

    assert '{{"saga.commit<br/>Commit"}}' in drawn
    assert '[["hold.confirm<br/>Hold"]]' in drawn


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"commit": "maybe"}, "commit is 'maybe'; it must be 'auto' or 'manual'"),
        ({"commit_timeout": HOUR}, "commit_timeout is for commit='manual'"),
        ({"commit": "manual", "commit_timeout": -HOUR}, "give it a positive timedelta"),
    ],
)
def test_m14_settings_that_make_no_sense_are_refused(settings: dict[str, Any], complaint: str) -> None:
    """When the builder is made."""
    with pytest.raises(SagaDefinitionError, match=complaint):
        SagaBuilder(**settings)


def test_m14_what_could_not_be_rejected_is_refused() -> None:
    """A step that is never undone, or that nothing undoes, before the question whether all is to be undone."""
    with pytest.raises(SagaDefinitionError, match="Step 'ship' is never undone, so that a saga with commit='manual'"):
        steps(("pay", Pay()), ("ship", Final()), settings={"commit": "manual"})
    with pytest.raises(SagaDefinitionError, match=r"'mail' has no compensate, and 'saga\.decision' may fail after it"):
        steps(("mail", Loose()), settings={"commit": "manual"})


def test_m14_a_part_that_waits_to_be_committed_is_refused() -> None:
    """Only the whole is committed."""
    part = steps(("pay", Pay()), settings={"commit": "manual"})
    with pytest.raises(SagaDefinitionError, match="Saga 'stay' has commit='manual', and is to be a part"):
        SagaBuilder().add_saga(part, input_map=lambda ctx: {}, namespace="stay")


@pytest.mark.parametrize("taken", [COMMIT, "hold.confirm"])
def test_m14_an_id_that_the_finish_needs_is_refused(taken: str) -> None:
    """The steps that are added have ids like any other."""
    with pytest.raises(SagaDefinitionError, match=f"Duplicate step id: {taken}"):
        steps(("hold", Hold()), (taken, Pay()))


def test_m14_how_to_confirm_is_refused_where_nothing_is_confirmed() -> None:
    """It would never matter."""
    with pytest.raises(SagaDefinitionError, match="Step 'pay' has no confirm; drop confirm_retry"):
        steps(("pay", Pay()), confirm_timeout=HOUR)
    with pytest.raises(SagaDefinitionError, match="confirm_retry is 3; give it a policy"):
        steps(("hold", Hold()), confirm_retry=3)
    with pytest.raises(SagaDefinitionError, match="confirm_timeout is 3; give it a positive timedelta"):
        steps(("hold", Hold()), confirm_timeout=3)


def test_m14_a_confirm_that_is_written_wrongly_is_refused() -> None:
    """When its class is created, as of any method of a step."""
    with pytest.raises(TypeValidationError, match="confirm takes the wrong arguments"):

        class _Short(Pay):
            async def confirm(self, inp: Sum) -> None: ...  # type: ignore[override]

    with pytest.raises(TypeValidationError, match="confirm takes Other where Sum is given"):

        class _Strange(Pay):
            async def confirm(self, inp: Sum, out: Other) -> None: ...  # type: ignore[override]

    with pytest.raises(TypeValidationError, match="confirm may not return WaitFor"):

        class _Patient(Pay):
            async def confirm(self, inp: Sum, out: Sum) -> WaitFor | None: ...  # type: ignore[override]


class Other(Sum):
    """Another model than the step returns."""


async def test_m14_a_confirm_takes_a_context_if_it_wants_one() -> None:
    """It is called with the step's input and output, and no more than it takes."""
    seen: list[Any] = []

    class Plain(Pay):
        async def confirm(self, inp: Sum, out: Sum) -> None:
            seen.append((inp, out))

    class Curious(Pay):
        async def confirm(self, inp: Sum, out: Sum, ctx: StepContext) -> None:
            seen.append((inp, out, ctx))

    context: Any = object()
    for step in (Plain(), Curious()):
        await steps(("hold", step)).step("hold").confirm(Sum(cents=1), Sum(cents=2), lambda: context)

    assert seen == [(Sum(cents=1), Sum(cents=2)), (Sum(cents=1), Sum(cents=2), context)]


async def test_m14_what_a_decision_comes_to() -> None:
    """It is waited for, as long as was said; a rejection fails the step and says who and why."""
    step = Decide(HOUR)
    wait = await step.execute(Nothing())
    assert isinstance(wait, WaitFor)
    assert (wait.event_types, wait.timeout, wait.on_timeout) == ((COMMIT, REJECT), HOUR, "fail")

    yes = Decision(actor="ann")
    assert await step.on_event(Nothing(), Event(type=COMMIT, payload=yes)) is yes
    for no, said in (
        (Decision(actor="ann", reason="too dear"), "rejected by ann: too dear"),
        (Decision(), "rejected by nobody by name"),
    ):
        with pytest.raises(PermanentError, match=f"^{said}$"):
            await step.on_event(Nothing(), Event(type=REJECT, payload=no))


async def test_m14_what_every_other_step_confirms_by_is_never_called_itself() -> None:
    """Whoever performs such a step calls the confirm of the other one."""
    assert steps(("hold", Hold())).step("hold.confirm").make_input(object()) == Nothing()
    with pytest.raises(NotImplementedError):
        await Confirm().execute(Nothing())
    with pytest.raises(NotImplementedError):
        await Pay().confirm(Sum(), Sum())
