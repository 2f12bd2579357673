"""Whether a saga's cost is linear in its steps: what a step takes in sagas of 125, 250 and 500 steps.

Alone: `python -m benches.length`.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from .cases import order
from .ours import create_tables, definition, engine_for, orchestrator_on
from .part import main

LENGTHS = (125, 250, 500)


async def measure(url: str, rounds: int) -> dict[str, Any]:
    """Drive one saga of each length, in turn; the first round warms up."""
    engine = engine_for(url)
    await create_tables(engine)
    orchestrator = orchestrator_on(engine, {f"long_{steps}": definition(steps) for steps in LENGTHS})
    seconds: dict[int, list[float]] = {steps: [] for steps in LENGTHS}
    for turn in range(rounds + 1):
        for steps in LENGTHS:
            began = time.perf_counter()
            saga_id = await orchestrator.start(
                saga_name=f"long_{steps}", initial_data=order(turn), aggregation_id=f"{turn}-{steps}"
            )
            seconds[steps].append(time.perf_counter() - began)
            result = await orchestrator.result(saga_id)
            if result.status.value != "COMPLETED" or len(result.outputs) != steps:
                raise RuntimeError(
                    f"a saga of {steps} steps ended {result.status.value} with {len(result.outputs)} outputs"
                )
    await orchestrator.aclose()
    await engine.dispose()
    per_step = {steps: 1000 * statistics.median(seconds[steps][1:]) / steps for steps in LENGTHS}
    return {
        "ms_per_step": {str(steps): value for steps, value in per_step.items()},
        "ratio": per_step[LENGTHS[-1]] / per_step[LENGTHS[0]],
    }


if __name__ == "__main__":
    main(measure, 5, __doc__)
