"""Every example runs as it stands, asserts what it says, and prints exactly what the file beside it holds.

An example without such a file fails; write one with ``python examples/name.py > examples/name.out``, and read it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert {"order_saga", "agent_with_approval"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_always_printed(path: Path) -> None:
    command = [sys.executable, "-W", "error", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == path.with_suffix(".out").read_text(encoding="utf-8")


def test_no_expected_output_is_left_without_its_example() -> None:
    expected = sorted(path.stem for path in (ROOT / "examples").glob("*.out"))

    assert expected == [path.stem for path in EXAMPLES]
