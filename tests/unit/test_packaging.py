"""What an installation brings along, and what it offers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in requirements}


def test_an_installation_brings_six_libraries() -> None:
    """Nothing is installed that only one way of using the library needs."""
    expected = {"sqlalchemy", "greenlet", "asyncpg", "aiosqlite", "pydantic", "loguru"}

    assert names(PROJECT["project"]["dependencies"]) == expected


def test_users_are_offered_nothing_that_only_this_project_needs() -> None:
    """Tests, gates and benchmarks are dependency groups, which no index shows."""
    assert PROJECT["project"]["optional-dependencies"].keys() == {"alembic"}
    assert PROJECT["dependency-groups"].keys() == {"dev", "bench"}


def test_a_group_is_a_plain_list_of_requirements() -> None:
    """The Makefile hands the list to pip as it stands, so a group includes no other and no extra of this project."""
    requirements = [entry for group in PROJECT["dependency-groups"].values() for entry in group]

    assert all(isinstance(requirement, str) for requirement in requirements)
    assert "saga-orchestrator" not in names(requirements)


def test_the_tests_use_the_alembic_that_users_are_offered() -> None:
    """The floor that is declared to users is the floor that is tested."""
    offered = PROJECT["project"]["optional-dependencies"]["alembic"]

    assert set(offered) <= set(PROJECT["dependency-groups"]["dev"])
