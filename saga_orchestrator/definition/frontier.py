"""Where the next step attaches, while a saga is being written down.

The open `with` blocks form a stack. In a sequence each step comes after the one before it; in a parallel block all
steps come after what stood before the block. When a block closes, its ends become what the next step comes after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..errors import SagaDefinitionError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Block:
    start: tuple[str, ...]
    parallel: bool
    ends: tuple[str, ...] = ()

    @property
    def after(self) -> tuple[str, ...]:
        return self.start if self.parallel or not self.ends else self.ends

    def join(self, ends: tuple[str, ...]) -> None:
        """Take in the ends of a step or of an inner block; an empty inner block changes nothing."""
        self.ends = (*self.ends, *ends) if self.parallel else ends or self.ends


class Frontier:
    """The stack of open blocks; at its bottom is the saga itself, a sequence."""

    def __init__(self) -> None:
        self._blocks = [_Block((), parallel=False)]
        self._unopened = 0

    def check_opened(self) -> None:
        """Refuse a block that was asked for and not opened: what was to be in it stands one after another.

        Raises:
            SagaDefinitionError: With what to write.
        """
        if self._unopened:
            raise SagaDefinitionError(
                "builder.parallel(), or branch(), was called without `with`, so its steps stand one after another. "
                "Write: with builder.parallel(): and add them inside."
            )

    def opened_by(self, block: AbstractContextManager[T]) -> AbstractContextManager[T]:
        """Return a block that counts as unopened until a `with` enters it."""
        self._unopened += 1
        return self._counted(block)

    @contextmanager
    def _counted(self, block: AbstractContextManager[T]) -> Iterator[T]:
        self._unopened -= 1
        with block as opened:
            yield opened

    @property
    def after(self) -> tuple[str, ...]:
        """The steps that the next step comes after, if it does not say otherwise."""
        return self._blocks[-1].after

    @property
    def is_open(self) -> bool:
        """Whether some parallel block has not been closed yet."""
        return len(self._blocks) > 1

    def add(self, *ends: str) -> None:
        """Record that a step was added at the frontier, or that several were which the next one comes after."""
        self._blocks[-1].join(ends)

    @contextmanager
    def block(self, *, parallel: bool) -> Iterator[_Block]:
        """Open a block inside the innermost open one, and join its ends to that one afterwards."""
        block = _Block(self.after, parallel)
        self._blocks.append(block)
        try:
            yield block
        finally:
            self._blocks.pop()
            self._blocks[-1].join(block.ends)

    def is_innermost(self, block: _Block) -> bool:
        return self._blocks[-1] is block


class ParallelBlock:
    """What `with builder.parallel() as block:` gives: each step added directly inside it is a branch of its own."""

    def __init__(self, frontier: Frontier, block: _Block) -> None:
        self._frontier = frontier
        self._block = block

    def branch(self) -> AbstractContextManager[None]:
        """Open a branch of several steps; inside it each comes after the one before.

        Raises:
            SagaDefinitionError: It is not opened directly inside its own parallel block.
        """
        return self._frontier.opened_by(self._branch())

    @contextmanager
    def _branch(self) -> Iterator[None]:
        if not self._frontier.is_innermost(self._block):
            raise SagaDefinitionError(
                "branch() belongs directly inside the `with builder.parallel()` block that it came from; "
                "open another parallel() for a fork within a branch."
            )
        with self._frontier.block(parallel=False):
            yield
