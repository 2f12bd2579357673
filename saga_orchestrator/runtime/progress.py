"""How far steps have come: shown to whoever looks at their saga, and decided upon by nobody.

It is the row's, beside its state, because those who watch may be other processes. It is no fact of the saga: no
revision counts it, and what is lost of it with its owner is missed by nobody. So it is written apart from all moves,
the latest only, for all sagas of a process together and at most once in a while, under the owner's name: who has lost a
saga shows nothing of it any more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from loguru import logger

from ..definition.io import Payloads, clean_text
from ..errors import PayloadError, SagaStateError
from ..kernel.state import State
from ..kernel.step_status import StepStatus
from ..kernel.undo_status import Undoing
from ..storage.contract import Store
from ..storage.rows import Head
from .background import cut_off

if TYPE_CHECKING:
    from .notes import Place
    from .tenure import Tenure

_EVERY = 1.0
"""Seconds between two writes at the least."""
_LONGEST_MESSAGE = 500
_LARGEST = sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """How far an attempt of a step has come, in a unit of its own. `total` is None where that is not known."""

    done: float
    total: float | None
    message: str | None
    at: datetime


class ProgressBoard:
    """Shows how far the steps of one engine's sagas have come."""

    def __init__(self, owner: str, store: Store, now: Callable[[], datetime]) -> None:
        self._owner, self._store, self._now = owner, store, now
        self._changed: dict[UUID, Tenure] = {}
        self._sent: dict[UUID, Tenure] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def show(self, tenure: Tenure, place: Place, said: Mapping[str, Any]) -> None:
        """Show from now on how far an attempt has come; of one whose saga is no longer this owner's, nothing."""
        if self._is_closed or tenure.book is None or tenure.book.is_closed:
            return
        step_id, attempt, undoing = place
        tenure.progress[step_id] = {"attempt": attempt, "undoing": undoing, **said, "at": self._now().isoformat()}
        self._changed[tenure.saga_id] = tenure
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write(), name="saga-progress")

    def is_to_show(self, saga_id: UUID) -> bool:
        """Return whether progress of a saga is still to be written."""
        return saga_id in self._changed or saga_id in self._sent

    async def aclose(self) -> None:
        """Write no more."""
        self._is_closed = True
        await cut_off(self._task)

    async def _write(self) -> None:
        """Write what has changed, and again after a while, until nothing does."""
        try:
            while self._changed:
                self._sent, self._changed = self._changed, {}
                try:
                    await self._store.show(self._owner, {saga_id: _text(of) for saga_id, of in self._sent.items()})
                except Exception as error:  # noqa: BLE001 - it is of the moment: what comes next shows where it is then
                    logger.debug("the progress of {} sagas could not be shown: {!r}", len(self._sent), error)
                self._sent = {}
                await asyncio.sleep(_EVERY)
        finally:
            self._task = None


def said(done: float, total: float | None, message: str | None) -> dict[str, Any]:
    """Return what a step says of its progress, in a form that every database takes.

    Raises:
        SagaStateError: It is no number.
    """
    for name, value in (("done", done), ("total", total)):
        if not _is_finite(value) and not (name == "total" and value is None):
            raise SagaStateError(f"progress() takes numbers; {name} is {value!r:.60}.")
    shown = None if message is None else clean_text(str(message), _LONGEST_MESSAGE)
    return {"done": done, "total": total, "message": shown}


def _is_finite(value: Any) -> bool:
    """Return whether a value is a number that JSON has."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST  # which NaN is not, either


def seal(said: Mapping[str, Any], payloads: Payloads) -> Mapping[str, Any]:
    """Return what a step says as it is stored; with a codec the message, which may quote a payload, is encoded."""
    if payloads.codec is None or said["message"] is None:
        return said
    try:
        return {**said, "message": payloads.dump(said["message"], what="The message of progress()")}
    except PayloadError:  # it is of the moment, and no reason for a step to fail
        return {**said, "message": None}


def progress_of(head: Head, state: State, payloads: Payloads) -> dict[str, StepProgress]:
    """Return how far the attempts in flight have come, by step; what is said of others is over."""
    if head.progress is None:
        return {}
    shown = json.loads(head.progress)
    live = {i: status for i, status in state.open.items() if status.is_live and i in shown}
    return {i: _read(shown[i], payloads) for i, status in live.items() if _place(shown[i]) == _place_of(status)}


def _place(said: Mapping[str, Any]) -> tuple[int, bool]:
    return said["attempt"], said["undoing"]


def _place_of(status: StepStatus) -> tuple[int | None, bool]:
    return getattr(status, "attempt", None), isinstance(status, Undoing)


def _read(said: Mapping[str, Any], payloads: Payloads) -> StepProgress:
    at, message = datetime.fromisoformat(said["at"]), said["message"]
    if payloads.codec is not None and message is not None:
        message = _opened(message, payloads)
    return StepProgress(done=said["done"], total=said["total"], message=message, at=at)


def _opened(message: str, payloads: Payloads) -> str | None:
    """Return a message decoded, one from before there was a codec as it is, and none that cannot be decoded."""
    if not message.startswith('"'):
        return message
    try:
        return str(payloads.load(message))
    except PayloadError:
        return None


def _text(tenure: Tenure) -> str:
    """Return what the row is to say; what was said of steps that have ended is left out."""
    for step_id in [i for i in tenure.progress if not tenure.state.of(i).is_live]:
        del tenure.progress[step_id]
    return json.dumps(tenure.progress)
