"""The decision on a saga that is committed by hand. The part of `SagaOrchestrator` that takes it.

A decision is an event, kept and delivered like any other; what is more is that who sends it is told when it is not his
to take any more.
"""

from __future__ import annotations

from uuid import UUID

from ..definition.finish import COMMIT, DECISION, REJECT, Decision
from ..errors import SagaNotFoundError, SagaStateError
from ..kernel.codec import UnreadableStateError
from ..kernel.state import Course, State
from ..kernel.step_status import Skipped
from ..kernel.waits import SIGNAL
from ..storage.rows import Head
from .letters import opened
from .mailroom import SignalResult
from .moves import read_state
from .receiving import Receiver
from .tenure import rewound
from .texts import check_characters, check_name
from .watching import head_of


class Decider(Receiver):
    """Takes the decisions on the sagas of one engine."""

    async def commit(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Have a saga with `commit="manual"` confirmed, now or as soon as all its steps have succeeded.

        Durable when it returns, whoever is cancelled or crashes then; the confirms go on in the background, and
        `result` waits for them. To commit what has been committed changes nothing; of decisions that come before the
        saga has got as far, the first counts.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: There is nothing to decide: its definition commits by itself, it has been rejected, its time
                is up, or it is over, or being undone.
        """
        await self._decide(saga_id, COMMIT, Decision(actor=actor, reason=reason))

    async def reject(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Have a saga with `commit="manual"` undone, now or when all its steps have succeeded. Durable when it returns.

        To reject what has been rejected changes nothing. `SagaAdmin.cancel` does not wait for the steps.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: As for `commit`; or it has been committed.
        """
        await self._decide(saga_id, REJECT, Decision(actor=actor, reason=reason))

    async def _decide(self, saga_id: UUID, said: str, decision: Decision) -> None:
        if decision.actor is not None:
            check_name("actor", decision.actor)
        if decision.reason is not None:
            check_characters("reason", decision.reason)
        if await self._is_decided(saga_id, said):
            return
        sent = await self.signal(said, saga_id=saga_id, payload=decision)
        if sent is SignalResult.UNMATCHED:
            raise SagaNotFoundError(saga_id)
        if sent is SignalResult.EXPIRED:
            raise SagaStateError(f"Saga {saga_id}: the time to decide is up.")
        if sent is not SignalResult.APPLIED:  # another decision may have come first
            await self._is_decided(saga_id, said)

    async def _is_decided(self, saga_id: UUID, said: str) -> bool:
        """Return whether this is decided already.

        Raises:
            SagaStateError: It cannot be decided any more, or never could.
        """
        head = await head_of(self._engine, saga_id)
        state = self._state(head)
        decided = await self._decided(saga_id, state)
        goes_back = state.course is not Course.FORWARD and state.rewind is None
        if decided is None and (head.status.is_terminal or goes_back):
            raise SagaStateError(f"Saga {saga_id} is {head.status.value}: there is nothing left to decide.")
        if decided not in (None, said):
            word = "committed" if decided == COMMIT else "rejected"
            raise SagaStateError(f"Saga {saga_id} has been {word} already; it is {head.status.value}.")
        return decided is not None

    def _state(self, head: Head) -> State:
        definition = self._engine.registry.find(head.saga_name, head.definition_version)
        if definition is None:
            raise SagaStateError(f"Saga {head.id}: '{head.saga_name}' is not registered in this process.")
        if definition.commit == "auto":
            raise SagaStateError(
                f"Saga {head.id} is {head.status.value}, and commits by itself: '{head.saga_name}' was not built with "
                "SagaBuilder(commit='manual'). SagaAdmin.cancel has it undone, if it can be."
            )
        try:
            return read_state(definition, head)
        except UnreadableStateError as error:
            raise SagaStateError(f"Saga {head.id}: {error}. Only a change of the row itself can mend this.") from error

    async def _decided(self, saga_id: UUID, state: State) -> str | None:
        """Return the decision on the saga as it is: a rewind takes an earlier one back."""
        if state.rewind is not None:
            return None
        return COMMIT if isinstance(state.of(DECISION), Skipped) else await self._said(saga_id)

    async def _said(self, saga_id: UUID) -> str | None:
        """Return the decision that the saga has heard since it was last rewound, if any."""
        rows = (await self._engine.store.history([saga_id]))[saga_id]
        again = max((row.seq for row in rows if DECISION in rewound(row)), default=-1)
        heard = [row.input for row in rows if row.seq > again and row.step_id == f"{SIGNAL}:{DECISION}"]
        return opened(self._engine.payloads, None, heard[-1]).type if heard else None
