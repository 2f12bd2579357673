"""`make matrix`: run the cells one after the other, and print a table of what each one ran on and what came of it.

The environments and logs of the cells are in ``.venv-matrix``; `make clean` removes it. A cell that this machine cannot
run is skipped and says why. The exit code is 1 if a cell failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.matrix.cells import Cell, cells
from tests.matrix.places import ROOT

HOME = ROOT / ".venv-matrix"
_VERSIONS = """
import importlib.metadata as m, platform, sqlite3
print(platform.python_version(), m.version("sqlalchemy"), m.version("asyncpg"), m.version("aiosqlite"),
      m.version("pydantic"), sqlite3.sqlite_version)
"""
_FOLDER_OF = (
    "import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec('{}').origin).parent / 'pginstall/bin')"
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    cell: str
    result: str
    ran_on: str = ""
    seconds: float = 0.0
    is_failed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix ARGS=", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a cell, or how its name begins")
    parser.add_argument("--list", action="store_true", help="print the cells and stop")
    parser.add_argument("--jobs", type=int, default=2, help="processes for the tests of a cell (default: 2)")
    asked = parser.parse_args()
    wanted = [cell for cell in cells() if not asked.only or cell.name.startswith(tuple(asked.only))]
    if not wanted:
        parser.error(f"no cell is called {' or '.join(asked.only)}; --list names them")
    if asked.list:
        print(*(f"{cell.name:20}{cell.missing and 'skipped: ' + cell.missing}" for cell in wanted), sep="\n")
        return 0
    rows = [_run(cell, asked.jobs) for cell in wanted]
    _print_table(rows)
    return 1 if any(row.is_failed for row in rows) else 0


def _run(cell: Cell, jobs: int) -> Row:
    if cell.missing:
        return _told(Row(cell.name, f"skipped: {cell.missing}"))
    print(f"--- {cell.name}", flush=True)
    began = time.monotonic()
    python, complaint = _environment(cell)
    if complaint:
        return _told(Row(cell.name, f"FAILED to install: {complaint}", is_failed=True))
    variables = dict(cell.variables)
    if cell.server_module:
        variables["SAGA_PG_BIN"] = _output(python, _FOLDER_OF.format(cell.server_module))
    ran_on = _ran_on(python, variables)
    log = HOME / f"{cell.name}.log"
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        str(jobs),
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
        *cell.tests,
    ]
    with log.open("w") as written:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, stdout=written, stderr=written, check=False
        )
    said = _last_line(log.read_text(errors="replace"))
    result = said if done.returncode == 0 else f"FAILED: {said} ({log.relative_to(ROOT)})"
    return _told(Row(cell.name, result, ran_on, time.monotonic() - began, done.returncode != 0))


def _environment(cell: Cell) -> tuple[Path, str]:
    """Make the environment of a cell, or bring it up to date. Return its interpreter, and what pip complained of."""
    folder = HOME / cell.environment
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([cell.python, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, *cell.packages, "--editable", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return python, (errors or ["pip failed"])[0] if done.returncode else ""


def _ran_on(python: Path, variables: dict[str, str]) -> str:
    names = ("Python", "SQLAlchemy", "asyncpg", "aiosqlite", "pydantic", "SQLite")
    versions = [f"{name} {version}" for name, version in zip(names, _output(python, _VERSIONS).split(), strict=True)]
    find = "from tests.support.postgres import find_binaries as f; print(f())"
    server = variables.get("SAGA_PG_BIN") or _output(python, find)
    said = subprocess.run([f"{server}/postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)?", said)
    return ", ".join([*versions, f"PostgreSQL {found[0] if found else said.strip()}"])


def _output(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _last_line(log: str) -> str:
    lines = [line.strip(" =") for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _told(row: Row) -> Row:
    print(f"    {row.result}", flush=True)
    return row


def _print_table(rows: list[Row]) -> None:
    print()
    for row in rows:
        seconds = f"{row.seconds:5.0f} s" if row.seconds else " " * 7
        print(f"{row.cell:20}{seconds}  {row.result}")
        if row.ran_on:
            print(f"{'':29}{row.ran_on}")
    failed = sum(row.is_failed for row in rows)
    skipped = sum(row.result.startswith("skipped") for row in rows)
    print(f"\n{len(rows) - failed - skipped} cells passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    sys.exit(main())
