"""The planted bugs: every one is noticed in some world, and the kernel that is shipped passes them all."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.laws.editions import edition, patched
from tests.laws.tape import Tape
from tests.laws.world import LawBrokenError, World

from .planted import MUTANTS, Mutant

WORLDS = range(3000)


def broken_law(kernel: SimpleNamespace, seed: int) -> str | None:
    """Return the first law that a kernel breaks in one world."""
    try:
        World(kernel, Tape(random.Random(seed).randbytes(300))).run()
    except LawBrokenError as broken:
        return str(broken).splitlines()[0]
    return None


def first_notice(kernel: SimpleNamespace, mutant: Mutant) -> int | None:
    """Return the first world in which a bug is noticed: the one that is known to, or else any."""
    return next((seed for seed in (mutant.seed, *WORLDS) if broken_law(kernel, seed)), None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    """A kernel with this bug breaks a law; `python -m tests.laws.mutants` finds the seeds anew when worlds change."""
    with patched(tmp_path, mutant.module, mutant.right, mutant.wrong) as kernel:
        assert first_notice(kernel, mutant) is not None


def test_the_kernel_passes_every_world_in_which_a_bug_was_noticed() -> None:
    """It is the bug that breaks the law, not the world."""
    kernel = edition()
    broken = {seed: broken_law(kernel, seed) for seed in {mutant.seed for mutant in MUTANTS}}
    assert {seed: law for seed, law in broken.items() if law} == {}


def test_no_bug_is_planted_twice() -> None:
    """Each has a name and a change of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len({mutant[1:4] for mutant in MUTANTS}) == len(MUTANTS)
