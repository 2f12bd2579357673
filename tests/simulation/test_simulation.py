"""The short form of the simulation: some seeds, a crash at every boundary of three sagas, and proof that it replays.

`python -m tests.simulation --seeds 1000` is the long form.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from random import Random

import pytest

from saga_orchestrator import SagaDefinition
from tests.simulation import sagas
from tests.simulation.__main__ import main
from tests.simulation.mutants import (
    ACTIONS,
    DECISIONS,
    DEFECTS,
    EVERYTHING,
    FAMILIES,
    MUTANTS,
    PARTS,
    PURGES,
    RETURNS,
    SICKNESS,
    SILENCE,
)
from tests.simulation.plan import Plan
from tests.simulation.world import Report, World, simulate

SEEDS, AT_ONCE = 40, 10
QUIET = {"machines": 2, "sagas": 1, "seconds": 6.0, "slowness": 0.2}


lived = cache(simulate)
"""Live through the world of a seed, once in each test process."""


def found(report: Report) -> str:
    """Return what was wrong with a run, and how to see it again; nothing if nothing was."""
    replay = f"replay: python -m tests.simulation --seed {report.seed} --verbose"
    return "\n".join([*report.violations, replay]) if report.violations else ""


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_fault_makes_a_saga_lose_double_or_misreport_anything(first: int) -> None:
    """Whatever fails whenever: nothing is lost, doubled, stranded, or said to be what it is not."""
    for seed in range(first, first + AT_ONCE):
        assert not found(lived(seed))


def test_everything_fails_at_once_and_nothing_is_wrong() -> None:
    """The same holds where every kind of fault happens in the same run."""
    for seed in range(AT_ONCE):
        assert not simulate(seed, EVERYTHING).violations


def test_whatever_goes_back_and_forward_again_is_done_once_more_and_no_oftener() -> None:
    """Each rewind undoes what it is to undo, and has it done under new keys; what has ended can be undone, too."""
    reports = [simulate(seed, RETURNS) for seed in range(AT_ONCE)]
    traces = "\n".join(line for report in reports for line in report.trace)

    assert [found(report) for report in reports] == [""] * AT_ONCE
    assert re.search(r"~\d+ ACTED", traces)
    assert re.search(r"~\d+ UNDID", traces)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_crash_at_any_boundary_of_a_rewind_loses_and_doubles_nothing(seed: int) -> None:
    """Whichever machine is killed when, what is COMPLETED stands once, and what is COMPENSATED not at all."""

    def draw(world: World) -> dict[str, SagaDefinition]:
        return {"d": sagas.plain(world, window=timedelta(minutes=1))}

    plan = Plan(**{**QUIET, "seconds": 20.0}, rewinds=10)
    undisturbed = simulate(seed, plan, draw)
    assert any("~1 ACTED" in line for line in undisturbed.trace)
    for boundary in range(undisturbed.boundaries):
        report = simulate(seed, replace(plan, crash_at=boundary), draw)
        assert not report.violations, f"killed at boundary {boundary} of {undisturbed.boundaries}"


def test_what_is_confirmed_was_committed_and_is_never_undone() -> None:
    """Whoever commits and rejects what when, also in the middle of a rewind, each saga is decided once and for all."""
    reports = [simulate(seed, DECISIONS) for seed in range(AT_ONCE)]
    traces = "\n".join(line for report in reports for line in report.trace)

    assert [found(report) for report in reports] == [""] * AT_ONCE
    for what in (r"\.confirm ACTED", r"commit \S+: done", r"reject \S+: done", "saga.decision:Waiting"):
        assert re.search(what, traces), what


def test_a_drawn_child_is_started_once_in_each_life_and_undone_with_its_parent() -> None:
    """Also where a rewind has its parent go back, which has another child then."""
    reports = [simulate(seed, FAMILIES) for seed in range(AT_ONCE)]
    traces = "\n".join(line for report in reports for line in report.trace)

    assert [found(report) for report in reports] == [""] * AT_ONCE
    for what in (r"/step_\d+~\w+ r\d+ is COMPLETED", r"/step_\d+~\w+ r\d+ is COMPENSATED"):
        assert re.search(what, traces), what


@pytest.mark.parametrize(
    ("plan", "seen"),
    [
        pytest.param(PARTS, "ACTED", id="parts"),
        pytest.param(PURGES, "is deleted", id="purges"),
        pytest.param(SILENCE, "silence", id="silence"),
        pytest.param(SICKNESS, "not well", id="sickness"),
        pytest.param(ACTIONS, "CLOSED", id="actions"),
        pytest.param(DEFECTS, "DEFECT", id="defects"),
    ],
)
def test_a_world_of_its_own_loses_doubles_and_misreports_nothing(plan: Plan, seen: str) -> None:
    """Parts that are done once, sagas that are deleted, connections that say nothing, hooks that race."""
    reports = [simulate(seed, plan) for seed in range(AT_ONCE)]

    assert [found(report) for report in reports] == [""] * AT_ONCE
    assert seen in "\n".join(line for report in reports for line in report.trace)


def test_the_runs_are_full_of_faults_and_of_ends() -> None:
    """The seeds above prove something: they crash, freeze, stop and fail, and their sagas end in every way."""
    reports = [lived(seed) for seed in range(SEEDS)]
    traces = "\n".join(line for report in reports for line in report.trace)

    ends = {end for report in reports for end in report.ends}
    assert ends >= {"COMPLETED", "COMPENSATED", "FAILED", "STUCK"}  # a parent of one that is stuck may be SUSPENDED
    for fault in (
        "CRASH",
        "FREEZE",
        "SHUTDOWN",
        "refused",
        "answer lost",
        "caller has gone",
        "abort",
        "FENCED",
        "rewind",
        "is deleted",
        "silence",
    ):
        assert fault in traces, fault


SCENES = [sagas.plain, sagas.doomed, sagas.committed, sagas.held]


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_a_crash_at_any_boundary_changes_no_outcome(make: Callable[[World], SagaDefinition]) -> None:
    """Killed before or after any one of its commits, or at any `await` in a step, a saga comes to the same end."""

    def draw(world: World) -> dict[str, SagaDefinition]:
        return {"d": make(world)}

    for seed in range(3):
        undisturbed = simulate(seed, Plan(**QUIET), draw)
        assert undisturbed.boundaries > 15
        for boundary in range(undisturbed.boundaries):
            report = simulate(seed, Plan(**QUIET, crash_at=boundary), draw)
            assert not report.violations, f"killed at boundary {boundary} of {undisturbed.boundaries}"
            assert report.ends in ([], undisturbed.ends)  # none: killed before the saga was born


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_boundary_changes_no_outcome_of_a_family(seed: int) -> None:
    """A child is started once, and undone with its parent, whichever machine is killed when."""
    undisturbed = simulate(seed, Plan(**QUIET), sagas.family)
    for boundary in range(undisturbed.boundaries):
        report = simulate(seed, Plan(**QUIET, crash_at=boundary), sagas.family)
        assert not report.violations, f"killed at boundary {boundary} of {undisturbed.boundaries}"
        assert report.ends in ([], undisturbed.ends)


def test_no_fault_makes_a_family_lose_double_or_misreport_anything() -> None:
    """Whatever fails whenever, and whatever operators order meanwhile."""
    for seed in range(SEEDS):
        plan = replace(Plan.drawn(Random(f"{seed}/plan")), old_releases=0.0)  # who runs a parent must know its child
        assert simulate(seed, plan, sagas.family).violations == []


def test_the_same_seed_is_the_same_run() -> None:
    """A run can be had again, to the microsecond; another seed is another run."""
    again = [simulate(seed) for seed in (3, 3, 4)]

    assert again[0].trace == again[1].trace
    assert len({report.digest for report in again}) == 2


def test_a_run_can_be_had_again_in_another_interpreter() -> None:
    """Nothing of the machine gets into a run: not its clock, its chance, its ids, nor the order of its hash tables."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "5"]
    printed = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        )
        for hashes in ("1", "2")
    ]

    traces = [re.search("trace [0-9a-f]{16}", run.stdout) for run in printed]
    assert traces[0] is not None
    assert traces[1] is not None
    assert traces[0].group() == traces[1].group() == f"trace {simulate(5).digest}"


def test_a_failing_seed_is_named_with_how_to_replay_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever sees a failure sees what was violated, and the one command that shows it again."""
    with MUTANTS["a_write_is_answered_before_it_is_durable"].planted():
        assert main(["--seeds", "3"]) == 1

    printed = capsys.readouterr().out
    assert "seed 0 FAILED" in printed
    assert "replay: python -m tests.simulation --seed 0 --verbose" in printed


def test_the_whole_trace_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--verbose` shows every commit, call and fault of the run."""
    assert main(["--seed", "3", "--verbose"]) == 0

    assert "A.1 is up" in capsys.readouterr().out
