"""How SQLite's batched write puts values into words: as SQLAlchemy does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from saga_orchestrator.storage.sent_rows import _text


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2024, 2, 29, 12, 30, 59, 999_999, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 30, 59, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_a_time_is_written_to_the_microsecond_in_utc(moment: datetime) -> None:
    """Whatever its second is known from, and wherever it was said."""
    assert _text(moment) == moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def test_no_time_is_none() -> None:
    """Not every saga is due."""
    assert _text(None) is None
