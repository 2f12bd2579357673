"""What minos saga could do, and this library does too, or something stronger in its place.

The marks are those of docs/reference/feature-matrix.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, RootModel
from sqlalchemy import insert, select

from saga_orchestrator import (
    BaseStep,
    Event,
    FixedRetry,
    InputContext,
    OutcomeUnknown,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStatus,
    StepContext,
    TypeValidationError,
    WaitFor,
    step,
)
from saga_orchestrator.testing import MemoryStore
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Base,
    Deed,
    OneWay,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    admin_of,
    asked,
    fails,
    nothing,
    saga,
    scene_on,
    until_awaiting,
)

HOUR = timedelta(hours=1)
REPLY, UNDONE = "stock.reply", "stock.released"
NO = fails(ValueError("no truck"))


class Reply(BaseModel):
    """What somebody else answers."""

    status: int = 200


class Remote(BaseStep[Asked, Receipt]):
    """A step that asks somebody else, waits for the reply, and judges it; its undo may ask as well."""

    def __init__(
        self, ledger: list[str], does: Deed = nothing, undoes: Deed = nothing, undo_wait: WaitFor | None = None
    ) -> None:
        self.ledger, self.does, self.undoes, self.undo_wait = ledger, does, undoes, undo_wait

    async def execute(self, inp: Asked, ctx: StepContext) -> Receipt | WaitFor:
        await self.does(ctx)
        self.ledger.append("ask")
        return WaitFor(REPLY, correlation_id=inp.order_id, timeout=HOUR)

    async def on_event(self, inp: Asked, event: Event[Reply], ctx: StepContext) -> Receipt | None:
        self.ledger.append(f"answered {event.payload.status}")
        if ctx.phase == "compensate":
            return None
        if event.payload.status >= 500:
            raise PermanentError(f"stock answered {event.payload.status}")
        return Receipt(number="held" if event.payload.status == 200 else "none left")

    async def compensate(self, inp: Asked, out: Receipt | None, ctx: StepContext) -> WaitFor | None:
        await self.undoes(ctx)
        self.ledger.append(f"release {out.number if out else 'what may be held'}")
        return self.undo_wait


def stock(ledger: list[str], remote: Remote, *after: OneWay, **said: Any) -> SagaDefinition:
    """Return a saga whose second step is somebody else's."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("ticket", ledger), input_map=asked, step_id="ticket")
    builder.add_step(step=remote, input_map=asked, step_id="stock", **said)
    for each in after:
        builder.add_step(step=each, input_map=asked, step_id=each.name)
    return builder.build()


async def answered(orchestrator: SagaOrchestrator[OrderSaga], saga_id: UUID, status: int) -> Any:
    """Send a reply, and return what the saga has come to."""
    assert await orchestrator.signal(REPLY, correlation_id="o-1", payload=Reply(status=status)) == "APPLIED"
    return await orchestrator.result(saga_id, timeout=20 * SECOND)


# --- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truck", [True, False], ids=["completed", "undone"])
async def test_m1_local_steps_steps_that_ask_and_choices_make_one_saga(
    scene: Scene, ledger: list[str], truck: bool
) -> None:
    """Each later step knows the earlier ones by typed references; what was done is undone, whatever it was."""

    @step
    async def look(number: str) -> str:
        ledger.append(f"look at {number}")
        return number

    @look.compensate
    def forget(out: str) -> None:
        ledger.append(f"forget {out}")

    careful = SagaBuilder()
    careful.add_step(step=look, input_map=lambda ctx: ctx.initial_data)
    builder = SagaBuilder()
    builder.add_step(step=Undoable("ticket", ledger), input_map=asked, step_id="ticket")
    held = builder.add_step(step=Remote(ledger), input_map=asked, step_id="stock")
    builder.add_choice(
        choose=lambda out: "careful" if out.number == "held" else "careless",
        branches={"careful": careful.build()},
        input_map=lambda ctx: ctx.step_outputs["stock"],
        otherwise=None,
        depends_on=held,
        step_id="size",
    )
    builder.add_step(step=OneWay("ship", ledger, does=nothing if truck else NO), input_map=asked, step_id="ship")
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    result = await answered(orchestrator, saga_id, 200)
    forward = ["ticket", "ask", "answered 200", "look at held"]
    if truck:
        assert (result.status, ledger) == (SagaStatus.COMPLETED, [*forward, "ship"])
    else:
        assert result.status is SagaStatus.COMPENSATED
        assert ledger == [*forward, "forget held", "release held", "undo ticket"]


def _no_execute() -> None:
    class Unfinished(BaseStep[Asked, Receipt]):
        pass

    SagaBuilder().add_step(step=Unfinished(), input_map=asked)


def _two_steps_of_one_name() -> None:
    builder = SagaBuilder()
    for _ in range(2):
        builder.add_step(step=Undoable("a", []), input_map=asked, step_id="a")


def _a_step_of_another_saga() -> None:
    foreign = SagaBuilder().add_step(step=Undoable("a", []), input_map=asked)
    SagaBuilder().add_step(step=Undoable("b", []), input_map=asked, after=foreign)


def _not_built() -> None:
    builder: Any = SagaBuilder()
    SagaOrchestrator(store=MemoryStore()).register(NAME, builder)


def _not_built_branch() -> None:
    branch: Any = SagaBuilder()
    SagaBuilder().add_choice(choose=lambda _: "a", branches={"a": branch})


def _no_branch() -> None:
    SagaBuilder().add_choice(choose=lambda _: "a", branches={})


def _undo_too_late() -> None:
    @step
    async def hold(order_id: str) -> str:
        return order_id

    SagaBuilder().add_step(step=hold, input_map=lambda ctx: ctx.initial_data)
    hold.compensate(lambda order_id: None)


def _reply_without_on_event() -> None:
    class Ask(BaseStep[Asked, Receipt]):
        async def execute(self, inp: Asked) -> Receipt | WaitFor:
            raise NotImplementedError

    SagaBuilder().add_step(step=Ask(), input_map=asked)


MISTAKES: dict[str, tuple[Callable[[], object], type[SagaDefinitionError], str]] = {
    "no step": (lambda: SagaBuilder().build(), SagaDefinitionError, "at least one step"),
    "a step without execute": (_no_execute, TypeValidationError, "'Unfinished'"),
    "a step twice": (_two_steps_of_one_name, SagaDefinitionError, "Duplicate step id: a"),
    "a step of another saga": (_a_step_of_another_saga, SagaDefinitionError, "'step_0' of another"),
    "not built": (_not_built, SagaDefinitionError, r"SagaBuilder.build\(\)"),
    "a branch not built": (_not_built_branch, SagaDefinitionError, "SagaBuilder.build"),
    "no branch": (_no_branch, SagaDefinitionError, "branch"),
    "an undo that comes too late": (_undo_too_late, SagaDefinitionError, "part of a saga already"),
    "a reply without a callback": (_reply_without_on_event, TypeValidationError, "on_event"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_m2_a_mistake_in_a_definition_is_refused_where_it_is_made(mistake: str) -> None:
    """Before any saga runs, with a message for the one who has to correct it, and one class for the one who catches."""
    make, error, message = MISTAKES[mistake]
    with pytest.raises(SagaDefinitionError, match=message) as raised:
        make()
    assert type(raised.value) is error


def test_m2_what_is_built_cannot_be_changed() -> None:
    """Nobody can commit it twice, or add to it afterwards; the builder makes another one."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("a", []), input_map=asked, step_id="a")
    built: Any = builder.build()
    builder.add_step(step=Undoable("b", []), input_map=asked, step_id="b")
    with pytest.raises(FrozenInstanceError):
        built.steps = builder.build().steps
    assert [each.step_id for each in built.steps] == ["a"]


class Parcel(BaseModel):
    """Values of many types, in each other."""

    at: datetime
    weight: Decimal
    labels: dict[UUID, list[tuple[int, bytes]]]


async def test_m6_values_of_any_type_reach_later_steps_as_they_were(scene: Scene, ledger: list[str]) -> None:
    """In another process too; and what a step does to its copy is its own affair, on every attempt."""
    packed = Parcel(
        at=datetime(2030, 1, 2, tzinfo=UTC), weight=Decimal("0.10"), labels={UUID(int=7): [(1, b"a"), (2, b"")]}
    )
    seen: list[Any] = []

    class Pack(BaseStep[Asked, Parcel]):
        async def execute(self, inp: Asked) -> Parcel:
            return packed

    class Send(BaseStep[Parcel, Receipt]):
        async def execute(self, inp: Parcel) -> Receipt:
            seen.append(inp.model_copy(deep=True))
            inp.labels.clear()
            if len(seen) == 1:
                raise ConnectionError("down")
            return Receipt(number="1")

    def spoil(ctx: InputContext) -> Asked:
        seen.append((dict(ctx.initial_data), list(ctx.step_outputs["pack"]["labels"])))
        ctx.initial_data.clear()
        ctx.step_outputs["pack"]["labels"].clear()
        return Asked()

    builder = SagaBuilder()
    pack = builder.add_step(step=Pack(), input_map=asked, step_id="pack", compensation=None)
    retry = FixedRetry(2, SECOND)
    builder.add_step(
        step=Send(), depends_on=pack, input_map=lambda out: out, retry_policy=retry, compensation=None, step_id="send"
    )
    for _ in range(2):
        builder.add_step(step=Undoable("look", ledger), input_map=spoil)
    definition = builder.build()
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    scene.pass_time()
    other = scene.orchestrator(definition)
    assert await other.run_due() == 1
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert seen == [packed, packed, *[({"order_id": "o-1"}, [str(UUID(int=7))])] * 2]


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
async def test_m7_a_saga_can_be_carried_to_another_database(
    sqlite_url: str, shared_postgres_url: str, ledger: list[str], ends: SagaStatus
) -> None:
    """It is its rows, plain values of any database: copied to another, it goes on there, forward or back."""
    definition = saga(
        Undoable("a", ledger),
        Undoable("b", ledger, does=fails(ConnectionError("down"), ConnectionError("down"))),
        OneWay("c", ledger, does=nothing if ends is SagaStatus.COMPLETED else fails(PermanentError("no truck"))),
        retry_policy=FixedRetry(3, SECOND),
    )
    async with scene_on(sqlite_url) as one, scene_on(shared_postgres_url) as two:
        saga_id = await one.orchestrator(definition).start(**ORDER)
        before = await admin_of(one.orchestrator(definition)).get_saga(saga_id)
        await move_rows(one, two)
        assert await admin_of(two.orchestrator(definition)).get_saga(saga_id) == before
        two.pass_time()
        assert await two.orchestrator(definition).run_due() == 1
        await move_rows(two, one)
        one.pass_time(HOUR)
        assert await one.orchestrator(definition).run_due() == 1
        after = await one.orchestrator(definition).get_snapshot(saga_id)
    undone = [] if ends is SagaStatus.COMPLETED else ["undo b", "undo a"]
    assert (after.status, ledger) == (ends, ["a", "b", *(undone or ["c"])])


async def move_rows(one: Scene, other: Scene) -> None:
    """Move every saga of one database to another."""
    tables = [table for table in Base.metadata.sorted_tables if table.name.startswith(OrderSaga.__tablename__)]
    async with one.engine.begin() as source, other.engine.begin() as target:
        for table in tables:
            if rows := (await source.execute(select(table))).mappings().all():
                await target.execute(insert(table), [dict(row) for row in rows])
        for table in reversed(tables):
            await source.execute(table.delete())


PHASES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "asking": ({"does": NO}, [("EXECUTE", "ERROR")]),
    "taking the reply": ({}, [("EXECUTE", "WAITING"), ("ORDER", "SUCCESS"), ("EXECUTE", "ERROR")]),
    "undoing": (
        {"undoes": NO},
        [("EXECUTE", "WAITING"), ("ORDER", "SUCCESS"), ("EXECUTE", "ERROR"), ("COMPENSATE", "ERROR")],
    ),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_m9_the_history_says_in_which_phase_a_step_has_failed(
    scene: Scene, ledger: list[str], phase: str
) -> None:
    """When it asked, when the reply had come, or when it was undone: no two of them leave the same rows."""
    acts, rows = PHASES[phase]
    orchestrator = scene.orchestrator(stock(ledger, Remote(ledger, **acts)))
    saga_id = await orchestrator.start(**ORDER)
    if phase != "asking":
        await answered(orchestrator, saga_id, 500)
    history = (await admin_of(orchestrator).get_saga(saga_id)).step_history
    said = [(row.phase, row.status) for row in history if row.step_id.endswith("stock")]
    assert said[: len(rows)] == rows
    assert [row for row in said[len(rows) :] if "ERROR" in row] == []


async def test_m9_a_snapshot_says_in_which_phase_a_saga_has_paused(scene: Scene, ledger: list[str]) -> None:
    """And in which step, and for what: on the way forward it is SUSPENDED, and on the way back COMPENSATING."""
    remote = Remote(ledger, undo_wait=WaitFor(UNDONE))
    orchestrator = scene.orchestrator(stock(ledger, remote, OneWay("ship", ledger, does=NO)))
    saga_id = await orchestrator.start(**ORDER)

    async def pause() -> tuple[Any, ...]:
        found = await admin_of(orchestrator).get_saga(saga_id)
        return found.status, found.awaiting, [wait.step_id for wait in found.waits], found.steps["stock"]

    assert await pause() == (SagaStatus.SUSPENDED, f"event:{REPLY}", ["stock"], "Waiting")
    assert await orchestrator.signal(REPLY, saga_id=saga_id, correlation_id="o-1", payload={}) == "APPLIED"
    await until_awaiting(orchestrator, saga_id, f"event:{UNDONE}")
    assert await pause() == (SagaStatus.COMPENSATING, f"event:{UNDONE}", ["stock"], "UndoWaiting")
    assert await orchestrator.signal(UNDONE, saga_id=saga_id, payload={}) == "APPLIED"
    assert (await orchestrator.result(saga_id, timeout=20 * SECOND)).status is SagaStatus.COMPENSATED


ROUTES = {
    200: (SagaStatus.COMPLETED, {"number": "held"}, ["ship"]),
    400: (SagaStatus.COMPLETED, {"number": "none left"}, ["ship"]),
    500: (SagaStatus.COMPENSATED, None, ["release what may be held", "undo ticket"]),
}


@pytest.mark.parametrize("status", ROUTES)
async def test_m10_a_reply_is_routed_by_what_it_says(scene: Scene, ledger: list[str], status: int) -> None:
    """`on_event` returns, and the saga goes on, also after a business error; or it raises, and the saga is undone."""
    orchestrator = scene.orchestrator(stock(ledger, Remote(ledger), OneWay("ship", ledger)))
    result = await answered(orchestrator, await orchestrator.start(**ORDER), status)
    assert (result.status, result.outputs.get("stock"), ledger[3:]) == ROUTES[status]
    assert ledger[:3] == ["ticket", "ask", f"answered {status}"]


async def test_m10_a_reply_may_be_routed_by_its_type(scene: Scene, ledger: list[str]) -> None:
    """A step may wait for several kinds of reply at once; the first that comes ends the wait."""

    class Ask(BaseStep[Asked, RootModel[str]]):
        async def execute(self, inp: Asked) -> RootModel[str] | WaitFor:
            return WaitFor("stock.held", "stock.refused")

        async def on_event(self, inp: Asked, event: Event[Any]) -> RootModel[str]:
            return RootModel[str](f"{event.type}: {event.payload}")

    builder = SagaBuilder()
    builder.add_step(step=Ask(), input_map=asked, step_id="ask")
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    assert await orchestrator.signal("stock.refused", saga_id=saga_id, payload="sold") == "APPLIED"
    assert await orchestrator.signal("stock.held", saga_id=saga_id, payload="h-7") != "APPLIED"
    assert (await orchestrator.result(saga_id, timeout=20 * SECOND)).outputs == {"ask": "stock.refused: sold"}


async def test_m11_a_step_whose_reply_fails_it_is_undone_itself_and_first(scene: Scene, ledger: list[str]) -> None:
    """It has asked, so its effect may exist; only then what came before it, and nothing that comes after."""
    orchestrator = scene.orchestrator(stock(ledger, Remote(ledger), Undoable("ship", ledger)))
    result = await answered(orchestrator, await orchestrator.start(**ORDER), 503)
    assert (result.status, result.error) == (SagaStatus.COMPENSATED, "PermanentError('stock answered 503')")
    assert ledger == ["ticket", "ask", "answered 503", "release what may be held", "undo ticket"]


UNKNOWN: dict[str, tuple[Deed, list[str]]] = {
    "it was never asked": (fails(ConnectionRefusedError("nobody there")), []),
    "nobody knows whether it was asked": (fails(OutcomeUnknown("cut off")), ["release what may be held"]),
    "it was asked and never answered": (nothing, ["ask", "release what may be held"]),
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_m12_an_effect_that_nobody_knows_of_is_never_passed_over(
    scene: Scene, ledger: list[str], what: str
) -> None:
    """A step that raised before it asked has not acted; any other may have, and is undone with the rest."""
    does, undone = UNKNOWN[what]
    orchestrator = scene.orchestrator(stock(ledger, Remote(ledger, does=does)))
    saga_id = await orchestrator.start(**ORDER)
    scene.pass_time(HOUR)
    await orchestrator.run_due()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert ledger == ["ticket", *undone, "undo ticket"]
