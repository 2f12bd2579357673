"""The user's own columns, in whatever form the store writes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.exc import CompileError

from saga_orchestrator.storage.rows import Birth, Written
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing.contract.samples import newborn, step
from tests.support.sagas import Site


async def test_values_are_written_with_the_birth_and_outlive_every_move(database: Site, store: SagaStore) -> None:
    """What was given at the start stands in the user's columns, and no move touches it."""
    birth = replace(newborn(await store.now()), values={"tenant": "acme", "channel": "shop"})

    assert await store.write([birth]) == [Written.DONE]
    await store.write([step(birth.head)])

    assert await database.sql("SELECT tenant, channel, revision FROM trip_saga") == [("acme", "shop", 1)]


async def test_births_with_and_without_values_share_a_batch(database: Site, store: SagaStore) -> None:
    """Each row gets its own values; the others get the column's default, which SQLAlchemy fills in."""
    now = await store.now()
    births = [newborn(now), replace(newborn(now), values={"tenant": "acme"}), newborn(now)]

    assert await store.write(births) == [Written.DONE] * 3

    found = await database.sql("SELECT tenant, channel FROM trip_saga ORDER BY tenant NULLS LAST")
    assert found == [("acme", "web"), (None, "web"), (None, "web")]


async def test_a_default_that_only_sqlalchemy_knows_is_filled_in(database: Site, store: SagaStore) -> None:
    """A batch of births without values fills in the defaults of the user's columns as well."""
    now = await store.now()

    assert await store.write([newborn(now), newborn(now)]) == [Written.DONE] * 2

    assert await database.sql("SELECT channel FROM trip_saga") == [("web",)] * 2


async def test_a_value_for_a_column_that_does_not_exist_is_raised(store: SagaStore) -> None:
    """A typing error in a column's name is an error, and nothing is written."""
    birth = replace(newborn(await store.now()), values={"tennant": "acme"})

    with pytest.raises(CompileError, match="tennant"):
        await store.write([birth])

    assert await store.head(birth.head.id) is None


async def test_a_value_that_is_taken_is_taken(store: SagaStore) -> None:
    """A second saga with the same value in a unique column of the user's is not written, and no rival is named."""
    now = await store.now()
    first, second = (replace(newborn(now), values={"voucher": "V-1"}) for _ in range(2))
    await store.write([first])

    assert await store.write([second]) == [Written.TAKEN]
    assert await store.rival(Birth(second.head)) is None
