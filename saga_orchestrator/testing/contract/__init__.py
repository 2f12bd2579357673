"""The store's contract as tests: whoever writes a store inherits them, and gives them a store.

    from saga_orchestrator.testing import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            store = MyStore(...)
            yield store
            await store.aclose()

They are plain `async def` methods, so they need a plugin that runs those: pytest-asyncio with `asyncio_mode = "auto"`,
or marked in your class. This module does not import pytest. For readable failures, have pytest rewrite its assertions:
call `pytest.register_assert_rewrite("saga_orchestrator.testing.contract")` in a conftest.py.
"""

from __future__ import annotations

from .advancing import AdvancingContract
from .births import BirthContract
from .claiming import ClaimingContract
from .moving import MovingContract
from .posting import PostingContract
from .purging import PurgingContract
from .reading import ReadingContract
from .renewing import RenewingContract
from .showing import ShowingContract
from .telling import TellingContract


class StoreContract(
    BirthContract,
    MovingContract,
    AdvancingContract,
    ClaimingContract,
    RenewingContract,
    ShowingContract,
    ReadingContract,
    PostingContract,
    TellingContract,
    PurgingContract,
):
    """What every `Store` keeps. Subclass it, and define a fixture `store` that gives a new, empty one.

    Where two handles to the same sagas can be had, as two processes have them, override `beside` as well.
    """


__all__ = ["StoreContract"]
