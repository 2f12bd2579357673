"""A saga as a part of another: what its steps are called, what comes after what, and what is refused."""

from __future__ import annotations

import pytest

from saga_orchestrator import SagaBuilder, SagaDefinition, SagaDefinitionError

from .sums import Final, Pay, Sum


def payment(**settings: bool) -> SagaDefinition:
    builder = SagaBuilder(**settings)  # type: ignore[arg-type]
    first = builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="reserve")
    builder.add_step(step=Pay(), input_map=lambda out: out, depends_on=first, step_id="capture")
    return builder.build()


def edges(definition: SagaDefinition) -> dict[str, tuple[str, ...]]:
    return {step_id: node.after for step_id, node in definition.graph.nodes.items()}


def test_the_steps_of_a_part_stand_in_its_namespace() -> None:
    """The part begins after what stands before it, and what is added after it comes after its last step."""
    builder = SagaBuilder()
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="book")
    paid = builder.add_saga(payment(), input_map=lambda ctx: {}, namespace="payment")
    builder.add_step(step=Pay(), input_map=lambda out: out, depends_on=paid, step_id="mail")

    assert edges(builder.build()) == {
        "book": (),
        "payment": ("book",),
        "payment.reserve": ("payment",),
        "payment.capture": ("payment.reserve",),
        "mail": ("payment.capture",),
    }


def test_one_definition_may_be_a_part_twice_and_of_parts() -> None:
    """Each time in a namespace of its own, to any depth; a part's ref is to the step that it ends with."""
    inner = SagaBuilder()
    paid = inner.add_saga(payment(), input_map=lambda ctx: ctx.initial_data, namespace="pay")
    outer = SagaBuilder()
    with outer.parallel():
        left = outer.add_saga(inner.build(), input_map=lambda ctx: {}, namespace="left")
        right = outer.add_saga(inner.build(), input_map=lambda ctx: {}, namespace="right")
    outer.add_step(step=Pay(), input_map=lambda a, b: a, depends_on=[left, right], step_id="end")
    built = outer.build()

    assert (paid.step_id, left.step_id, left.output_model) == ("pay.capture", "left.pay.capture", Sum)
    assert edges(built)["right.pay.reserve"] == ("right.pay",)
    assert edges(built)["end"] == ("left.pay.capture", "right.pay.capture")


def test_each_sees_the_names_of_its_own_scope() -> None:
    """From outside a part is one name, for its last step; inside, a step has the name that its author gave it."""
    inner = SagaBuilder()
    inner.add_saga(payment(), input_map=lambda ctx: {}, namespace="pay")
    outer = SagaBuilder()
    outer.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="book")
    outer.add_saga(inner.build(), input_map=lambda ctx: {}, namespace="in")
    built = outer.build()

    assert built.seen_from(None) == {"book": "book", "in": "in.pay.capture"}
    assert built.seen_from("in") == {"pay": "in.pay.capture"}
    assert built.seen_from("in.pay") == {"reserve": "in.pay.reserve", "capture": "in.pay.capture"}


def test_a_part_keeps_what_its_author_said_and_is_checked_with_the_whole() -> None:
    """Kinds and compensations are the part's; that nothing is undone after its pivot holds for the saga around it."""
    part = SagaBuilder()
    part.add_step(step=Final(), input_map=lambda ctx: Sum(), step_id="send")
    builder = SagaBuilder()
    builder.add_saga(part.build(), input_map=lambda ctx: {}, namespace="parcel")
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="pay")

    with pytest.raises(SagaDefinitionError, match=r"'pay' is COMPENSATABLE, but can run after 'parcel.send'"):
        builder.build()


def test_a_part_that_ends_with_several_steps_is_refused() -> None:
    """It would have no output."""
    part = SagaBuilder()
    with part.parallel():
        part.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="a")
        part.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="b")

    with pytest.raises(SagaDefinitionError, match=r"Saga 'part' ends with 2 steps side by side \('a', 'b'\)"):
        SagaBuilder().add_saga(part.build(), input_map=lambda ctx: {}, namespace="part")


def test_a_part_that_fails_otherwise_than_the_whole_is_refused() -> None:
    """They fail together."""
    builder = SagaBuilder()
    with pytest.raises(SagaDefinitionError, match="Saga 'part' has compensate_on_failure=False"):
        builder.add_saga(payment(compensate_on_failure=False), input_map=lambda ctx: {}, namespace="part")


def test_what_is_no_definition_is_refused() -> None:
    """Most often a builder that was not built."""
    with pytest.raises(SagaDefinitionError, match=r"give it what SagaBuilder.build returned"):
        SagaBuilder().add_saga(SagaBuilder(), input_map=lambda ctx: {})  # type: ignore[arg-type]


def test_a_name_that_is_taken_is_refused_and_nothing_is_added() -> None:
    """Also if it is that of a step inside of the part."""
    builder = SagaBuilder()
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="part.capture")
    with pytest.raises(SagaDefinitionError, match=r"Duplicate step id: part\.capture"):
        builder.add_saga(payment(), input_map=lambda ctx: {}, namespace="part")

    assert list(edges(builder.build())) == ["part.capture"]


def test_the_fingerprint_tells_a_part_from_none() -> None:
    """A running saga relies on it."""
    alone = SagaBuilder()
    alone.add_saga(payment(), input_map=lambda ctx: {}, namespace="a")
    other = SagaBuilder()
    other.add_saga(payment(), input_map=lambda ctx: {}, namespace="b")

    assert len({alone.build().fingerprint, other.build().fingerprint, payment().fingerprint}) == 3


def test_parts_are_drawn() -> None:
    """All of their steps are in the diagram."""
    builder = SagaBuilder()
    builder.add_saga(payment(), input_map=lambda ctx: {}, namespace="part")

    assert "part.capture" in builder.build().to_mermaid()
    assert "part.capture" in builder.build().to_dot()


def test_a_saga_in_itself_is_a_copy_of_what_it_was() -> None:
    """A definition is done when it is built, so that nesting has an end; the builder itself is none."""
    builder = SagaBuilder()
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="pay")
    builder.add_saga(builder.build(), input_map=lambda ctx: {}, namespace="again")

    assert list(edges(builder.build())) == ["pay", "again", "again.pay"]
    with pytest.raises(SagaDefinitionError, match=r"give it what SagaBuilder.build returned"):
        builder.add_saga(builder, input_map=lambda ctx: {}, namespace="builder")  # type: ignore[arg-type]
