"""Find, for every planted bug, a world that notices it, and write its number down: `python -m tests.laws.mutants`.

A bug whose number still serves keeps it. A number that no longer does costs the tests a search of minutes.
"""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

from tests.laws.editions import patched

from .planted import MUTANTS, Mutant
from .test_mutants import broken_law, first_notice

PLANTED = Path(__file__).with_name("planted.py")


def main() -> None:
    """Look for every bug, and keep what was found."""
    for mutant in MUTANTS:
        with (
            tempfile.TemporaryDirectory() as folder,
            patched(Path(folder), mutant.module, mutant.right, mutant.wrong) as kernel,
        ):
            seed = first_notice(kernel, mutant)
            law = "SURVIVES" if seed is None else broken_law(kernel, seed)
        print(f"{seed!s:>5}  {mutant.name}: {law}", flush=True)
        if seed not in (None, mutant.seed):
            write(mutant, seed)


def write(mutant: Mutant, seed: int) -> None:
    """Write down which world notices a bug: the last argument of its entry."""
    text = PLANTED.read_text()
    entry = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and node.args and getattr(node.args[0], "value", None) == mutant.name
    )
    last = entry.args[-1]
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    lines = text.splitlines(keepends=True)
    line = lines[last.end_lineno - 1].encode()
    keeps = last.col_offset if len(entry.args) == len(Mutant._fields) else last.end_col_offset
    number = str(seed) if keeps == last.col_offset else f", {seed}"
    lines[last.end_lineno - 1] = (line[:keeps] + number.encode() + line[last.end_col_offset :]).decode()
    PLANTED.write_text("".join(lines))


main()
