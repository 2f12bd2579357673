"""What an `input_map` is shown of the event that woke its step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.kernel.effects import Phase, Record, RecordStatus
from saga_orchestrator.runtime.recorded import RecordedContext
from saga_orchestrator.runtime.tenure import Past

SIGNAL = Record(
    0, Phase.ORDER, RecordStatus.SUCCESS, "signal:pay", "signal:pay", input='{"type":"paid","payload":{"n":5}}'
)
NOTIFY = Record(1, Phase.ORDER, RecordStatus.SUCCESS, "notify", "notify", input='{"type":"paid","payload":{"n":5}}')
DONE = Record(2, Phase.EXECUTE, RecordStatus.SUCCESS, "pay", "Pay", 1, output="{}")


def shown(*rows: Record) -> RecordedContext:
    past = Past()
    past.learn(rows)
    definition = SimpleNamespace(seen_from=lambda scope: {"pay": "pay"})
    tenure: Any = SimpleNamespace(
        known_past=past,
        saga_id=uuid4(),
        saga_name="trip",
        definition=definition,
        initial_data=lambda payloads, scope: {},
    )
    return RecordedContext(tenure, Payloads(), None)


def test_an_event_has_a_type_and_a_payload() -> None:
    """Apart from each other, and the whole of it beside them."""
    ctx = shown(SIGNAL)
    assert (ctx.latest_event_type, ctx.latest_event_payload) == ("paid", {"n": 5})
    assert ctx.latest_event == {"type": "paid", "payload": {"n": 5}}


def test_a_notification_is_all_payload() -> None:
    """Whatever it looks like."""
    ctx = shown(SIGNAL, NOTIFY)
    assert (ctx.latest_event_type, ctx.latest_event_payload) == (None, ctx.latest_event)


def test_what_has_been_used_up_is_not_shown() -> None:
    """The success of the step that it woke uses the event up."""
    ctx = shown(SIGNAL, DONE)
    assert (ctx.latest_event, ctx.latest_event_type, ctx.latest_event_payload) == (None, None, None)
    assert list(ctx.step_outputs) == ["pay"]
