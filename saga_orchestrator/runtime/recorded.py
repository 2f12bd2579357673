"""What an `input_map` is shown of a saga's past, read from the store when it is looked at."""

from __future__ import annotations

from typing import Any

from ..definition.context import InputContext
from ..definition.io import Payloads
from .tenure import Tenure


class RecordedContext(InputContext):
    """An `InputContext` of what is stored. Most steps look at few of the outputs of a long saga, or at none.

    All of it is plain JSON values, read afresh for each step: what one does to them no other sees.
    """

    def __init__(self, tenure: Tenure, payloads: Payloads, scope: str | None) -> None:
        past = tenure.known_past
        latest: Any = None if past.latest_event is None else payloads.load(past.latest_event)
        kind, payload = (latest["type"], latest.get("payload")) if past.latest_is_event else (None, latest)
        self.__dict__.update(
            initial_data=tenure.initial_data(payloads, scope),
            saga_id=tenure.saga_id,
            latest_event=latest,
            latest_event_type=kind,
            latest_event_payload=payload,
            events=[payloads.load(text) for text in past.events],
            _saga_name=tenure.saga_name,
            _outputs=past.outputs.copy(),
            _seen=tenure.definition.seen_from(scope),
            _load=payloads.load,
        )

    def __getattr__(self, name: str) -> Any:
        """Make what is looked at for the first time."""
        facts = self.__dict__
        if name == "step_outputs":
            texts = {name: facts["_outputs"].get(step_id) for name, step_id in facts["_seen"].items()}
            facts[name] = {name: facts["_load"](text) for name, text in texts.items() if text is not None}
        elif name == "context":
            seen = {"initial_data": self.initial_data, "step_outputs": self.step_outputs}
            facts[name] = {"saga_name": facts["_saga_name"], **seen}
        else:
            raise AttributeError(f"InputContext has no attribute {name!r}")
        return facts[name]
