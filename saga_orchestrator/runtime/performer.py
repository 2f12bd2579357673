"""Performing work: one call of the author's code, and what its outcome means.

A performer never raises for what a step does. It returns the event that says what happened: the step returned,
raised, or is in doubt. Only the cancellation of the whole engine passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, cast

from loguru import logger
from pydantic import BaseModel

from ..definition.awaited import check_run
from ..definition.child import Children, Kin
from ..definition.constant import Nothing
from ..definition.context import StepContext
from ..definition.io import Payloads
from ..definition.models import check_output
from ..definition.plain_errors import is_a, name_type
from ..definition.retry import RetryPolicy, leaves
from ..definition.step import StepDefinition
from ..definition.waiting import Event, WaitFor
from ..errors import PermanentError, RetryAfter, SagaStateError
from ..kernel.draft import LONGEST
from ..kernel.effects import Compensate, Execute, Probe
from ..kernel.events import Asked, Compensated, CompensationRaised, Probed, ProbeOutcome, Raised, Reply, Returned
from ..kernel.step_status import Skipped, Succeeded
from ..storage.transaction import keep_failure
from .arguments import arguments
from .backing import Backing, BackingTools
from .calls import Outcome, call, settled
from .error_text import describe, locate
from .ids import idempotency_key
from .letters import opened
from .no_session import NoSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from .progress import ProgressBoard
    from .tenure import Tenure

Calling = Execute | Probe | Compensate
"""Work that calls the author's code."""


class Performer:
    """Performs the work of sagas."""

    def __init__(
        self,
        payloads: Payloads,
        children: Children,
        board: ProgressBoard,
        trusted_until: Callable[[float], datetime],
    ) -> None:
        self._payloads, self._children = payloads, children
        self._tools = BackingTools(payloads, board, trusted_until)

    def describe(self, error: BaseException, where: str = "") -> str:
        """Return an error as the text to store; with a codec its message is sealed."""
        return describe(error, where, self._payloads)

    def perform(
        self, work: Calling, tenure: Tenure, started: datetime, session: AsyncSession | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """Return the doing of the work; it returns the event that tells the kernel how it ended.

        Args:
            tenure: Its past is known.
            started: Now.
            session: Of a transactional step, that of its transaction.
        """
        match work:
            case Execute():
                return self._execute(work, tenure, started, session)
            case Probe():
                return self._probe(work, tenure, started, session)
            case _:
                return self._compensate(work, tenure, started, session)

    async def _execute(self, work: Execute, tenure: Tenure, started: datetime, session: AsyncSession | None) -> Reply:
        step = tenure.definition.step(work.step_id)
        try:
            if step.returns_secret and self._payloads.codec is None:
                check_output(step)
            inp = await (self._input(step, tenure) if work.heard else self._made(step, tenure))
            stored = self._payloads.dump(inp, what=f"The input of step '{work.step_id}'", model=step.input_model)
            ctx = partial(self._context, work, tenure, started, session)
            begin = self._call_of(work, step, tenure, inp, ctx)
        except Exception as error:  # noqa: BLE001 - the author's code
            shown = self.describe(error, f"input_map of step '{work.step_id}'")
            return Raised(work.step_id, work.attempt, shown, retryable=False, started_at=started)
        outcome = await call(begin, step.timeout)
        if outcome.error is None:
            reply = self._returned(work, step, outcome.value, stored, started)
            if isinstance(reply, Asked):
                return replace(reply, acted=tenure.has_parts(work.step_id, work.attempt))
            return reply
        keep_failure(session, outcome.error)
        failure = self._failure(outcome, step.retry_policy, has_acted=tenure.has_parts(work.step_id, work.attempt))
        return Raised(work.step_id, work.attempt, **failure, input=stored, started_at=started)

    def _call_of(
        self, work: Execute, step: StepDefinition, tenure: Tenure, inp: BaseModel, ctx: Callable[[], StepContext]
    ) -> Callable[[], Any]:
        """Return the call of the author's code: of `on_event` where an event has come for the step."""
        if step.confirms is not None:
            return partial(self._confirm, tenure.definition.step(step.confirms), tenure, ctx)
        if not work.heard:
            return partial(step.execute, inp, ctx)
        return partial(step.on_event, inp, self._event(step, tenure), ctx)

    async def _confirm(self, step: StepDefinition, tenure: Tenure, ctx: Callable[[], StepContext]) -> Nothing:
        """Confirm a step that has acted; one that was passed over, or not chosen, has nothing to confirm."""
        status = tenure.state.of(step.step_id)
        if isinstance(status, Succeeded) or status == Skipped(acted=True):
            check_run(await settled(step.confirm(await self._input(step, tenure), self._output(step, tenure), ctx)))
        return Nothing()

    def _event(self, step: StepDefinition, tenure: Tenure) -> Event[Any]:
        """Return the event that has ended the step's last wait."""
        text = tenure.known_past.heard[step.step_id]
        return opened(self._payloads, step.shape.event_model, text, was_fitted=True)

    def _returned(self, work: Execute, step: StepDefinition, value: Any, stored: str, started: datetime) -> Reply:
        """Store what the step returned; what cannot be stored leaves the step in doubt, for it has acted."""
        try:
            if isinstance(value, WaitFor):
                return self._asked(work, step, value, stored, started)
            output = self._dump_output(step, value)
        except Exception as error:  # noqa: BLE001 - what was returned may raise when it is looked at
            shown = self.describe(error)
            return Raised(work.step_id, work.attempt, shown, False, True, None, stored, started)
        chosen = value.root if step.is_choice else None
        items = len(value.root) if step.fan is not None else None
        return Returned(work.step_id, work.attempt, stored, output, started, chosen, items)

    def _asked(
        self, work: Execute | Compensate, step: StepDefinition, wait: WaitFor, stored: str, started: datetime
    ) -> Asked:
        if not step.shape.hears:
            raise SagaStateError(f"Step '{step.step_id}' returned WaitFor, but has no on_event to go on in")
        shown = self._payloads.dump(asdict(wait), what=f"The wait of step '{step.step_id}'")
        return Asked(
            work.step_id,
            work.attempt,
            wait.event_types,
            wait.correlation_id,
            wait.timeout,
            wait.until,
            wait.on_timeout == "resume",
            stored,
            shown,
            started,
        )

    def _dump_output(self, step: StepDefinition, value: Any) -> str:
        if not isinstance(value, step.output_model):
            raise SagaStateError(
                f"Step '{step.step_id}' returned {name_type(value)}, not {step.output_model.__name__}, so "
                "nobody knows what it did; return what execute is annotated to return"
            )
        return self._payloads.dump(value, what=f"The output of step '{step.step_id}'", model=step.output_model)

    def _failure(self, outcome: Outcome, policy: RetryPolicy, *, has_acted: bool = False) -> dict[str, Any]:
        """Return what a failure is. `has_acted`: a part of the step is done, whatever it raised."""
        error = outcome.error
        assert error is not None
        inside = leaves(error)
        is_permanent = any(is_a(each, PermanentError) for each in inside)
        delays = [delay for each in inside if (delay := _delay_of(each)) is not None]
        return {
            "error": self.describe(error),
            "retryable": (outcome.in_doubt and not is_permanent) or is_worth_retrying(policy, error),
            "in_doubt": outcome.in_doubt or has_acted,
            "delay": max(delays, default=None),
        }

    async def _probe(self, work: Probe, tenure: Tenure, started: datetime, session: AsyncSession | None) -> Reply:
        step = tenure.definition.step(work.step_id)
        try:
            inp = await self._input(step, tenure)
        except Exception as error:  # noqa: BLE001 - the author's code
            return Probed(
                work.step_id, work.attempt, ProbeOutcome.UNKNOWN, error=self.describe(error), started_at=started
            )
        ctx = partial(self._context, work, tenure, started, session)
        outcome = await call(partial(step.probe, inp, ctx), step.timeout)
        if outcome.error is not None:
            shown = self.describe(outcome.error, "probe")
            return Probed(work.step_id, work.attempt, ProbeOutcome.UNKNOWN, error=shown, started_at=started)
        if outcome.value is None and tenure.has_parts(work.step_id, work.attempt):
            shown = "probe: not done, and yet a part of it is"
            return Probed(work.step_id, work.attempt, ProbeOutcome.UNKNOWN, error=shown, started_at=started)
        return self._probed(work, step, outcome.value, inp, started)

    def _probed(self, work: Probe, step: StepDefinition, value: Any, inp: BaseModel, started: datetime) -> Reply:
        stored = self._payloads.dump(inp, what=f"The input of step '{work.step_id}'")
        if value is None:
            return Probed(work.step_id, work.attempt, ProbeOutcome.NOT_DONE, stored, started_at=started)
        try:
            output = self._dump_output(step, value)
        except Exception as error:  # noqa: BLE001 - what was returned may raise when it is looked at
            shown = self.describe(error, "probe")
            return Probed(work.step_id, work.attempt, ProbeOutcome.UNKNOWN, stored, error=shown, started_at=started)
        return Probed(work.step_id, work.attempt, ProbeOutcome.DONE, stored, output, started_at=started)

    async def _compensate(
        self, work: Compensate, tenure: Tenure, started: datetime, session: AsyncSession | None
    ) -> Reply:
        step = tenure.definition.step(work.step_id)
        policy, timeout = step.node.compensation_retry, step.node.compensation_timeout
        try:
            inp = await self._input(step, tenure)
            out = self._output(step, tenure) if work.with_output else None
            ctx = partial(self._context, work, tenure, started, session)
            begin = partial(step.compensate, inp, out, ctx)
            if work.heard:
                begin = partial(step.on_event, inp, self._event(step, tenure), ctx)
        except Exception as error:  # noqa: BLE001 - the author's code
            shown = self.describe(error, f"what step '{work.step_id}' was called with")
            return CompensationRaised(work.step_id, work.attempt, shown, retryable=False, started_at=started)
        stored = self._payloads.dump(inp, what=f"The input of step '{work.step_id}'")
        outcome = await call(begin, timeout)
        if outcome.error is None:
            return self._undone(work, step, outcome.value, stored, started)
        keep_failure(session, outcome.error)
        failure = self._failure(outcome, policy)
        return CompensationRaised(work.step_id, work.attempt, **failure, input=stored, started_at=started)

    def _undone(self, work: Compensate, step: StepDefinition, value: Any, stored: str, started: datetime) -> Reply:
        """Return what a compensation has come to that did not raise: it is done, or it has asked and waits."""
        try:
            if not isinstance(check_run(value), WaitFor):
                return Compensated(work.step_id, work.attempt, stored, started_at=started)
            return self._asked(work, step, value, stored, started)
        except Exception as error:  # noqa: BLE001 - what was returned may raise when it is looked at
            shown = self.describe(error)
            return CompensationRaised(work.step_id, work.attempt, shown, False, True, None, stored, started)

    # --- what a step is called with ----------------------------------------------------------------------------------

    async def _made(self, step: StepDefinition, tenure: Tenure) -> BaseModel:
        """Return the input that `input_map` makes; a coroutine of it has the step's time."""
        given = arguments(step, tenure, self._payloads)
        try:
            made = step.make_input(*given)
        except (SystemExit, GeneratorExit) as error:  # of a plain function, a failure like any other
            raise RuntimeError(f"it ended in {name_type(error)}") from error
        if isinstance(made, BaseModel):
            return made
        outcome = await call(lambda: made, step.timeout)
        if outcome.error is not None:
            raise RuntimeError(f"what it returned was awaited, and raised {describe(outcome.error)}") from outcome.error
        inp: BaseModel = outcome.value
        return inp

    async def _input(self, step: StepDefinition, tenure: Tenure) -> BaseModel:
        """Return the input that the step was last called with; what a lost attempt did not record is made again."""
        recorded = tenure.known_past.inputs.get(step.step_id)
        if recorded is None:
            return await self._made(step, tenure)
        return self._payloads.load_model(step.input_model, recorded)

    def _output(self, step: StepDefinition, tenure: Tenure) -> BaseModel:
        return self._payloads.load_model(step.output_model, tenure.known_past.output(step.step_id))

    def _context(self, work: Calling, tenure: Tenure, started: datetime, session: AsyncSession | None) -> StepContext:
        heard, spent = getattr(work, "heard", 0), tenure.state.spent.get(work.step_id, 0)
        step = tenure.definition.step(work.step_id)
        step_id = step.confirms or work.step_id
        phase: Literal["execute", "compensate", "confirm"] = "confirm" if step.confirms else "execute"
        timeout = step.timeout
        if isinstance(work, Compensate):
            phase, timeout = "compensate", step.node.compensation_timeout
        begun_under = idempotency_key(tenure.saga_id, step_id, _what("execute", 0, spent))
        return StepContext(
            saga_id=tenure.saga_id,
            saga_name=tenure.saga_name,
            step_id=step_id,
            aggregation_id=tenure.aggregation_id,
            trace_id=tenure.trace_id,
            attempt=work.attempt,
            idempotency_key=idempotency_key(tenure.saga_id, step_id, _what(phase, heard, spent)),
            in_doubt=isinstance(work, Probe) or getattr(work, "tainted", False),
            initial_data=tenure.initial_data(self._payloads, tenure.definition.step(step_id).scope),
            deadline=None if timeout is None else started + min(timeout, LONGEST),
            phase=phase,
            session=_no_session(step_id, step.node.transactional) if session is None else session,
            _kin=Kin(self._children, begun_under, work.attempt - 1 - heard - spent),
            _backing=Backing(work, tenure, session, self._tools),
        )


@lru_cache(maxsize=1024)
def _no_session(step_id: str, is_transactional: bool) -> NoSession:
    """Return what stands for a session: the same for every attempt of a step."""
    return NoSession(step_id, is_transactional=is_transactional)


def is_plain(tenure: Tenure, work: Calling) -> bool:
    """Return whether work calls a plain function."""
    step = tenure.definition.step(work.step_id)
    if step.confirms is not None:
        return "confirm" in tenure.definition.step(step.confirms).plain
    if not step.plain:
        return False
    if getattr(work, "heard", 0):
        return "on_event" in step.plain
    return type(work).__name__.lower() in step.plain


def refused(work: Calling, tenure: Tenure, error: Exception) -> Reply:
    """Return the reply of work that could not begin."""
    step, shown = tenure.definition.step(work.step_id), describe(error)
    if isinstance(work, Probe):
        return Probed(work.step_id, work.attempt, ProbeOutcome.UNKNOWN, error=shown)
    if isinstance(work, Compensate):
        worth = is_worth_retrying(step.node.compensation_retry, error)
        return CompensationRaised(work.step_id, work.attempt, shown, retryable=worth)
    return Raised(work.step_id, work.attempt, shown, retryable=is_worth_retrying(step.retry_policy, error))


def _delay_of(error: BaseException) -> timedelta | None:
    """Return how long an error asks to wait; one whose class hides its delay asks for none."""
    if not is_a(error, RetryAfter):
        return None
    try:
        delay: object = cast(RetryAfter, error).delay
    except Exception:  # noqa: BLE001 - the author's code
        return None
    return delay if isinstance(delay, timedelta) else None


def _what(phase: str, heard: int, spent: int) -> str:
    """Return what a key is for: after a wait, or a rewind, something else than before."""
    return f"{phase}{f'/{heard}' if heard else ''}{f'~{spent}' if spent else ''}"


def is_worth_retrying(policy: RetryPolicy, error: BaseException) -> bool:
    """Ask the policy; a predicate of the author's that stumbles over this error has not said yes."""
    try:
        return policy.retries(error)
    except KeyboardInterrupt:
        raise
    except BaseException as stumbled:  # noqa: BLE001 - the author's code
        logger.warning("a retry policy could not judge {}: {}", locate(error), locate(stumbled))
        return False
