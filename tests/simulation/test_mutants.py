"""The simulation sees: each planted bug is found, within a few seeds, and the faults alone are not mistaken for one."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import simulate

SEEDS = 60
"""At most; most mutants die of the first. The seed that the mutant names is tried before them."""


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_the_simulation_finds_a_planted_bug(mutant: Mutant) -> None:
    """Some seed reports a violation, and the same seed without the bug reports none."""
    with mutant.planted():
        seeds = (mutant.seed, *range(SEEDS))
        caught = next((seed for seed in seeds if simulate(seed, mutant.plan).violations), None)

    assert caught is not None
    assert not simulate(caught, mutant.plan).violations
