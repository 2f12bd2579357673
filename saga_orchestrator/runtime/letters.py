"""Events on their way to a saga, as they are stored: what was said, and what it must be to be understood."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from ..definition.io import Payloads
from ..definition.plain_errors import name_type
from ..definition.readers import reader_of
from ..definition.waiting import TIMED_OUT, Event
from ..errors import PayloadError


class MisfitError(PayloadError):
    """An event's payload is not what its receiver wants."""


def sealed(payloads: Payloads, event: Event[Any]) -> str:
    """Return the stored form of an event.

    Raises:
        PayloadError: It cannot be stored.
    """
    facts = {name: getattr(event, name) for name in Event.__dataclass_fields__}
    return payloads.dump({k: v for k, v in facts.items() if v is not None}, what=f"The event {event.type!r}")


def opened(
    payloads: Payloads, model: type[BaseModel] | None, text: str | None, *, was_fitted: bool = False
) -> Event[Any]:
    """Return a stored event, with its payload as the model that its receiver wants; no event is one that says so.

    Args:
        was_fitted: It has fitted the model when it was taken; so the model does not look at the clock again.

    Raises:
        PayloadError: It cannot be decoded.
        MisfitError: Its payload does not fit the model.
    """
    if text is None:
        return Event(type=TIMED_OUT, payload=None)
    said: Mapping[str, Any] = payloads.load(text)
    payload = said.get("payload")
    occurred = said.get("occurred_at")
    return Event(
        type=said["type"],
        payload=payload if model is None else _fitted(payloads, model, payload, said["type"], was_fitted),
        event_id=said.get("event_id"),
        correlation_id=said.get("correlation_id"),
        source=said.get("source"),
        occurred_at=None if occurred is None else datetime.fromisoformat(occurred),
    )


def _fitted(payloads: Payloads, model: type[BaseModel], payload: Any, kind: str, was_fitted: bool) -> BaseModel:
    validator = reader_of(model) if was_fitted else model.__pydantic_validator__
    try:
        fitted: BaseModel = validator.validate_json(to_json(payload), by_alias=True, by_name=True)
    except Exception as error:  # noqa: BLE001 - a validator of the author's may raise anything
        why = f"its validator raised {name_type(error)}"
        if type(error) is ValidationError:
            why = payloads.why(error, model)
        misfit = payloads.link(MisfitError(f"The event {kind!r} does not fit {model.__name__}: {why}."), error)
    else:
        return fitted
    raise misfit
