"""`python -m tests.simulation`: run many seeds, or replay one."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from random import Random

from .plan import Plan
from .world import Report, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 if any seed found anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--verbose", action="store_true", help="print the whole trace of each run")
    wanted = parser.parse_args(arguments)
    seeds = [wanted.seed] if wanted.seed is not None else range(wanted.first, wanted.first + wanted.seeds)
    began, failed, ends = time.monotonic(), 0, Counter[str]()
    for seed in seeds:
        report = simulate(seed)
        ends.update(report.ends)
        failed += bool(report.violations)
        show(report, verbose=wanted.verbose, single=wanted.seed is not None)
    took = time.monotonic() - began
    shown = dict(sorted(ends.items()))
    print(f"{len(seeds)} seeds, {sum(ends.values())} sagas in {took:.1f} s, {failed} seeds failed; {shown}")
    return 1 if failed else 0


def show(report: Report, *, verbose: bool, single: bool) -> None:
    """Print a run: its trace if that is wanted, and what was wrong with it, if anything."""
    if verbose:
        print("\n".join(report.trace))
    if single:
        print(f"seed {report.seed}: {Plan.drawn(Random(f'{report.seed}/plan'))}\ntrace {report.digest}")
    if report.violations:
        print(f"seed {report.seed} FAILED: {report.violations[0]}")
        print(f"    replay: python -m tests.simulation --seed {report.seed} --verbose")


if __name__ == "__main__":
    sys.exit(main())
