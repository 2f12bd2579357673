"""Choices as they are written down: what they become, how they are drawn, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from saga_orchestrator import (
    BaseStep,
    InputContext,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
)

from .sums import Final, Loose, Pay, Sum


def one(step: BaseStep[Any, Any] | None = None, step_id: str = "pay") -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=step or Pay(), input_map=lambda ctx: Sum(), step_id=step_id)
    return builder.build()


def chosen(**more: Any) -> SagaBuilder:
    """Return a builder with a step, a choice between a card and an invoice, and, unless told otherwise, a last step."""
    builder = SagaBuilder()
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="book")
    branches = {"card": one(), "invoice": one()} | more.pop("branches", {})
    builder.add_choice(choose=lambda ctx: "card", branches=branches, step_id="how", **more)
    return builder


def test_m15_branches_stand_side_by_side_and_are_joined() -> None:
    """Each begins after the choice; what is added next comes after all of them."""
    builder = chosen()
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="mail")
    nodes = builder.build().graph.nodes

    assert {step_id: node.after for step_id, node in nodes.items()} == {
        "book": (),
        "how": ("book",),
        "how.card": ("how",),
        "how.card.pay": ("how.card",),
        "how.invoice": ("how",),
        "how.invoice.pay": ("how.invoice",),
        "mail": ("how.card.pay", "how.invoice.pay"),
    }
    assert nodes["how.card.pay"].branches == (("how", "card"),)
    assert nodes["mail"].branches == ()


def test_m15_to_come_after_a_choice_is_to_come_after_its_branches() -> None:
    """Also for a step that says so itself, and for one that is given the answer."""
    builder = SagaBuilder()
    how = builder.add_choice(choose=lambda ctx: "card", branches={"card": one(), "invoice": one()}, step_id="how")
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), after=[how], step_id="mail")
    builder.add_step(step=Pay(), input_map=lambda answer: Sum(), depends_on=how, after=[], step_id="log")
    nodes = builder.build().graph.nodes

    assert nodes["mail"].after == nodes["log"].after == ("how.card.pay", "how.invoice.pay")


def test_m15_choices_nest() -> None:
    """A step of a branch of a choice of a branch depends on both answers, by the names that they have there."""
    inner = SagaBuilder()
    inner.add_choice(choose=lambda ctx: "a", branches={"a": one()}, otherwise=None, step_id="which")
    inner.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="end")
    nodes = chosen(branches={"invoice": inner.build()}).build().graph.nodes

    assert nodes["how.invoice.which.a.pay"].branches == (("how", "invoice"), ("how.invoice.which", "a"))
    assert nodes["how.invoice.which.a"].after == ("how.invoice.which",)


def ask(answer: Any, **settings: Any) -> Any:
    builder = SagaBuilder()
    builder.add_choice(choose=lambda ctx: answer, branches={"card": one()}, step_id="how", **settings)
    return builder.build().step("how").make_input(None)


def test_m15_the_answer_is_a_label() -> None:
    """It is what is recorded."""
    assert ask("card").root == "card"


def test_m15_an_answer_without_a_branch_is_an_error_unless_it_is_declared() -> None:
    """`otherwise=None` says that then nothing is done; a definition, what is."""
    for answer in ("gold", None, 7):
        with pytest.raises(PermanentError, match="and the branches are 'card'"):
            ask(answer)
    assert ask("gold", otherwise=None).root == "otherwise"
    assert ask("gold", otherwise=one()).root == "otherwise"
    assert "how.otherwise.pay" in chosen(otherwise=one()).build().graph.nodes


def test_only_one_branch_can_fail_after_an_effect_of_it() -> None:
    """What another branch might do is no danger to an effect that cannot be undone."""
    chosen(branches={"card": one(Loose())}).build()
    builder = chosen(branches={"card": one(Loose())})
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="mail")
    with pytest.raises(SagaDefinitionError, match=r"'how.card.pay' has no compensate, and 'mail' may fail after it"):
        builder.build()


def test_a_pivot_in_a_branch_forbids_nothing_in_another() -> None:
    """But it does afterwards."""
    chosen(branches={"card": one(Final())}).build()
    builder = chosen(branches={"card": one(Final())})
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="mail")
    with pytest.raises(SagaDefinitionError, match=r"'mail' is COMPENSATABLE, but can run after 'how.card.pay'"):
        builder.build()


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ({}, "give it a definition for each answer"),
        ({"": one()}, "give it a definition for each answer"),
        ({"otherwise": one()}, "has a branch named 'otherwise'"),
        ({"card": 7}, r"Saga 'how.card': the definition is 7"),
    ],
)
def test_branches_that_make_no_choice_are_refused(branches: Any, said: str) -> None:
    """The message names the choice."""
    with pytest.raises(SagaDefinitionError, match=said):
        SagaBuilder().add_choice(choose=lambda ctx: "a", branches=branches, step_id="how")


def test_a_choice_is_drawn_with_its_answers() -> None:
    """A diamond, and the answer on each way out of it."""
    built = chosen().build()

    assert 'n1{"how<br/>Choose"}' in built.to_mermaid()
    assert 'n1 -->|"card"| n2' in built.to_mermaid()
    assert 'n1 [shape=diamond, label="how\\nChoose"];' in built.to_dot()
    assert 'n1 -> n2 [label="card"];' in built.to_dot()


def test_the_fingerprint_tells_which_branch_a_step_is_of() -> None:
    """A running saga relies on it."""
    assert chosen().build().fingerprint != chosen(branches={"invoice": one(step_id="bill")}).build().fingerprint


async def test_what_is_asked_and_given_is_recorded_as_it_is() -> None:
    """The choice's output is the answer, and a branch begins with what the saga was started with."""
    built = chosen().build()
    how, card = built.step("how"), built.step("how.card")
    seen = InputContext(initial_data={"cents": 7}, context={}, step_outputs={})

    answer, given = how.make_input(seen), card.make_input(seen)

    assert await how.step.execute(answer) is answer
    assert await card.step.execute(given) is given
    assert (answer.root, given.root) == ("card", {"cents": 7})  # type: ignore[attr-defined]
