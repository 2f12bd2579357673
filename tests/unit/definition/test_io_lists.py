"""Items of stored lists, and lists of stored items: what is written one by one is read together, and the other way."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.errors import PayloadError


class Parcel(BaseModel):
    at: datetime
    weight: bytes


class Turned:
    """A codec whose text nobody reads by chance."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, encoded: str) -> str:
        return encoded[::-1]


PARCELS = [Parcel(at=datetime(2024, 2, day, tzinfo=UTC), weight=b"%d" % day) for day in (1, 2)]


@pytest.mark.parametrize("payloads", [Payloads(), Payloads(codec=Turned())])
def test_an_item_of_a_list_is_what_it_was(payloads: Payloads) -> None:
    """Whatever its types are, and whoever encodes it."""
    text = payloads.dump(RootModel[list[Parcel]](PARCELS), what="it")
    assert [payloads.load_item(Parcel, text, index) for index in range(2)] == PARCELS


@pytest.mark.parametrize("payloads", [Payloads(), Payloads(codec=Turned())])
def test_a_list_of_what_was_stored_one_by_one(payloads: Payloads) -> None:
    """With nothing where there is none."""
    texts = [payloads.dump(parcel, what="it") for parcel in PARCELS]
    read = payloads.load_list(RootModel[list[Parcel | None]], [texts[0], None, texts[1]])
    assert read.root == [PARCELS[0], None, PARCELS[1]]


def test_what_does_not_fit_is_refused() -> None:
    """By the same error as any other payload."""
    with pytest.raises(PayloadError, match="does not fit Parcel"):
        Payloads().load_item(Parcel, "[1]", 0)
