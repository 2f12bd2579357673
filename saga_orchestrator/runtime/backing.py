"""What stands behind the `StepContext` of one call: the notes of its step, its progress, and its saga's lease."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from ..definition.io import Payloads
from ..errors import OutcomeUnknown, PayloadError, SagaStateError
from ..kernel.effects import Compensate, Probe, Work
from ..kernel.events import Noted
from ..kernel.notes import name_of
from .calls import is_unknown, settled
from .notes import NoteBook, note_of
from .progress import ProgressBoard, said, seal
from .texts import check_name

if TYPE_CHECKING:
    from .tenure import Tenure


class BackingTools(NamedTuple):
    """What all backings of an engine share.

    Attributes:
        board: Where progress is shown.
        trusted_until: Returns until when a lease can be believed in that ends then, by the event loop's clock.
    """

    payloads: Payloads
    board: ProgressBoard
    trusted_until: Callable[[float], datetime]


class Backing:
    """The backing of one call of an author's code. `session`: of a transactional step, that of its transaction."""

    def __init__(self, work: Work, tenure: Tenure, session: object | None, tools: BackingTools) -> None:
        self._tenure, self._session, self._tools = tenure, session, tools
        self._step_id, self._attempt, self._is_probe = work.step_id, work.attempt, isinstance(work, Probe)
        self._undoing = isinstance(work, Compensate)
        self._name = name_of(work.step_id, undoing=self._undoing)
        self._loop = asyncio.get_running_loop()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._at_it: dict[str, asyncio.Task[Any] | None] = {}
        self._unwritten: dict[str, str] = {}
        """What parts came to whose notes are not committed yet: asked for again, they are not done again."""

    def once(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> Coroutine[Any, Any, Any]:
        self._check(key)
        return self._once(key, act, returns)

    async def _once(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> Any:
        if self._at_it.get(key) is asyncio.current_task():
            raise SagaStateError(f"Step '{self._step_id}' asks for once({key!r}) while it does just that part.")
        async with self._turns[key]:
            self._at_it[key] = asyncio.current_task()
            try:
                stored = self._notes().get(key) or await self._done(key, act, returns)
            finally:
                del self._at_it[key]
        payloads = self._tools.payloads
        return payloads.load(stored) if returns is None else payloads.load_model(returns, stored)

    def _check(self, key: str) -> None:
        check_name("The key of once()", key)
        if self._session is not None:
            raise SagaStateError(
                f"Step '{self._step_id}' is transactional: all that it does is done once as it is, and once() would "
                "wait for its own transaction."
            )
        if self._is_probe:
            raise SagaStateError(f"The probe of step '{self._step_id}' only looks; once() is for what acts.")
        if not self._is_on_loop():
            raise SagaStateError(
                f"Step '{self._step_id}' calls once() from a thread; it is awaited on the engine's event loop, so make "
                "the step asynchronous."
            )

    def _is_on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _notes(self) -> Mapping[str, str]:
        return self._tenure.known_past.notes.get(self._name, {})

    async def _done(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> str:
        """Have a part done, unless it is, and return what is remembered of it; the note of it is durable then."""
        if key not in self._unwritten:
            self._unwritten[key] = await self._do(key, act, returns)
        content = note_of(key, self._unwritten[key])
        await self._book().write(Noted(self._step_id, self._attempt, content, self._undoing))
        return self._notes()[key]

    async def _do(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> str:
        """Do a part, and return what came of it as it is stored."""
        place = (self._step_id, self._attempt, self._undoing)
        self._book().begin(place)
        try:
            value = await settled(act())
        except Exception as error:
            if not is_unknown(error):
                self._book().fail(place)
            raise
        what = f"What step '{self._step_id}' did as {key!r}"
        try:
            model = returns if isinstance(value, BaseModel) else None
            return self._tools.payloads.dump(value, what=what, model=model)
        except PayloadError as error:
            raise OutcomeUnknown(f"{what} is done, and cannot be remembered: {error}") from error

    def _book(self) -> NoteBook:
        assert self._tenure.book is not None
        return self._tenure.book

    def remembered(self) -> Mapping[str, Any]:
        notes = self._tenure.known_past.notes.get(name_of(self._step_id, undoing=False), {})
        return {key: self._tools.payloads.load(stored) for key, stored in notes.items()}

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        place = (self._step_id, self._attempt, self._undoing)
        told = seal(said(done, total, message), self._tools.payloads)
        self._loop.call_soon_threadsafe(self._tools.board.show, self._tenure, place, told)

    def heartbeat_deadline(self) -> datetime:
        return self._tools.trusted_until(self._tenure.lease_until)
