"""The parent's end of a contender's process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from .audit import audit, count, prepare
from .cases import Case, Entrant
from .contender import Load

ROOT = Path(__file__).parent.parent
PATIENCE = 180
"""Seconds after which a contender that does not answer is given up."""


class ContenderError(Exception):
    """A contender's process has died, or does not answer."""


class Child:
    """One contender, running."""

    def __init__(self, entrant: Entrant, url: str) -> None:
        self.entrant, self._url, self._next = entrant, url, 0
        command = [sys.executable, "-m", entrant.module, "--serve", url]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def measure(self, case: Case, sagas: int) -> dict[str, float]:
        """Run so many sagas, audit them, and return the figures with their rate."""
        load = Load(sagas, case.steps, case.in_flight, first=self._next)
        self._next += sagas
        prepare(self.entrant, self._url)
        before = count(self.entrant, self._url)
        figures = self._run(load)
        audit(self.entrant, self._url, before, load)
        return {"sagas": sagas, "rate": sagas * case.steps / figures["seconds"], **figures}

    def sagas_for(self, case: Case, seconds: float) -> int:
        """Warm up, and return how many sagas take about so many seconds; at least as many as are in flight."""
        sagas = min(case.in_flight, 16)
        while True:
            figures = self._run(Load(sagas, case.steps, case.in_flight, first=self._next))
            self._next += sagas
            if figures["seconds"] > seconds / 4:
                break
            sagas *= 4
        return max(case.in_flight, round(sagas * seconds / figures["seconds"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # the end of its loads; it closes what it has open
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _run(self, load: Load) -> dict[str, float]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(load)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        overdue = threading.Timer(PATIENCE, self._process.kill)
        overdue.start()
        try:
            line = self._process.stdout.readline()
        finally:
            overdue.cancel()
        if not line:
            raise ContenderError(f"{self.entrant.name} ended without an answer (exit code {self._process.wait()})")
        figures: dict[str, float] = json.loads(line)
        return figures
