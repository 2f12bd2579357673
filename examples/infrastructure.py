"""Infrastructure: a network, a database and two servers side by side, a name; and another process that takes it down.

The name cannot be had, so the saga fails, and what was made is left standing, for a person to look at. It is a process
of its own that destroys it later: all it needs is the database, and the definition.

python examples/infrastructure.py
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
)


class Base(DeclarativeBase):
    pass


class StackSaga(Base, SagaStateMixin):
    __tablename__ = "stack_saga"


class Wanted(BaseModel):
    resource: str


class Made(BaseModel):
    address: str


class Create(BaseStep[Wanted, Made]):
    """Makes a resource. The provider is a folder here, and a resource a file in it."""

    def __init__(self, cloud: Path) -> None:
        self.cloud = cloud

    async def execute(self, inp: Wanted) -> Made:
        (self.cloud / inp.resource).touch()
        return Made(address=f"cloud/{inp.resource}")

    async def compensate(self, inp: Wanted, out: Made | None) -> None:
        (self.cloud / inp.resource).unlink(missing_ok=True)  # by its name, so also if nobody knows whether it was made


class TakeName(BaseStep[Wanted, Made]):
    async def execute(self, inp: Wanted) -> Made:
        raise PermanentError(f"{inp.resource} belongs to somebody else")


def stack_saga(cloud: Path) -> SagaDefinition:
    builder = SagaBuilder(compensate_on_failure=False)  # leave it standing: a person decides
    create = Create(cloud)
    builder.add_step(step=create, input_map=lambda ctx: Wanted(resource="network"), step_id="network")
    with builder.parallel():
        for name in ("database", "server-1", "server-2"):
            builder.add_step(step=create, input_map=lambda ctx, name=name: Wanted(resource=name), step_id=name)
    builder.add_step(step=TakeName(), input_map=lambda ctx: Wanted(resource=ctx.initial_data["name"]), step_id="dns")
    return builder.build()


@asynccontextmanager
async def stacks(folder: Path) -> AsyncIterator[SagaOrchestrator[StackSaga]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'stacks.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with SagaOrchestrator[StackSaga](model_class=StackSaga, session_maker=sessions) as orchestrator:
        orchestrator.register("stack", stack_saga(folder / "cloud"))
        yield orchestrator
    await engine.dispose()


async def provision(folder: Path) -> None:
    async with stacks(folder) as orchestrator:
        wanted = {"name": "shop.example"}
        saga_id = await orchestrator.start(saga_name="stack", initial_data=wanted, aggregation_id="shop")
        saga = await orchestrator.get_snapshot(saga_id)
        print(f"{saga.aggregation_id}: {saga.status.value} {saga.last_error}")


async def destroy(folder: Path) -> None:
    async with stacks(folder) as orchestrator:
        admin = SagaAdmin[StackSaga](engine=orchestrator.engine)
        for saga in (await admin.list_sagas(status=SagaStatus.FAILED)).items:
            print(f"{saga.aggregation_id}: standing are {', '.join(saga.residue)}")
            await admin.compensate_step(saga.id, actor="maria", reason="we take another name")
            after = await admin.get_saga(saga.id)
            undone = [entry.step_id for entry in after.step_history if entry.phase == "COMPENSATE"]
            print(f"{saga.aggregation_id}: {after.status.value}, the last to go was the {undone[-1]}")


def main(folder: Path) -> None:
    cloud = folder / "cloud"
    cloud.mkdir()
    asyncio.run(provision(folder))
    assert {resource.name for resource in cloud.iterdir()} == {"network", "database", "server-1", "server-2"}

    print("another process")
    another = subprocess.run(
        [sys.executable, __file__, "destroy", folder], stdout=subprocess.PIPE, text=True, check=True
    )
    print(another.stdout, end="")
    assert list(cloud.iterdir()) == []


if __name__ == "__main__":
    if sys.argv[1:2] == ["destroy"]:
        asyncio.run(destroy(Path(sys.argv[2])))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
