"""A payload is cut out of the text around it, and not written anew."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_orchestrator.runtime.members import text_of

EXACT = '{"to": "z", "at":1e22,"list" :[-0.0, 1.50, "}\\"{"],"big":%s}' % ("9" * 5000)


@pytest.mark.parametrize(
    "text", ['{"initial_data":%s}', ' { "other" : [{"initial_data":1}], "initial_data" : %s , "n":1}\n']
)
@pytest.mark.parametrize("payload", [EXACT, "null", '"x"', "-1.0E5", "[]"])
def test_a_member_is_the_very_text_that_was_written(text: str, payload: str) -> None:
    """Its spaces, the order of its keys, and the form of its numbers, however long they are."""
    assert text_of(text % payload, "initial_data") == payload


def test_of_two_members_with_one_name_the_last_counts() -> None:
    """As for every reader of JSON here."""
    assert text_of('{"a":1,"a":2}', "a") == "2"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a"', '{"a":', '{"a":1', '{"a":1 "b":2}', '{"b":}', "{1}"])
def test_what_is_no_object_is_a_value_error(text: str) -> None:
    """So a row that somebody has spoilt is set aside."""
    with pytest.raises(ValueError, match=r"."):
        text_of(text, "a")


@pytest.mark.parametrize("text", ["{}", '{"b":{"a":1}}'])
def test_a_member_that_is_not_there_is_a_key_error(text: str) -> None:
    with pytest.raises(KeyError, match="a"):
        text_of(text, "a")


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), jsons, min_size=1), st.sampled_from([None, 1]), st.booleans())
def test_every_member_is_found(members: dict[str, object], indent: int | None, ascii_only: bool) -> None:
    """Whatever stands around it."""
    text = json.dumps(members, indent=indent, ensure_ascii=ascii_only)
    assert {name: json.loads(text_of(text, name)) for name in members} == members
