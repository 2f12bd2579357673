"""What the library logs, for tests: it is silent until its host asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger


@contextmanager
def logged(level: str = "DEBUG") -> Iterator[list[str]]:
    """Collect the messages that the library logs in the block, from a level on."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=level, format="{message}")
    logger.enable("saga_orchestrator")
    try:
        yield lines
    finally:
        logger.disable("saga_orchestrator")
        logger.remove(sink)
