"""Random definitions: sequences and branches, pivots, probes, every policy that the builder takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from saga_orchestrator import (
    ExponentialRetry,
    FixedRetry,
    InputContext,
    NoRetry,
    RetryPolicy,
    SagaBuilder,
    SagaDefinition,
    StepKind,
    StepRef,
)

from .answers import Asking, Manner
from .participants import (
    Acting,
    Blind,
    Exact,
    Failing,
    Held,
    Parted,
    ProbedActing,
    ProbedBlind,
    ProbedExact,
    Reading,
    Receipt,
    Request,
    Services,
)

if TYPE_CHECKING:
    from .world import World


def drawn(world: World, random: Random, child: str | None = None) -> SagaDefinition:
    """Draw a definition: layers of one to three steps side by side, then perhaps a pivot and what comes after it.

    One that has a child, of the name that is given, has it after these layers.
    """
    builder = SagaBuilder(
        compensate_on_failure=random.random() < 0.85,
        version=random.choice((1, 2)),
        max_recoveries=random.choice((1, 3, 5)),
        undo_window=_window(random) if world.plan.rewinds else None,
        **(_commit(random) if world.plan.decisions else {}),
        **(_failure(world, random) if world.plan.actions else {}),
    )
    layer: list[StepRef[Any]] = []
    for _ in range(random.randint(1, 3)):
        width = random.choice((1, 1, 2, 3))
        layer = [_reversible(builder, world, random, layer) for _ in range(width)]
    if child is not None:
        layer = [builder.add_child(child, input_map=_for_a_child, after=layer, **_undo_options(random))]
    if random.random() < 0.3:
        layer = [_choice(builder, world, random, layer)]
        layer = [_reversible(builder, world, random, layer)]
    if random.random() < 0.2:
        layer = [_each(builder, world, random, layer)]
    if random.random() < 0.4 and builder._finish.commit == "auto":
        layer = [_final(builder, world, random, layer, StepKind.PIVOT)]
        for _ in range(random.randint(0, 2)):
            layer = [_final(builder, world, random, layer, StepKind.RETRIABLE)]
    return builder.build()


def plain(world: World, *, steps: int = 3, width: int = 1, window: timedelta | None = None) -> SagaDefinition:
    """Return a definition without surprises: that many layers, each of that width."""
    builder = SagaBuilder(undo_window=window)
    layer: list[StepRef[Any]] = []
    for _ in range(steps):
        layer = [builder.add_step(step=Blind(world), **_inputs(layer, layer)) for _ in range(width)]
    return builder.build()


def doomed(world: World) -> SagaDefinition:
    """Return a definition that acts side by side and then fails, so that all of it has to be undone."""
    builder = SagaBuilder()
    layer = [builder.add_step(step=Blind(world), **_inputs([], [])) for _ in range(2)]
    layer = [builder.add_step(step=Exact(world), **_inputs(layer, layer))]
    builder.add_step(step=Failing(world), **_inputs(layer, layer))
    return builder.build()


def committed(world: World) -> SagaDefinition:
    """Return a definition with a pivot, whose steps can all be asked whether they have acted."""
    builder = SagaBuilder()
    layer = [builder.add_step(step=ProbedExact(world), **_inputs([], []))]
    layer = [builder.add_step(step=ProbedActing(world), kind=StepKind.PIVOT, **_inputs(layer, layer))]
    builder.add_step(step=Acting(world), kind=StepKind.RETRIABLE, **_inputs(layer, layer))
    return builder.build()


def held(world: World) -> SagaDefinition:
    """Return a definition whose steps are confirmed in the end, one of them by itself and two side by side."""
    builder = SagaBuilder()
    layer = [builder.add_step(step=Held(world), **_inputs([], []))]
    for _ in range(2):
        builder.add_step(step=Held(world), **_inputs(layer, layer))
    return builder.build()


def family(world: World) -> dict[str, SagaDefinition]:
    """Return the definitions of a saga that acts, has a child act, and then fails, so that both have to be undone."""
    parent, child = SagaBuilder(), SagaBuilder()
    layer = [child.add_step(step=Blind(world), **_inputs([], [])) for _ in range(2)]
    child.add_step(step=Exact(world), **_inputs(layer, layer))
    layer = [parent.add_step(step=Blind(world), **_inputs([], []))]
    layer = [parent.add_child("child", input_map=_for_a_child, after=layer)]
    parent.add_step(step=Failing(world), **_inputs(layer, []))
    return {"a": parent.build(), "child": child.build()}


def drawn_family(world: World, random: Random) -> dict[str, SagaDefinition]:
    """Draw a saga that has a child, and the child.

    The child is undone after its end by its parent alone: who did that behind its parent's back would answer for it.
    """
    child = drawn(world, random)
    return {
        "parent": drawn(world, random, "child"),
        "child": replace(child, graph=replace(child.graph, undo_window=None)),
    }


def _for_a_child(ctx: InputContext) -> dict[str, Any]:
    return {"aggregate": ctx.initial_data["aggregate"]}


def _reversible(builder: SagaBuilder, world: World, random: Random, layer: list[StepRef[Any]]) -> StepRef[Any]:
    if random.random() < 0.1:
        return builder.add_step(step=Reading(world), **_options(random), **_inputs(layer, _some(random, layer)))
    if random.random() < 0.1:
        acknowledged = {"compensation": None, **_options(random)}
        return builder.add_step(step=Acting(world), **acknowledged, **_inputs(layer, _some(random, layer)))
    options: dict[str, Any] = {}
    if random.random() < 0.2:
        step: Acting = Asking(world, Manner.drawn(random))
    elif world.plan.decisions and random.random() < 0.4:
        step, options = Held(world), {"confirm_retry": _policy(random), "confirm_timeout": _limit(random)}
    elif world.plan.parts and random.random() < 0.4:
        step = Parted(world)
    else:
        step = random.choice((Exact, Blind, Blind, ProbedExact, ProbedBlind))(world)
    options |= {**_options(random), **_undo_options(random)}
    return builder.add_step(step=step, **options, **_inputs(layer, _some(random, layer)))


def _choice(builder: SagaBuilder, world: World, random: Random, layer: list[StepRef[Any]]) -> StepRef[Any]:
    """Add a choice whose answer is another each time it is asked for."""
    settings = {"compensate_on_failure": builder._compensate_on_failure}
    branches = {name: _branch(world, random, settings) for name in ("left", "right")}
    answers = ("left", "right", "right", "nowhere")
    declared = {"otherwise": None} if random.random() < 0.5 else {}
    return builder.add_choice(choose=lambda _: world.random.choice(answers), branches=branches, after=layer, **declared)


def _each(builder: SagaBuilder, world: World, random: Random, layer: list[StepRef[Any]]) -> StepRef[Any]:
    """Add a fan whose items are others each time they are asked for."""
    counts, tolerate, bound = (0, 1, 3, 5), random.choice((0, 0, 1, 5)), random.choice((None, 1, 2))
    return builder.add_each(
        items=lambda _: [_item(world) for _ in range(world.random.choice(counts))],
        step=random.choice((Exact, Blind, ProbedExact))(world),
        after=layer,
        tolerate=tolerate,
        max_parallel=bound,
        **_options(random),
        **_undo_options(random),
    )


def _item(world: World) -> Request:
    return Request(aggregate=f"item {world.random.randrange(10**6)}")


def _branch(world: World, random: Random, settings: dict[str, Any]) -> SagaDefinition:
    builder = SagaBuilder(**settings)
    layer: list[StepRef[Any]] = []
    for _ in range(random.randint(1, 2)):
        layer = [_reversible(builder, world, random, layer)]
    return builder.build()


def _final(
    builder: SagaBuilder, world: World, random: Random, layer: list[StepRef[Any]], kind: StepKind
) -> StepRef[Any]:
    step = random.choice((Acting, ProbedActing))(world)
    return builder.add_step(step=step, kind=kind, **_options(random), **_inputs(layer, _some(random, layer)))


def _options(random: Random) -> dict[str, Any]:
    return {"retry_policy": _policy(random), "timeout": _limit(random)}


def _undo_options(random: Random) -> dict[str, Any]:
    return {
        "compensation_retry": _policy(random),
        "compensation_timeout": _limit(random),
        "on_undo_failure": random.choice(("continue", "continue", "stop")),
    }


def _inputs(layer: list[StepRef[Any]], sources: list[StepRef[Any]]) -> dict[str, Any]:
    """Return the edges and the input map: by the outputs of some steps of the layer before, or by none."""
    if not sources:
        return {"after": layer, "input_map": _from_the_start}
    return {"after": layer, "depends_on": sources, "input_map": _from_receipts}


def _from_the_start(ctx: InputContext) -> Request:
    return Request(aggregate=ctx.initial_data["aggregate"])


def _from_receipts(*outputs: Any) -> Request:
    return Request(aggregate="", receipts=[output.number for output in outputs if isinstance(output, Receipt)])


def _some(random: Random, layer: list[StepRef[Any]]) -> list[StepRef[Any]]:
    return random.sample(layer, random.randint(0, len(layer)))


def _policy(random: Random) -> RetryPolicy:
    seconds = timedelta(seconds=random.choice((0, 0.5, 2, 6)))
    attempts = random.randint(2, 4)
    return random.choice(
        (
            NoRetry(),
            FixedRetry(attempts, seconds),
            ExponentialRetry(attempts, seconds, max_delay=timedelta(seconds=8), jitter=random.choice((0.0, 0.5))),
        )
    )


def _commit(random: Random) -> dict[str, Any]:
    """Draw who commits a saga, and how long he has."""
    if random.random() < 0.5:
        return {}
    return {"commit": "manual", "commit_timeout": random.choice((None, None, timedelta(seconds=10)))}


def _failure(world: World, random: Random) -> dict[str, Any]:
    """Draw what is done about a saga that has failed."""
    action = random.choice((None, "CLOSE_ALL", "CLOSE_ALL", "ALERT_HUMAN", "NOOP"))
    services = Services(world)
    return {"on_failure": action, "close_all": services.close_all, "alert_human": services.alert_human}


def _window(random: Random) -> timedelta | None:
    return random.choice((None, timedelta(seconds=random.choice((5, 60)))))


def _limit(random: Random) -> timedelta | None:
    return random.choice((None, timedelta(seconds=random.choice((1, 3, 15)))))
