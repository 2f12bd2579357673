"""What stands behind the `StepContext` of one call: the notes of its step, its progress, and its saga's lease."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..definition.io import Payloads
from ..errors import OutcomeUnknown, PayloadError, SagaStateError
from ..kernel.effects import Compensate, Probe, Work
from ..kernel.events import Noted
from ..kernel.notes import ONCE, ONCE_UNDO
from .notes import note_of
from .progress import ProgressBoard, said
from .texts import check_name

if TYPE_CHECKING:
    from .tenure import Tenure


class Backing:
    """The backing of one call of an author's code.

    Args:
        board: Where progress is shown.
        trusted_until: Returns until when a lease can be believed in that ends then, by the event loop's clock.
    """

    def __init__(
        self,
        work: Work,
        tenure: Tenure,
        payloads: Payloads,
        board: ProgressBoard,
        trusted_until: Callable[[float], datetime],
    ) -> None:
        self._work, self._tenure, self._payloads, self._trusted_until = work, tenure, payloads, trusted_until
        self._board, self._loop = board, asyncio.get_running_loop()  # a synchronous step reports from a thread
        self._undoing = isinstance(work, Compensate)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def once(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> Any:
        self._check(key)
        name = f"{ONCE_UNDO if self._undoing else ONCE}:{self._work.step_id}"
        async with self._turns[key]:
            stored = self._tenure.known_past.notes.get(name, {}).get(key) or await self._done(key, act)
        return self._payloads.load(stored) if returns is None else self._payloads.load_model(returns, stored)

    def _check(self, key: str) -> None:
        check_name("The key of once()", key)
        if self._tenure.session is not None:
            raise SagaStateError(
                f"Step '{self._work.step_id}' is transactional: all that it does is done once as it is, and once() "
                "would wait for its own transaction."
            )
        if isinstance(self._work, Probe):
            raise SagaStateError(f"The probe of step '{self._work.step_id}' only looks; once() is for what acts.")

    async def _done(self, key: str, act: Callable[[], Any]) -> str:
        """Do a part, and return what came of it as it is stored; the note of it is durable then."""
        value = act()
        value = await value if inspect.isawaitable(value) else value
        what = f"What step '{self._work.step_id}' did as {key!r}"
        try:
            stored = self._payloads.dump(value, what=what)
        except PayloadError as error:
            raise OutcomeUnknown(f"{what} is done, and cannot be remembered: {error}") from error
        assert self._tenure.note is not None
        await self._tenure.note(Noted(self._work.step_id, self._work.attempt, note_of(key, stored), self._undoing))
        return stored

    def remembered(self) -> Mapping[str, Any]:
        notes = self._tenure.known_past.notes.get(f"{ONCE}:{self._work.step_id}", {})
        return {key: self._payloads.load(stored) for key, stored in notes.items()}

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        place = self._work.step_id, self._work.attempt
        self._loop.call_soon_threadsafe(self._board.show, self._tenure, place, said(done, total, message))

    def heartbeat_deadline(self) -> datetime:
        return self._trusted_until(self._tenure.lease_until)
