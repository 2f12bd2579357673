"""The feature matrix tells the truth: every test that it names exists, and every mark stands in it once."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/feature-matrix.md"
ROW = re.compile(r"^\| (?P<mark>[A-Za-z0-9-]+) \| (?P<what>[^|]+) \| (?P<proof>[^|]+) \|$", re.MULTILINE)
NOT_YET = "not yet"
CAPABILITIES = {
    f"{letter}{number}"
    for letter, count in (("P", 27), ("Q", 9), ("D", 19), ("M", 19), ("F", 16), ("N", 20))
    for number in range(1, count + 1)
}
DELIVERED = {f"P{number}" for number in range(1, 28)} | {
    *("Q1", "Q9", "D13", "M13", "M19", "F3", "F7", "F10"),
    *("N2", "N3", "N4", "N5", "N6", "N9", "N18"),
    *("Q3", "Q4", "Q5", "Q6", "Q8", "N1", "N13"),
    *("D1", "D2", "D3", "D4", "D5", "D6", "D7"),
    *("M3", "M4", "M14", "M15", "M16", "F1", "F4", "F5"),
    *("F11", "F12", "N10"),
    *("M1", "M2", "M5", "M6", "M7", "M8", "M9", "M10", "M11", "M12"),
    *("F2", "F6", "F8", "F9", "F13", "F14", "F15", "F16"),
    *("Q2", "D9", "D10", "D12", "N15"),
    *("M17", "M18"),
}
DEFECTS = set("abcdefghijklmnopqr")


def rows() -> dict[str, list[str]]:
    """Return the proofs of each mark; none of one that is not delivered yet."""
    found = {}
    for match in ROW.finditer(PAGE.read_text()):
        mark, proof = match["mark"], match["proof"]
        if mark != "mark":
            assert mark not in found, f"{mark} stands in the matrix twice"
            found[mark] = [] if proof == NOT_YET else [each.strip("`") for each in proof.split("<br>")]
    return found


PROOFS = sorted({proof for proofs in rows().values() for proof in proofs})


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Return the names of the tests in a file, as pytest writes them."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {prefix + m.name for m in members if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)}
    return frozenset(names)


def exists(proof: str) -> bool:
    """Return whether the test that is named ``path::name``, or ``path::Class::name``, exists."""
    path, _, name = proof.partition("::")
    is_test = name.rpartition("::")[2].startswith("test_")
    return is_test and (ROOT / path).is_file() and name in defined_in(ROOT / path)


@pytest.mark.parametrize("proof", PROOFS)
def test_a_test_that_the_matrix_names_exists(proof: str) -> None:
    """A renamed or removed test takes its line in the matrix with it."""
    assert exists(proof)


def test_every_capability_stands_in_the_matrix() -> None:
    """None is left out because it is not there yet."""
    assert rows().keys() >= CAPABILITIES


def test_exactly_what_is_delivered_is_proved() -> None:
    """What is promised has a test, and what is not says so."""
    assert {mark for mark, proofs in rows().items() if mark in CAPABILITIES and proofs} == DELIVERED


def test_every_defect_of_the_closest_predecessor_is_refuted() -> None:
    """Each by a test that carries its letter."""
    found = rows()
    refuted = {mark for mark in DEFECTS if any(f"::test_{mark}_" in proof for proof in found[mark])}
    assert refuted == DEFECTS


def test_every_row_is_read() -> None:
    """No line of a table escapes these tests because it is written a little differently."""
    written = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    headings = [line for line in written if line.startswith(("| mark ", "|---"))]
    assert len(written) - len(headings) == len(rows())


@pytest.mark.parametrize(
    "proof",
    [
        "tests/unit/test_feature_matrix.py::test_that_nobody_wrote",
        "tests/unit/test_feature_matrix.py::exists",
        "tests/unit/test_nowhere.py::test_every_row_is_read",
        "tests/unit/test_feature_matrix.py",
    ],
)
def test_a_test_that_does_not_exist_is_found_out(proof: str) -> None:
    """The check above is able to fail."""
    assert not exists(proof)
    assert exists("tests/unit/test_feature_matrix.py::test_every_row_is_read")
