"""A trip: flight, hotel and car are held side by side, the quote is charged, and what it was too high is paid back.

How it is paid back, to the card or as a voucher, is a choice. Ann's trip is booked; Bob gets no tickets, and what was
done for him is undone, the last first.

python examples/travel_booking.py
"""

import asyncio
import tempfile
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    InputContext,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    StepKind,
)


class Base(DeclarativeBase):
    pass


class TripSaga(Base, SagaStateMixin):
    __tablename__ = "trip_saga"


class Traveller(BaseModel):
    name: str


class Sum(BaseModel):
    name: str
    euros: int


DIARY: list[str] = []  # what all participants have done, in that order


class Book:
    """What one participant has written down. It knows nothing of sagas; a real one would act once for each key."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.entries: dict[str, int] = {}

    def write(self, name: str, euros: int) -> None:
        self.entries[name] = self.entries.get(name, 0) + euros
        DIARY.append(f"{self.title} {euros:+}")


class Hold(BaseStep[Traveller, Sum]):
    def __init__(self, book: Book, euros: int) -> None:
        self.book, self.euros = book, euros

    async def execute(self, inp: Traveller) -> Sum:
        self.book.write(inp.name, self.euros)
        return Sum(name=inp.name, euros=self.euros)

    async def compensate(self, inp: Traveller, out: Sum) -> None:
        self.book.write(inp.name, -out.euros)


class Move(BaseStep[Sum, Sum]):
    def __init__(self, book: Book, sign: int) -> None:
        self.book, self.sign = book, sign

    async def execute(self, inp: Sum) -> Sum:
        self.book.write(inp.name, self.sign * inp.euros)
        return inp

    async def compensate(self, inp: Sum, out: Sum) -> None:
        self.book.write(inp.name, -self.sign * inp.euros)


class IssueTickets(BaseStep[Traveller, Traveller]):
    kind = StepKind.PIVOT  # nobody takes a ticket back: from here on, only forward

    async def execute(self, inp: Traveller) -> Traveller:
        if inp.name == "bob":
            raise PermanentError("the passport has expired")
        return inp


def trip_saga(books: dict[str, Book]) -> SagaDefinition:
    builder = SagaBuilder()
    with builder.parallel():
        for what, euros in {"flight": 210, "hotel": 180, "car": 60}.items():
            builder.add_step(step=Hold(books[what], euros), input_map=lambda ctx: ctx.initial_data, step_id=what)
    builder.add_step(
        step=Move(books["card"], +1),
        input_map=lambda ctx: {**ctx.initial_data, "euros": ctx.initial_data["quote"]},
        step_id="charge",
    )
    builder.add_choice(
        choose=lambda ctx: ctx.initial_data["pay_back"],  # the answer is recorded, and never asked for again
        branches={"card": only(Move(books["card"], -1)), "voucher": only(Move(books["voucher"], +1))},
        input_map=too_much,
        step_id="pay_back",
    )
    builder.add_step(step=IssueTickets(), input_map=lambda ctx: ctx.initial_data, step_id="tickets")
    return builder.build()


def too_much(ctx: InputContext) -> Sum:
    cost = sum(ctx.step_outputs[what]["euros"] for what in ("flight", "hotel", "car"))
    return Sum(name=ctx.initial_data["name"], euros=ctx.initial_data["quote"] - cost)


def only(step: Move) -> SagaDefinition:
    branch = SagaBuilder()
    branch.add_step(step=step, input_map=lambda ctx: ctx.initial_data)
    return branch.build()


async def main(folder: Path) -> None:
    books = {title: Book(title) for title in ("flight", "hotel", "car", "card", "voucher")}
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'trips.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with SagaOrchestrator[TripSaga](model_class=TripSaga, session_maker=sessions) as orchestrator:
        orchestrator.register("trip", trip_saga(books))
        for name, how in {"ann": "voucher", "bob": "card"}.items():
            wanted = {"name": name, "quote": 500, "pay_back": how}
            saga_id = await orchestrator.start(saga_name="trip", initial_data=wanted, aggregation_id=name)
            result = await orchestrator.result(saga_id)
            print(f"{name}: {result.status.value} {result.error or ''}".rstrip())
    await engine.dispose()

    print(*(f"  {book.title:<7}  {book.entries}" for book in books.values()), sep="\n")
    assert [book.entries["ann"] for book in books.values()] == [210, 180, 60, 500, 50]
    assert all(book.entries.get("bob", 0) == 0 for book in books.values())
    done, undone = DIARY[5:10], DIARY[10:]
    assert (set(done[:3]), done[3:]) == ({"flight +210", "hotel +180", "car +60"}, ["card +500", "card -50"])
    assert (undone[:2], set(undone[2:])) == (["card +50", "card -500"], {"flight -210", "hotel -180", "car -60"})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
