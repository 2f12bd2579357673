"""Column types: what is bound is what was meant."""

from __future__ import annotations

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg

from saga_orchestrator.storage.types import Json, JsonText


@pytest.mark.parametrize("dialect", [asyncpg.dialect(), sqlite.dialect()], ids=lambda dialect: dialect.name)
class TestJson:
    """What `Json` sends to a database."""

    def test_a_missing_payload_is_null_and_not_the_json_text_null(self, dialect: Dialect) -> None:
        """A lost attempt has no recorded input: taken for the JSON value null, it would be called with nothing."""
        bind = Json(none_as_null=True).dialect_impl(dialect).bind_processor(dialect)
        assert bind(None) is None

    def test_a_text_that_is_json_already_is_not_encoded_again(self, dialect: Dialect) -> None:
        """Payloads are encoded once, where they are checked."""
        bind = Json().dialect_impl(dialect).bind_processor(dialect)
        assert bind(JsonText('{"a":1}')) == '{"a":1}'
