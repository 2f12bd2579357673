"""The public API as mypy sees it in strict mode: what it infers, and which mistakes it finds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = ROOT / "tests/typing/public_api.py"
EXPECTED = re.compile(r"  # (?P<kind>[RE]): (?P<what>.+)$")
SAID = re.compile(
    r"public_api\.py:(?P<line>\d+): (?:note: Revealed type is \"(?P<type>.+)\"|error: .*\[(?P<code>[a-z-]+)\])$"
)
MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=\w)")


def expected(source: str) -> dict[int, set[str]]:
    found = ((number, EXPECTED.search(line)) for number, line in enumerate(source.splitlines(), start=1))
    return {
        number: {match["what"]} if match["kind"] == "R" else set(match["what"].split(", "))
        for number, match in found
        if match
    }


def said(report: str) -> dict[int, set[str]]:
    answers: dict[int, set[str]] = defaultdict(set)
    for match in filter(None, map(SAID.search, report.splitlines())):
        answers[int(match["line"])].add(match["code"] or MODULE.sub("", match["type"]))
    return dict(answers)


def test_the_public_api_is_typed_as_its_users_expect() -> None:
    """Every type that is revealed, and every mistake that is found, stands beside its line, and there is no other."""
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(READ.relative_to(ROOT))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, ""), run.stdout + run.stderr
    assert said(run.stdout) == expected(READ.read_text())
