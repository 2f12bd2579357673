"""Sagas whose steps are plain functions, and constants, at work in a database."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

from saga_orchestrator import PermanentError, SagaAdmin, SagaBuilder, SagaDefinition, SagaStatus, step
from tests.support.sagas import NAME, Site, soon


class Shop:
    """A saga of functions, and what they did. `broken`: the last step fails."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.asked = 0
        self.broken = False

    def definition(self, fees: dict[str, int], **settings: bool) -> SagaDefinition:
        @step
        def reserve(sku: str, warehouse: str) -> str:
            self.done.append(f"reserve {sku} in {warehouse}")
            return f"r-{sku}"

        @reserve.compensate
        def release(sku: str, out: str) -> None:
            self.done.append(f"release {sku} {out}")

        @step
        async def charge(reservation: str, cents: int) -> int:
            self.done.append(f"charge {reservation} {cents}")
            if self.broken:
                raise PermanentError("declined")
            return cents

        builder = SagaBuilder(**settings)  # type: ignore[arg-type]
        fee = builder.add_constant(fees, step_id="fees")
        held = builder.add_step(
            step=reserve.bind(warehouse="north"), input_map=lambda ctx: ctx.initial_data, step_id="reserve", after=[]
        )
        builder.add_step(step=charge, input_map=self.bill, depends_on=[held, fee], step_id="charge")
        return builder.build()

    @staticmethod
    def bill(held: RootModel[str], fees: RootModel[Any]) -> dict[str, object]:
        return {"reservation": held.root, "cents": fees.root["card"]}


async def test_m3_m4_f5_functions_and_constants_make_a_saga(database: Site) -> None:
    """Synchronous and not, with bound arguments; each output reaches the next step as what it was."""
    shop = Shop()
    orchestrator = database.joins(shop.definition({"card": 3}))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")
    result = await soon(orchestrator.result(saga_id))

    assert result.status is SagaStatus.COMPLETED
    assert shop.done == ["reserve cup in north", "charge r-cup 3"]
    assert result.outputs == {"fees": {"card": 3}, "reserve": "r-cup", "charge": 3}


async def test_f1_a_function_is_undone_by_its_function(database: Site) -> None:
    """With the recorded arguments and output."""
    shop = Shop()
    shop.broken = True
    orchestrator = database.joins(shop.definition({"card": 3}))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED
    assert shop.done[-1] == "release cup r-cup"


async def test_f5_a_saga_keeps_the_constant_of_its_day(database: Site) -> None:
    """Newer code, with another constant, goes on with what was recorded."""
    shop = Shop()
    shop.broken = True
    builder_of = {"compensate_on_failure": False}
    orchestrator = database.joins(shop.definition({"card": 3}, **builder_of))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")
    await orchestrator.aclose()
    shop.broken = False
    newer = database.joins(shop.definition({"card": 5}, **builder_of))

    await SagaAdmin(engine=newer.engine).retry_step(saga_id, actor="ann", reason="the card works again")

    assert (await soon(newer.result(saga_id))).outputs["charge"] == 3
