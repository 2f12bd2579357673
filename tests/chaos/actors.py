"""The processes that the monkey torments: workers, a service that starts sagas, and an operator who meddles.

`python -m tests.chaos.actors ROLE URL LEDGER_PORT SEED`. Each ends on SIGTERM, as an application would. What the
service and the operator were told (this start returned, that order was accepted) they note in the ledger: those are the
promises that the audit holds the library to.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from saga_orchestrator import (
    ActiveSagaAlreadyExistsError,
    SagaAdmin,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SagaWorker,
)
from tests.chaos.graphs import CHILD
from tests.chaos.ledger import ask
from tests.chaos.sagas import CONFIRMED
from tests.chaos.tables import BusinessRow, ChaosSaga
from tests.chaos.world import connect, draw_order, orchestrate

_INLINE, _IN_SESSIONS, _MEDDLING = 16, 6, 3


class Actor:
    """What every role has: a database, an orchestrator, a line to the ledger, and a dice of its own."""

    def __init__(self, url: str, ledger_port: int, seed: int) -> None:
        self.engine: AsyncEngine = connect(url)
        self.ledger_port = ledger_port
        self.chance = random.Random(seed)
        self.orchestrator: SagaOrchestrator[ChaosSaga] = orchestrate(self.engine, ledger_port)

    async def note(self, what: str, **facts: Any) -> None:
        await ask(self.ledger_port, "note", what=what, pid=os.getpid(), **facts)

    async def pause(self, longest: float) -> None:
        await asyncio.sleep(self.chance.uniform(0, longest))

    async def close(self) -> None:
        await self.orchestrator.aclose()
        await self.engine.dispose()


async def work(actor: Actor) -> None:
    """Be a worker."""
    worker = SagaWorker(actor.orchestrator, poll_interval=timedelta(seconds=0.2), concurrency=30)
    await actor.note("ready", role="worker")
    confirming = asyncio.create_task(_confirm(actor))
    await worker.run()
    confirming.cancel()


async def _confirm(actor: Actor) -> None:
    """Send every saga that waits for its confirmation that confirmation, as other workers do, too."""
    admin = SagaAdmin[ChaosSaga](actor.orchestrator.engine)
    while True:
        with contextlib.suppress(Exception):  # what was not sent is sent by the next who looks
            for saga in (await admin.list_sagas(awaiting=f"event:{CONFIRMED}", limit=20)).items:
                await actor.orchestrator.signal(CONFIRMED, saga_id=saga.id, event_id=str(saga.id))
        await actor.pause(0.5)


async def serve(actor: Actor) -> None:
    """Start sagas, in both ways, until told to stop."""
    async with _until_told() as told:
        await actor.note("ready", role="service")
        inline = [told.create_task(_again(_start_inline, actor)) for _ in range(_INLINE)]
        inline += [told.create_task(_again(_start_in_session, actor)) for _ in range(_IN_SESSIONS)]


async def meddle(actor: Actor) -> None:
    """Give orders until told to stop."""
    async with _until_told() as told:
        await actor.note("ready", role="operator")
        for _ in range(_MEDDLING):
            told.create_task(_again(_give_order, actor))


@contextlib.asynccontextmanager
async def _until_told() -> AsyncIterator[asyncio.TaskGroup]:
    """Run what is begun inside until SIGTERM, then cut it off."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)

    async def end() -> None:
        await told.wait()
        raise _Told

    with contextlib.suppress(BaseExceptionGroup):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(end())
                yield group
        except BaseExceptionGroup as errors:
            if (others := errors.split(_Told)[1]) is not None:
                raise SystemExit(f"{others!r}") from others


class _Told(Exception):  # noqa: N818 - not an error
    """SIGTERM has come."""


async def _again(act: Callable[[Actor], Awaitable[None]], actor: Actor) -> None:
    while True:
        await act(actor)


async def _start_inline(actor: Actor) -> None:
    """Start a saga and drive it; repeat the start under its key until it is answered."""
    saga_name, facts = draw_order(actor.chance)
    number = f"inline-{uuid4()}"
    twins = 2 if actor.chance.random() < 0.1 else 1

    if saga_name == "bundle" and actor.chance.random() < 0.5:  # confirmed before it is started
        with contextlib.suppress(Exception):
            await actor.orchestrator.signal(CONFIRMED, aggregation_id=number, event_id=number)

    async def start() -> UUID:
        return await actor.orchestrator.start(
            saga_name=saga_name, initial_data=facts, aggregation_id=number, idempotency_key=number
        )

    while True:
        answers = await asyncio.gather(*(start() for _ in range(twins)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, UUID):
                await actor.note("started", number=number, saga=str(answer))
            elif isinstance(answer, ActiveSagaAlreadyExistsError):
                await actor.note("wrongly refused", number=number, error=repr(answer))
            else:
                await actor.note("start failed", number=number, error=repr(answer))
        if any(isinstance(answer, UUID) for answer in answers):
            break
        await actor.pause(0.3)
    await actor.pause(0.15)


async def _start_in_session(actor: Actor) -> None:
    """Start a saga in the transaction that writes a business row, and commit it, or not."""
    number = f"session-{uuid4()}"
    ending = actor.chance.choice(("commit", "commit", "commit", "roll back", "roll back to a savepoint"))
    try:
        async with AsyncSession(actor.engine, expire_on_commit=False) as session:
            if ending == "roll back to a savepoint":
                savepoint = await session.begin_nested()
                await _write(actor, session, number)
                await savepoint.rollback()
            else:
                await _write(actor, session, number)
            if ending == "roll back":
                await session.rollback()
            else:
                await session.commit()
    except Exception as error:  # noqa: BLE001 - the database is away: the application does not know, and need not
        await actor.note("unknown", number=number, error=repr(error))
    else:
        await actor.note("committed" if ending == "commit" else "rolled back", number=number)
    await actor.pause(0.3)


async def _write(actor: Actor, session: AsyncSession, number: str) -> None:
    saga_name, facts = draw_order(actor.chance)
    saga_id = await actor.orchestrator.start(
        saga_name=saga_name, initial_data=facts, aggregation_id=number, session=session
    )
    session.add(BusinessRow(number=number, saga_id=saga_id))
    await session.flush()


_ORDERS: dict[SagaStatus, tuple[str, ...]] = {
    SagaStatus.RUNNING: ("cancel", "cancel", "abort", "compensate_step"),
    SagaStatus.SUSPENDED: ("cancel", "retry_step", "retry_step", "abort", "compensate_step", "notify"),
    SagaStatus.COMPENSATING: ("compensate_step", "cancel", "notify", "abort"),
    SagaStatus.STUCK: ("retry_step", "compensate_step", "retry_step", "cancel", "abort"),
    SagaStatus.FAILED: ("retry_step", "compensate_step"),
    SagaStatus.COMPLETED: ("cancel", "retry_step"),
}


async def _give_order(actor: Actor) -> None:
    """Pick a recent saga, now and then one that is a child, and give it an order that may or may not make sense."""
    admin, mark = SagaAdmin(actor.orchestrator.engine), f"order-{uuid4()}"
    name, saga = "look", None
    try:
        status = actor.chance.choice(tuple(_ORDERS))
        family = actor.chance.choice((None, None, None, CHILD))
        page = await admin.list_sagas(status=status, saga_name=family, limit=30)
        if page.items:
            saga = actor.chance.choice(page.items)
            name = actor.chance.choice(_ORDERS[status])
            if name == "notify":
                token = saga.step_execution_token or uuid4()
                await actor.orchestrator.notify(saga_id=saga.id, token=token, event={"mark": mark})
            else:
                await getattr(admin, name)(saga.id, actor="chaos", reason=mark)
        answer = "accepted"
    except SagaStateError:
        answer = "refused"
    except SagaNotFoundError as error:
        answer = f"wrong: {error}"
    except Exception as error:  # noqa: BLE001 - the database is away
        answer = f"failed: {error!r}"
    if saga is not None:
        await actor.note("order", name=name, saga=str(saga.id), mark=mark, answer=answer)
    await actor.pause(0.5)


ROLES = {"worker": work, "service": serve, "operator": meddle}


async def main(role: str, url: str, ledger_port: int, seed: int) -> None:
    logger.enable("saga_orchestrator")
    faulthandler.register(signal.SIGUSR2)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _show_tasks)
    actor = Actor(url, ledger_port, seed)
    try:
        await ROLES[role](actor)
    finally:
        await actor.close()


def _show_tasks() -> None:
    """Say in the log what everything is waiting for: asked of an actor that does not end."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=20)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
