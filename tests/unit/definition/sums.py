"""Steps to write sagas down with: none of them is ever run."""

from __future__ import annotations

from pydantic import BaseModel

from saga_orchestrator import BaseStep, StepKind


class Sum(BaseModel):
    cents: int = 0


class Final(BaseStep[Sum, Sum]):
    kind = StepKind.PIVOT

    async def execute(self, inp: Sum) -> Sum:
        return inp


class Loose(BaseStep[Sum, Sum]):
    async def execute(self, inp: Sum) -> Sum:
        return inp


class Pay(Loose):
    async def compensate(self, inp: Sum, out: Sum) -> None:
        raise NotImplementedError
