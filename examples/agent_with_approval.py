"""An agent whose tool calls are a saga: each is undone by what it was, and a person approves before money moves.

The plan is made once and recorded, so that nobody asks the model again after a crash. What a tool has done is undone by
its own compensation, not by another idea of the model's.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import BaseStep, PermanentError, SagaBuilder, SagaOrchestrator, SagaStateMixin, StepKind


class Base(DeclarativeBase):
    pass


class AgentSaga(Base, SagaStateMixin):
    __tablename__ = "agent_saga"


class Task(BaseModel):
    wish: str


class Plan(BaseModel):
    hotel: str
    euros: int


class Approval(BaseModel):
    by: str
    yes: bool


class Held(BaseModel):
    reference: str


class World:
    """What the tools act on."""

    def __init__(self) -> None:
        self.rooms: list[str] = []
        self.paid: list[int] = []


class MakePlan(BaseStep[Task, Plan]):
    """Where the model would be called: its answer is recorded, and never asked for again."""

    kind = StepKind.READ_ONLY

    async def execute(self, inp: Task) -> Plan:
        return Plan(hotel="Post", euros=3000 if "suite" in inp.wish else 120)


class HoldRoom(BaseStep[Plan, Held]):
    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Plan) -> Held:
        self.world.rooms.append(inp.hotel)
        return Held(reference=f"{inp.hotel}-1")

    async def compensate(self, inp: Plan, out: Held) -> None:
        self.world.rooms.remove(inp.hotel)


class Decision(BaseModel):
    approval: Approval
    plan: Plan


class Pay(BaseStep[Decision, Held]):
    """The point of no return: it acts only on a person's yes."""

    kind = StepKind.PIVOT

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Decision) -> Held:
        if not inp.approval.yes:
            raise PermanentError(f"{inp.approval.by} said no to {inp.plan.euros} euros")
        self.world.paid.append(inp.plan.euros)
        return Held(reference="paid")


def travel_agent(world: World) -> SagaBuilder:
    """Return the saga of one task."""
    builder = SagaBuilder(deadline=timedelta(days=2))
    plan = builder.add_step(step=MakePlan(), input_map=lambda ctx: Task(**ctx.initial_data), step_id="plan")
    builder.add_step(step=HoldRoom(world), depends_on=plan, input_map=lambda plan: plan, step_id="hold")
    approval = builder.add_event(
        "approved", model=Approval, timeout=timedelta(hours=8), default=Approval(by="nobody", yes=False), step_id="ask"
    )
    builder.add_step(
        step=Pay(world),
        depends_on=[approval, plan],
        input_map=lambda approval, plan: Decision(approval=approval, plan=plan),
        step_id="pay",
    )
    return builder


@asynccontextmanager
async def agency(folder: Path, world: World) -> AsyncIterator[SagaOrchestrator[AgentSaga]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'agent.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with SagaOrchestrator[AgentSaga](model_class=AgentSaga, session_maker=sessions) as orchestrator:
        orchestrator.register("travel_agent", travel_agent(world).build())
        yield orchestrator
    await engine.dispose()


async def main(folder: Path) -> None:
    world = World()
    wishes = {"ann": "a room", "bob": "a suite", "eve": "a room, quickly"}
    async with agency(folder, world) as before:
        await before.signal("approved", aggregation_id="eve", payload=Approval(by="carol", yes=True), event_id="eve-1")
        sagas = {
            name: await before.start(saga_name="travel_agent", initial_data={"wish": wish}, aggregation_id=name)
            for name, wish in wishes.items()
        }
        for name, saga_id in sagas.items():
            snapshot = await before.get_snapshot(saga_id)
            print(f"{name}: {snapshot.status.value} {snapshot.awaiting or ''}".rstrip())

    print("a new process, and the answers")
    async with agency(folder, world) as after:
        for name, yes in {"ann": True, "bob": False}.items():
            answer = await after.signal("approved", saga_id=sagas[name], payload={"by": "carol", "yes": yes})
            result = await after.result(sagas[name])
            print(f"{name}: {answer.value}, {result.status.value} {result.error or ''}".rstrip())
    print(f"paid: {world.paid}, rooms held: {len(world.rooms)}")
    assert (sum(world.paid), len(world.rooms)) == (240, 2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
