"""`python -m tests.chaos --seconds 60`: exit 1, with the seed and details, if anything was lost, doubled or wrong."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.chaos.run import Stage, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the monkey rages")
    parser.add_argument("--seed", type=int, default=None, help="what the monkey and the orders are drawn from")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--workers", type=int, default=3, help="worker processes, beside the service and the operator")
    parser.add_argument("--network", action="store_true", help="torment the network before PostgreSQL as well")
    parser.add_argument("--keep", action="store_true", help="keep the logs even if nothing is found")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    if given.network and given.database != "postgresql":
        parser.error("--network needs PostgreSQL")
    stage = Stage(given.database, given.workers, network=given.network)
    report = run(given.seconds, seed=seed, stage=stage, keep=given.keep)
    print(report)
    if given.keep:
        print(f"the logs are in {report.folder}")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
