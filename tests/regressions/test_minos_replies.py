"""What minos saga's replies could do: find a saga that rests, whichever process asked, with all that it carries.

The marks are those of docs/reference/feature-matrix.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pydantic import BaseModel

from saga_orchestrator import (
    BaseStep,
    Event,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
)
from saga_orchestrator.storage.rows import Head, SagaFilter
from tests.regressions.scene import (
    ORDER,
    SECOND,
    Asked,
    OneWay,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    asked,
    fails,
    until_awaiting,
)

REPLY = "stock.reply"
CHILD = "stock"
Orchestrator = SagaOrchestrator[OrderSaga]


class Message(NamedTuple):
    """What goes over a broker: whose it is, which one it is, and what it says."""

    correlation_id: str
    message_id: str
    body: dict[str, Any]


Queue = asyncio.Queue[Message]


class Held(BaseModel):
    """What the other service answers."""

    hold: str


class AskStock(BaseStep[Asked, Receipt]):
    """A step that sends a request over a broker and leaves; what is answered is taken wherever it comes in."""

    def __init__(self, requests: Queue, ledger: list[str]) -> None:
        self.requests, self.ledger = requests, ledger

    async def execute(self, inp: Asked, ctx: StepContext) -> Receipt | WaitFor:
        request = Message(ctx.idempotency_key, "request-1", {"order": inp.order_id, "trace": ctx.trace_id})
        await self.requests.put(request)
        return WaitFor(REPLY, correlation_id=ctx.idempotency_key)

    async def on_event(self, inp: Asked, event: Event[Held], ctx: StepContext) -> Receipt:
        self.ledger.append(f"{event.payload.hold} for {inp.order_id}, from {event.source}")
        return Receipt(number=event.payload.hold)

    async def compensate(self, inp: Asked, out: Receipt | None) -> None:
        self.ledger.append(f"release {out.number if out else 'what may be held'}")


def asking(requests: Queue, ledger: list[str], *after: OneWay) -> SagaDefinition:
    """Return a saga that opens a ticket, and asks another service."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("ticket", ledger), input_map=asked, step_id="ticket")
    builder.add_step(step=AskStock(requests, ledger), input_map=asked, step_id="stock")
    for each in after:
        builder.add_step(step=each, input_map=asked, step_id=each.name)
    return builder.build()


async def answer(requests: Queue, replies: Queue) -> Message:
    """Be the other service: answer one request, twice, as brokers do; return what was asked."""
    request = await requests.get()
    for _ in range(2):
        await replies.put(Message(request.correlation_id, "reply-1", {"hold": "h-7"}))
    return request


async def consume(orchestrator: Orchestrator, replies: Queue) -> list[SignalResult]:
    """Be a consumer that knows of no saga: hand over whatever is in the queue, and return what has become of it."""
    handed = []
    while not replies.empty():
        correlation_id, message_id, body = replies.get_nowait()
        said = {"payload": body, "event_id": message_id, "source": "stock"}
        handed.append(await orchestrator.signal(REPLY, correlation_id=correlation_id, **said))
    return handed


@asynccontextmanager
async def one_process(
    scene: Scene, definition: SagaDefinition, child: SagaDefinition | None = None
) -> AsyncIterator[Orchestrator]:
    """Open the orchestrator of one process, which ends on the way out."""
    async with scene.orchestrator(definition) as orchestrator:
        if child is not None:
            orchestrator.register(CHILD, child)
        yield orchestrator


async def test_m17_a_reply_is_taken_by_whichever_process_it_reaches(scene: Scene, ledger: list[str]) -> None:
    """The process that asked has ended, and the saga rests in its row; another's consumer resumes it, once."""
    requests, replies = Queue(), Queue()
    definition = asking(requests, ledger)
    async with one_process(scene, definition) as first:
        saga_id = await first.start(**ORDER)
    await answer(requests, replies)
    assert ledger == ["ticket"]

    async with one_process(scene, definition) as other:
        assert (await other.get_snapshot(saga_id)).awaiting == f"event:{REPLY}"
        assert await consume(other, replies) == [SignalResult.APPLIED, SignalResult.DUPLICATE]
        result = await other.result(saga_id, timeout=20 * SECOND)

    assert (result.status, result.outputs["stock"]) == (SagaStatus.COMPLETED, {"number": "h-7"})
    assert ledger == ["ticket", "h-7 for o-1, from stock"]


async def test_m17_a_reply_needs_no_process_that_knows_the_saga(scene: Scene, ledger: list[str]) -> None:
    """A consumer without the definition keeps it; a process that can run the saga takes it from there."""
    requests, replies = Queue(), Queue()
    definition = asking(requests, ledger)
    async with one_process(scene, definition) as first:
        saga_id = await first.start(**ORDER)
    await answer(requests, replies)

    consumer = scene.orchestrator()
    assert await consume(consumer, replies) == [SignalResult.BUFFERED, SignalResult.DUPLICATE]
    assert ledger == ["ticket"]

    scene.pass_time()
    other = scene.orchestrator(definition)
    await other.run_due()
    assert (await other.result(saga_id, timeout=20 * SECOND)).status is SagaStatus.COMPLETED
    assert ledger == ["ticket", "h-7 for o-1, from stock"]


async def test_m17_a_saga_that_another_process_has_resumed_is_undone_with_what_was_answered(
    scene: Scene, ledger: list[str]
) -> None:
    """What the process that asked had done, and the reply that it never saw, are known to the one that goes on."""
    requests, replies = Queue(), Queue()
    definition = asking(requests, ledger, OneWay("ship", ledger, does=fails(PermanentError("no truck"))))
    async with one_process(scene, definition) as first:
        saga_id = await first.start(**ORDER)
    await answer(requests, replies)

    async with one_process(scene, definition) as other:
        await consume(other, replies)
        assert (await other.result(saga_id, timeout=20 * SECOND)).status is SagaStatus.COMPENSATED

    assert ledger == ["ticket", "h-7 for o-1, from stock", "release h-7", "undo ticket"]


async def test_m17_a_child_carries_the_trace_and_knows_its_parent(scene: Scene, ledger: list[str]) -> None:
    """Its requests bear the trace that its parent was started with; a reply to it sets both going, elsewhere."""
    requests, replies = Queue(), Queue()
    builder = SagaBuilder()
    builder.add_child(CHILD, input_map=lambda ctx: ctx.initial_data, output_model=Receipt, step_id=CHILD)
    family = builder.build(), asking(requests, ledger)
    async with one_process(scene, *family) as first:
        parent = await first.start(**ORDER, trace_id="trace-9")
        (child,) = await children(first)
        await until_awaiting(first, child.id, f"event:{REPLY}")
    request = await answer(requests, replies)
    assert (child.trace_id, child.parent_id, request.body["trace"]) == ("trace-9", parent, "trace-9")

    async with one_process(scene, *family) as other:
        assert await consume(other, replies) == [SignalResult.APPLIED, SignalResult.DUPLICATE]
        result = await other.result(parent, timeout=20 * SECOND)

    assert (result.status, result.outputs[CHILD]) == (SagaStatus.COMPLETED, {"number": "h-7"})
    assert ledger == ["ticket", "h-7 for o-1, from stock"]


async def children(orchestrator: Orchestrator) -> list[Head]:
    return await orchestrator.engine.store.heads(SagaFilter(saga_name=CHILD), 9, None)
