"""The check of an engine's tables, which is made once: at the first use of the engine."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from ..storage.contract import Store
from ..storage.store import SagaStore
from .background import Background


class SchemaCheck:
    """Asks the database whether the tables of a store are there, until they once were.

    A database that is away gives no verdict, and tables may be made later: the next use asks again. All who ask at the
    same time share one query. A store without tables, as that of a test, is not asked.
    """

    def __init__(self, store: Store, background: Background) -> None:
        self._store = store if isinstance(store, SagaStore) else None
        self._background = background
        self._asking: asyncio.Task[None] | None = None

    async def check(self, session: AsyncSession | None = None) -> None:
        """Check the tables, unless they have been found before; with a caller's session, on its connection.

        Raises:
            SagaSchemaError: A table is missing, or is of another version.
        """
        if self._store is None:
            return
        if session is not None:
            await self._store.check_tables(session)
        else:
            if self._asking is None or self._asking.done():
                self._asking = self._background.begin(self._store.check_tables())
            await asyncio.shield(self._asking)
        self._store = None
