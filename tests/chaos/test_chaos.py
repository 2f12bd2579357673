"""A short rage of the monkey, on both databases; `make chaos` is the long one."""

from __future__ import annotations

import secrets

import pytest

from tests.chaos.run import Database, Stage, run


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("database", "seconds"), [("postgresql", 10), ("sqlite", 6)])
def test_nothing_is_lost_doubled_stranded_or_wrong(database: Database, seconds: float) -> None:
    """Whatever is killed, stopped, cut off or ordered: the tables and the outside world agree in the end."""
    report = run(seconds, seed=secrets.randbelow(1_000_000), stage=Stage(database, workers=2))
    print(report)
    assert report.findings.all == [], report
    assert report.deeds["kills"]
    assert report.deeds["stops"]
    assert report.counts["effects"]
    assert report.counts["undos"]
