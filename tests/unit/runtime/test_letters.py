"""Events as they are stored, and read by the steps that have waited for them."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, FutureDatetime

from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.definition.waiting import Event
from saga_orchestrator.runtime.letters import MisfitError, opened, sealed


class Visit(BaseModel):
    at: FutureDatetime


def test_an_event_that_has_fitted_is_read_whatever_the_clock_says_by_then() -> None:
    """It is checked when it comes; the step may hear it later."""
    text = sealed(Payloads(), Event(type="visit", payload={"at": "2001-01-01T00:00:00Z"}))

    with pytest.raises(MisfitError):
        opened(Payloads(), Visit, text)
    assert opened(Payloads(), Visit, text, was_fitted=True).payload.at.year == 2001
