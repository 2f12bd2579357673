"""A model is rolled out on GPUs: reserved, deployed, watched until it is healthy, and only then given the traffic.

Until the traffic is switched, everything can be undone; afterwards the old model is retired, however often that has to
be tried. The first rollout succeeds, the second does not get healthy in time, and for the third there are no GPUs.

python examples/model_deployment.py
"""

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaWorker,
    StepKind,
    step,
)


class Base(DeclarativeBase):
    pass


class RolloutSaga(Base, SagaStateMixin):
    __tablename__ = "rollout_saga"


class Cluster:
    """Stands in for the machines. What it does for a model, it does once, however often it is told."""

    def __init__(self) -> None:
        self.reserved = {"v1": 4}
        self.running = {"v1"}
        self.traffic = "v1"
        self.looks: dict[str, int] = {}
        self.drained: set[str] = set()

    def free(self) -> int:
        return 8 - sum(self.reserved.values())


CLUSTER = Cluster()


@step(kind=StepKind.READ_ONLY)  # nothing to undo
async def check(gpus: int) -> None:
    if gpus > CLUSTER.free():
        raise PermanentError(f"{gpus} GPUs wanted, {CLUSTER.free()} free")


@step
async def reserve(model: str, gpus: int) -> None:
    if gpus > CLUSTER.free():  # somebody was faster
        raise PermanentError("the GPUs are gone")
    CLUSTER.reserved[model] = gpus


@reserve.compensate
async def release(model: str) -> None:
    CLUSTER.reserved.pop(model, None)


@step
async def deploy(model: str) -> None:
    CLUSTER.running.add(model)


@deploy.compensate
async def stop(model: str) -> None:
    CLUSTER.running.discard(model)


@step(kind=StepKind.READ_ONLY)
async def health(model: str) -> int:
    CLUSTER.looks[model] = CLUSTER.looks.get(model, 0) + 1
    if model == "v3-broken" or CLUSTER.looks[model] < 3:
        raise RuntimeError(f"{model} is not healthy")
    return CLUSTER.looks[model]


@step(kind=StepKind.PIVOT)  # users see the new model: from here on, only forward
async def switch(model: str) -> None:
    CLUSTER.traffic = model


@step(kind=StepKind.RETRIABLE)  # never undone; tried until it succeeds
async def retire(replaces: str) -> None:
    if replaces not in CLUSTER.drained:
        CLUSTER.drained.add(replaces)
        raise ConnectionError("still draining")
    CLUSTER.running.discard(replaces)
    CLUSTER.reserved.pop(replaces, None)


def rollout_saga() -> SagaDefinition:
    builder = SagaBuilder()
    for action in (check, reserve, deploy):
        builder.add_step(step=action, input_map=lambda ctx: ctx.initial_data)
    pauses = FixedRetry(max_attempts=5, delay=timedelta(milliseconds=10))  # minutes, for a real model; they are durable
    for action in (health, switch, retire):
        builder.add_step(step=action, input_map=lambda ctx: ctx.initial_data, retry_policy=pauses)
    return builder.build()


async def main(folder: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'rollouts.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with SagaOrchestrator[RolloutSaga](model_class=RolloutSaga, session_maker=sessions) as orchestrator:
        orchestrator.register("rollout", rollout_saga())
        worker = SagaWorker(orchestrator, poll_interval=timedelta(milliseconds=10))  # goes on after each pause
        working = asyncio.create_task(worker.run())
        for model, gpus in {"v2": 4, "v3-broken": 4, "v3-huge": 64}.items():
            wanted = {"model": model, "gpus": gpus, "replaces": CLUSTER.traffic}
            # one active saga for each aggregate: never two rollouts of production at once
            saga_id = await orchestrator.start(saga_name="rollout", initial_data=wanted, aggregation_id="production")
            result = await orchestrator.result(saga_id)
            print(f"{model}: {result.status.value} {result.error or ''}".rstrip())
            print(f"  traffic to {CLUSTER.traffic}, running {sorted(CLUSTER.running)}, reserved {CLUSTER.reserved}")
        worker.stop()
        await working
    await engine.dispose()
    assert CLUSTER.looks == {"v2": 3, "v3-broken": 5}
    assert (CLUSTER.traffic, CLUSTER.running, CLUSTER.reserved) == ("v2", {"v2"}, {"v2": 4})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
