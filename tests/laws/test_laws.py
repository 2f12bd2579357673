"""The laws of the kernel, in random worlds. `SAGA_LAWS_EXAMPLES=3000` is the long form."""

from __future__ import annotations

import os
import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saga_orchestrator.kernel.state import SagaStatus

from .editions import edition
from .tape import Tape
from .world import World

EXAMPLES = int(os.environ.get("SAGA_LAWS_EXAMPLES", "300"))
KERNEL = edition()


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=300, max_size=300))
def test_every_law_holds_after_every_decision_in_every_world(tape: bytes) -> None:
    """Whatever happens in whatever order to whatever saga, it ends well or says truly what stands."""
    World(KERNEL, Tape(tape)).run()


def test_the_worlds_are_hostile_enough() -> None:
    """Random worlds lead to every end, through every verdict and every order: else the laws would hold of nothing."""
    ends, words = set(), Counter[str]()
    for seed in range(150):
        world = World(KERNEL, Tape(random.Random(seed).randbytes(300)))
        world.run()
        ends.add(world.status)
        words["omitted"] += any('"O"' in line for line in world.story)
        words.update(word.split("(")[0] for line in world.story for word in line.split())
    assert ends == {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED, SagaStatus.STUCK}
    events = {
        "Noted",
        "Claimed",
        "Ticked",
        "Notified",
        "Returned",
        "Raised",
        "Probed",
        "Compensated",
        "CompensationRaised",
    }
    orders = {"RetryOrdered", "SkipOrdered", "CompensateOrdered", "CancelOrdered", "AbortOrdered", "WaiveOrdered"}
    orders.add("FailureOrdered")
    orders |= {"PauseOrdered", "ResumeOrdered", "StepOrdered"}
    verdicts = {verdict.value for verdict in KERNEL.Verdict}
    assert {word for word in {"omitted"} | events | orders | verdicts if words[word] < 5} == set()
