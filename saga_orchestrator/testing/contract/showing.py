"""What a store keeps when owners show how far their steps have come."""

from __future__ import annotations

import json
from uuid import uuid4

from ...storage.contract import Store
from .samples import OWNER, Contract, differing, ending, put, read, step

SHOWN = '{"a": {"attempt": 1, "done": 0.25, "message": "h\u00e4lf"}}'


class ShowingContract(Contract):
    """`show`: only the owner's, and nothing but the progress."""

    async def test_progress_is_shown_and_nothing_else_changes(self, store: Store) -> None:
        """Each saga shows its own, as it was said, and can be moved from where it was."""
        first, second = await put(store), await put(store)

        await store.show(OWNER, {first.id: SHOWN, second.id: "{}"})

        shown = await read(store, first.id)
        assert json.loads(shown.progress or "") == json.loads(SHOWN)
        assert differing(first, shown, but=["progress"]) == {}
        assert (await read(store, second.id)).progress == "{}"
        await store.write([step(first)])
        assert (await read(store, first.id)).revision == 1

    async def test_a_move_leaves_alone_what_is_shown(self, store: Store) -> None:
        """It is the next report that replaces it."""
        head = await put(store)
        await store.show(OWNER, {head.id: SHOWN})
        await store.write([step(head)])
        assert json.loads((await read(store, head.id)).progress or "") == json.loads(SHOWN)

    async def test_only_an_owner_shows_progress(self, store: Store) -> None:
        """Sagas of others, that are over, and that are not there say nothing of it, and stop none of the rest."""
        mine, theirs, ended = await put(store), await put(store, lease_owner="another"), await put(store)
        await store.write([ending(ended, ended.created_at)])

        await store.show(OWNER, dict.fromkeys((theirs.id, ended.id, uuid4(), mine.id), SHOWN))

        shown = [(await read(store, head.id)).progress is not None for head in (mine, theirs, ended)]
        assert shown == [True, False, False]
