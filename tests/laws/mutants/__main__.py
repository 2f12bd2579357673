"""Find, for every planted bug, the first world that notices it: `python -m tests.laws.mutants`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.laws.editions import patched

from .planted import MUTANTS
from .test_mutants import WORLDS, broken_law

for mutant in MUTANTS:
    with (
        tempfile.TemporaryDirectory() as folder,
        patched(Path(folder), mutant.module, mutant.right, mutant.wrong) as kernel,
    ):
        found = next(((seed, law) for seed in WORLDS if (law := broken_law(kernel, seed))), (None, "SURVIVES"))
        print(f"{found[0]!s:>5}  {mutant.name}: {found[1]}", flush=True)
