"""Which rows are at fault for an error that is not known to be the database's.

One failure proves nothing. A row is at fault when it fails alone, again, and the claims of others succeed meanwhile.
Until then it stays due.
"""

from __future__ import annotations

from uuid import UUID

from loguru import logger

from .database_errors import is_the_rows

_MOST = 1_000
"""How many rows are remembered."""


class Suspects:
    """Remembers the rows that could not be claimed."""

    def __init__(self) -> None:
        self._successes = 0
        self._failed: dict[UUID, int] = {}
        """How many claims had succeeded when a row failed first."""

    @property
    def count(self) -> int:
        """How many rows are under suspicion."""
        return len(self._failed)

    def count_successes(self, claimed: int) -> None:
        """Take note of claims of other rows, made one at a time."""
        self._successes += claimed

    def is_proved(self, saga_id: UUID, error: Exception, succeeded: int, failed: int) -> bool:
        """Return whether a row that has failed twice in a row is at fault; remember it if that is not certain.

        An error that the table calls the row's needs no more proof, unless several rows fail and no claim succeeds.

        Args:
            succeeded: How many other claims have succeeded between the two failures.
            failed: How many rows have failed in this round.
        """
        is_alone = succeeded > 0 or self._successes > self._failed.get(saga_id, self._successes)
        if is_alone or (failed == 1 and is_the_rows(error)):
            self._failed.pop(saga_id, None)
            return True
        if saga_id not in self._failed:
            if len(self._failed) == _MOST:
                self._failed.pop(next(iter(self._failed)))
            self._failed[saga_id] = self._successes
            logger.warning(
                "saga {} could not be claimed: {!r}; it stays due, until others succeed where it fails", saga_id, error
            )
        return False
