"""A user's code, only ever read by a type checker: `# R:` is what it must reveal, `# E:` what it must refuse."""

from datetime import timedelta
from typing import reveal_type
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import (
    BaseStep,
    Event,
    FailureAction,
    FixedRetry,
    InputContext,
    SagaAdmin,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateMixin,
    StepContext,
    StepKind,
    WaitFor,
    step,
)


class Base(DeclarativeBase):
    pass


class OrderSaga(Base, SagaStateMixin):
    __tablename__ = "order_saga"

    customer: Mapped[str | None] = mapped_column()


class Order(BaseModel):
    number: str


class Reservation(BaseModel):
    shelf: int


class Payment(BaseModel):
    receipt: str


class Reserve(BaseStep[Order, Reservation]):
    kind = StepKind.COMPENSATABLE

    async def execute(self, inp: Order) -> Reservation:
        return Reservation(shelf=7)

    async def compensate(self, inp: Order, out: Reservation) -> None: ...


class Charge(BaseStep[Reservation, Payment]):
    async def execute(self, inp: Reservation, ctx: StepContext) -> Payment:
        reveal_type(ctx.idempotency_key)  # R: str
        return Payment(receipt=ctx.idempotency_key)

    async def compensate(self, inp: Reservation, out: Payment | None, ctx: StepContext) -> None: ...

    async def probe(self, inp: Reservation, ctx: StepContext) -> Payment | None: ...

    async def confirm(self, inp: Reservation, out: Payment, ctx: StepContext) -> None:
        reveal_type(ctx.phase)  # R: Literal['execute'] | Literal['compensate'] | Literal['confirm']


class Wrong(BaseStep[Order, Payment]):
    async def execute(self, inp: Order) -> Reservation:  # E: override
        return Reservation(shelf=7)

    async def confirm(self, inp: Order, out: Reservation) -> None: ...  # E: override


@step
async def pay(number: str) -> Payment | WaitFor:
    return WaitFor("settled", correlation_id=number)


reveal_type(pay)  # R: FunctionStep[Payment]


@pay.on_event
def settle(number: str, event: Event[Reservation], ctx: StepContext) -> Payment:
    reveal_type(event.payload.shelf)  # R: int
    return Payment(receipt=number)


@step
def look(number: str) -> Reservation:
    return Reservation(shelf=7)


reveal_type(look)  # R: FunctionStep[Reservation]


def reserve(context: InputContext) -> Order:
    reveal_type(context.initial_data)  # R: Any
    return Order(number=context.initial_data["number"])


builder = SagaBuilder(compensate_on_failure=True, version=2)
reserved = builder.add_step(step=Reserve(), input_map=reserve)
reveal_type(reserved)  # R: StepRef[Reservation]
paid = builder.add_step(
    step=Charge(),
    depends_on=reserved,
    input_map=lambda out: Reservation(shelf=out.shelf),
    timeout=timedelta(seconds=1),
    retry_policy=FixedRetry(max_attempts=3, delay=timedelta(seconds=1)),
    on_undo_failure="stop",
    confirm_retry=FixedRetry(max_attempts=3, delay=timedelta(seconds=1)),
    confirm_timeout=timedelta(seconds=1),
)
reveal_type(paid)  # R: StepRef[Payment]
builder.add_step(step=Charge(), depends_on=paid, input_map=lambda out: {"shelf": len(out.receipt)})
builder.add_step(step=Charge(), depends_on=[reserved, paid], input_map=lambda one, other: Reservation(shelf=one.shelf))
had = builder.add_child(
    "shipping", input_map=lambda out: {"shelf": out.shelf}, depends_on=reserved, output_model=Payment
)
reveal_type(had)  # R: StepRef[Payment]
builder.add_child("shipping", input_map=reserve, detached=True, retries=3)  # E: call-arg
wrong = Payment(receipt="1")
builder.add_step(step=Charge(), depends_on=reserved, input_map=lambda _: wrong)  # E: arg-type, return-value
builder.add_step(step=Charge(), depends_on=reserved, input_map=lambda out: out.receipt)  # E: attr-defined
builder.add_step(step=Charge(), input_map=reserve)  # E: arg-type
builder.add_step(step=Reserve(), input_map=reserve, retries=3)  # E: call-overload
builder.add_step(step=Reserve(), input_map=reserve, on_undo_failure="never mind")  # E: call-overload
SagaBuilder(commit="by hand")  # E: arg-type
SagaBuilder(commit="manual", commit_timeout=timedelta(hours=1))
definition = builder.build()


async def close_all(saga_id: UUID) -> bool:
    return True


reveal_type(definition)  # R: SagaDefinition
reveal_type(definition.fingerprint)  # R: str


async def use(sessions: async_sessionmaker[AsyncSession], session: AsyncSession) -> None:
    async with SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=sessions) as orchestrator:
        reveal_type(orchestrator)  # R: SagaOrchestrator[OrderSaga]
        orchestrator.register("order", definition)
        saga_id = await orchestrator.start(
            saga_name="order",
            initial_data={"number": "1"},
            aggregation_id="1",
            session=session,
            values={"customer": "x"},
        )
        reveal_type(saga_id)  # R: UUID
        snapshot = await orchestrator.get_snapshot(saga_id)
        reveal_type(snapshot.status)  # R: SagaStatus
        reveal_type(snapshot.step_execution_token)  # R: UUID | None
        reveal_type(snapshot.residue)  # R: tuple[str, ...]
        reveal_type(await orchestrator.notify(saga_id=saga_id, token=UUID(int=0)))  # R: bool
        reveal_type(await orchestrator.run_due(limit=10))  # R: int
        reveal_type((await orchestrator.result(saga_id)).outputs)  # R: Mapping[str, Any]
        await orchestrator.commit(saga_id, actor="ada", reason="it fits")
        await orchestrator.reject(saga_id, "ada")  # E: call-arg
        admin = SagaAdmin[OrderSaga](engine=orchestrator.engine)
        reveal_type((await admin.list_sagas()).items)  # R: list[SagaSnapshot]
        reveal_type((await admin.get_saga(saga_id)).step_history)  # R: Sequence[HistoryEntry]
        await admin.abort(saga_id, "ada")  # E: call-arg
        reveal_type(await admin.dirty_sagas())  # R: list[UUID]
        reveal_type(await admin.dirty_state(saga_id))  # R: DirtyState | None
        reveal_type(await admin.execute_compensation(saga_id, "REVERT", actor="ada"))  # R: CompensationResult
        SagaBuilder(on_failure=FailureAction.CLOSE_ALL, close_all=close_all)
        SagaBuilder(alert_human=close_all)  # E: arg-type
        SagaOrchestrator[Base](model_class=Base, session_maker=sessions)  # E: type-var
