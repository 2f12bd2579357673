"""Every chance that a world takes, read from one string of bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Tape:
    """Chances, one byte each. Zero is the dull one, and zeros are what follows the end: a short tape, a dull world.

    Its last byte says whether it is a world of choices, whether of waits, whether of fans, whether of pauses, and
    whether of notes.
    """

    def __init__(self, tape: bytes) -> None:
        self._left = iter(tape)
        self.is_of_choices = bool(tape) and tape[-1] % 3 == 0
        self.is_of_waits = bool(tape) and tape[-1] % 4 >= 2
        self.is_of_fans = bool(tape) and tape[-1] % 7 == 3
        self.is_of_pauses = bool(tape) and tape[-1] % 5 == 1
        self.is_of_notes = bool(tape) and tape[-1] % 11 == 4
        self.is_spent = False
        self._aside = random.Random(tape)

    def happens_aside(self, one_in: int) -> bool:
        """Return whether something rare happens. It takes no byte of the tape, so nothing else in the world changes."""
        return not self.is_spent and self._aside.randrange(one_in) == 0

    def number(self, below: int) -> int:
        """Return a number from 0 to `below` - 1."""
        byte = next(self._left, None)
        if byte is None:
            self.is_spent = True
            return 0
        return byte % below

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, the first of which is the dull one."""
        return options[self.number(len(options))]

    def happens(self, one_in: int) -> bool:
        """Return whether something happens that is one chance in `one_in`."""
        return self.number(one_in) == one_in - 1
