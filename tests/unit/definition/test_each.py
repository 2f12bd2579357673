"""Fans: what the builder refuses, how a graph unfolds, and what a saga knows of its items."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from saga_orchestrator import BaseStep, FixedRetry, SagaBuilder, SagaDefinition, StepKind, step
from saga_orchestrator.definition.fans import Fan, item_id, item_of, unfolded
from saga_orchestrator.definition.graph import Graph, Node
from saga_orchestrator.errors import PermanentError, SagaDefinitionError


class Letter(BaseModel):
    to: str


class Mail(BaseStep[Letter, Letter]):
    async def execute(self, inp: Letter) -> Letter:
        return inp

    async def compensate(self, inp: Letter, out: Letter) -> None: ...


def listed(ctx: Any) -> Any:
    return ctx.initial_data


def mailing(**options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_each(items=listed, step=Mail(), step_id="mail", **options)
    return builder.build()


def after(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {step_id: node.after for step_id, node in graph.nodes.items()}


class TestBuilding:
    def test_a_fan_is_a_first_step_and_an_end(self) -> None:
        """What comes next comes after the end, and so after every item."""
        builder = SagaBuilder()
        ref = builder.add_each(items=listed, step=Mail(), step_id="mail")
        builder.add_step(step=Mail(), input_map=lambda _: {"to": "us"}, step_id="tell", depends_on=ref)

        assert ref.step_id == "mail.all"
        assert after(builder.build().graph) == {"mail": (), "mail.all": ("mail",), "tell": ("mail.all",)}

    def test_the_options_are_those_of_each_item(self) -> None:
        """Retries, timeouts and the rest are each item's own."""
        second = timedelta(seconds=1)
        retry = FixedRetry(3, second)
        item = mailing(retry_policy=retry, timeout=second, on_undo_failure="stop").step("mail.7").node

        assert (item.retry, item.timeout, item.on_undo_failure, item.undoable) == (retry, second, "stop", True)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"max_parallel": 0}, "max_parallel is 0; give it a number of at least 1"),
            ({"max_parallel": "2"}, "max_parallel is '2'"),
            ({"max_parallel": True}, "max_parallel is True"),
            ({"tolerate": -1}, "tolerate is -1; give it a number of at least 0"),
            ({"kind": StepKind.PIVOT}, "'mail.0' is PIVOT and has compensate|Step 'mail.*' is PIVOT"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, options: dict[str, Any], reason: str) -> None:
        """The message names the fan."""
        with pytest.raises(SagaDefinitionError, match=reason):
            mailing(**options)

    def test_items_are_no_points_of_no_return(self) -> None:
        """A saga has one pivot, and a list may have several items."""

        class Send(BaseStep[Letter, Letter]):
            async def execute(self, inp: Letter) -> Letter:
                return inp

        builder = SagaBuilder()
        builder.add_each(items=listed, step=Send(), step_id="mail", kind=StepKind.PIVOT)
        with pytest.raises(SagaDefinitionError, match=r"'mail\.0', 'mail\.1' are each a PIVOT"):
            builder.build()

    def test_an_item_without_undo_is_refused_beside_others(self) -> None:
        """Another item may fail beside it."""

        class Send(BaseStep[Letter, Letter]):
            async def execute(self, inp: Letter) -> Letter:
                return inp

        builder = SagaBuilder()
        builder.add_each(items=listed, step=Send(), step_id="mail")
        with pytest.raises(SagaDefinitionError, match=r"Step 'mail\.0' has no compensate"):
            builder.build()

    def test_a_plain_function_for_each_item_is_known(self) -> None:
        """The engine asks the steps of no other saga whether they need a thread."""

        @step
        def mail(inp: Letter) -> Letter:
            return inp

        @mail.compensate
        def unsend(inp: Letter, out: Letter) -> None: ...

        builder = SagaBuilder()
        builder.add_each(items=listed, step=mail, step_id="mail")
        assert builder.build().has_plain
        assert not mailing().has_plain

    def test_an_item_cannot_be_confirmed(self) -> None:
        """What would never be called is refused."""

        class Send(Mail):
            async def confirm(self, inp: Letter, out: Letter) -> None: ...

        with pytest.raises(SagaDefinitionError, match="Send has confirm"):
            SagaBuilder().add_each(items=listed, step=Send(), step_id="mail")

    def test_an_id_of_an_item_is_taken(self) -> None:
        """Two steps of one name would share their key."""
        builder = SagaBuilder()
        builder.add_each(items=listed, step=Mail(), step_id="mail")
        builder.add_step(step=Mail(), input_map=listed, step_id="mail.12")
        with pytest.raises(SagaDefinitionError, match=r"'mail\.12' has the id of an item of 'mail'"):
            builder.build()

    def test_what_is_no_step_is_refused(self) -> None:
        """As `add_step` does."""
        nothing: Any = print
        with pytest.raises(SagaDefinitionError, match="give it an instance of a BaseStep subclass"):
            SagaBuilder().add_each(items=listed, step=nothing, step_id="mail")

    def test_a_drawing_shows_the_step_once(self) -> None:
        """Between the first step and the end."""
        drawn = mailing().to_mermaid()
        assert drawn.count("Mail") == 1
        assert "n0 --> n1" in drawn
        assert "n1 --> n2" in drawn
        assert "mail.*" in mailing().to_dot()

    def test_the_fingerprint_tells_of_the_items(self) -> None:
        """A saga that is running relies on whether its items can be undone."""

        class Send(BaseStep[Letter, Letter]):
            async def execute(self, inp: Letter) -> Letter:
                return inp

        builder = SagaBuilder()
        builder.add_each(items=listed, step=Send(), step_id="mail", compensation=None)
        assert builder.build().fingerprint != mailing().fingerprint

    def test_a_fan_in_a_part_is_named_after_it(self) -> None:
        """Its items, too; one definition may be a part twice."""
        builder = SagaBuilder()
        for name in ("first", "second"):
            builder.add_saga(mailing(max_parallel=1), input_map=listed, namespace=name)
        definition = builder.build()

        graph = definition.graph.unfolded({"second.mail": 2})
        assert graph.nodes["second.mail.1"].after == ("second.mail.0",)
        assert "first.mail.0" not in graph.nodes
        assert definition.step("second.mail.1").item == ("second.mail", 1)
        assert definition.step("second.mail.1").scope == "second"

    @pytest.mark.parametrize("step_id", ["mail.x", "mail.01", "mail.", "post.1", "mail.all.1"])
    def test_what_is_no_item_is_no_step(self, step_id: str) -> None:
        """The error names the steps that there are."""
        with pytest.raises(SagaDefinitionError, match=r"its steps are: mail, mail\.all"):
            mailing().step(step_id)

    def test_a_step_of_an_item_is_made_once(self) -> None:
        """It is looked up on every attempt."""
        definition = mailing()
        assert definition.step("mail.3") is definition.step("mail.3")


class TestItems:
    def first(self) -> Any:
        return mailing().step("mail")

    @pytest.mark.parametrize("made", [[], [{"to": "ann"}, Letter(to="bob")], (Letter(to="ann"),), iter([{"to": "x"}])])
    def test_a_list_is_anything_that_can_be_gone_through(self, made: Any) -> None:
        """Of inputs, or of dicts that fit."""
        given = self.first().make_input(type("Ctx", (), {"initial_data": made}))
        assert all(isinstance(item, Letter) for item in given.root)

    async def test_what_is_recorded_is_what_was_given(self) -> None:
        """The first step and the end only write down; each item is given to the step as it is."""
        first, ann = self.first(), Letter(to="ann")
        listed = first.input_model([ann])
        assert await first.execute(listed, lambda: None) is listed
        assert mailing().step("mail.0").make_input(ann) is ann

    @pytest.mark.parametrize("made", [None, 3, "ann", b"ann", {"to": "ann"}, Letter(to="ann")])
    def test_what_is_no_list_is_refused(self, made: Any) -> None:
        """A text and a dict can be gone through, and are not meant."""
        with pytest.raises(PermanentError, match=r"items answered \w+, which is no list"):
            self.first().make_input(type("Ctx", (), {"initial_data": made}))

    def test_too_long_a_list_is_refused(self) -> None:
        """The message says what to do."""
        with pytest.raises(PermanentError, match=r"10,000 items, and a saga takes 1,000: give each several of them"):
            self.first().make_input(type("Ctx", (), {"initial_data": [{"to": "ann"}] * 10_000}))


class TestUnfolding:
    NODES = Graph.of(Node(step_id="a"), Node(step_id="f", after=("a",)), Node(step_id="f.all", after=("f",)))

    def fan(self, **bounds: Any) -> Graph:
        item = Node(step_id="f.*", after=("f",), undoable=True)
        return Graph.of(*self.NODES.nodes.values(), fans={"f": Fan(item=item, end="f.all", **bounds)})

    def test_every_item_comes_after_the_first_step_and_before_the_end(self) -> None:
        """Side by side."""
        graph = self.fan().unfolded({"f": 2})
        assert after(graph) == {"a": (), "f": ("a",), "f.0": ("f",), "f.1": ("f",), "f.all": ("f.0", "f.1")}
        assert (graph.nodes["f.1"].fan, graph.nodes["f.1"].undoable) == ("f", True)

    def test_with_a_bound_items_come_after_items(self) -> None:
        """No more than so many can be in flight."""
        nodes = self.fan(max_parallel=2).unfolded({"f": 5}).nodes
        assert [nodes[f"f.{index}"].after for index in range(5)] == [("f",), ("f",), ("f.0",), ("f.1",), ("f.2",)]

    def test_a_list_of_none_leads_to_the_end(self) -> None:
        """At once."""
        assert after(self.fan().unfolded({"f": 0}))["f.all"] == ("f",)

    def test_it_unfolds_once(self) -> None:
        """What is unfolded stays so, and what no fan is called is nothing."""
        graph = self.fan()
        whole = graph.unfolded({"f": 2})
        assert whole.unfolded({"f": 2}) is whole
        assert graph.unfolded({}) is graph
        assert graph.unfolded({"x": 2}) is graph
        assert graph.unfolded({"f": 2}) is whole

    def test_few_unfoldings_are_kept(self) -> None:
        """However many lengths the lists of a definition's sagas have."""
        graph = self.fan()
        for count in range(300):
            assert len(graph.unfolded({"f": count}).nodes) == 3 + count
        assert len(graph._unfoldings) <= 256

    def test_ids_name_the_place(self) -> None:
        """And are told from others."""
        assert item_id("f", 12) == "f.12"
        assert [item_of(each) for each in ("f.12", "f.x.0", "f", "f.", "f.-1", "f.٣", ".3")] == [
            ("f", 12),
            ("f.x", 0),
            None,
            None,
            None,
            None,
            ("", 3),
        ]
        assert unfolded(self.NODES.nodes, {}, {}) == dict(self.NODES.nodes)


async def test_a_savepoint_does_nothing() -> None:
    """It is there to be gone back to."""
    builder = SagaBuilder()
    ref = builder.add_savepoint("paid")
    point = builder.build().step("paid")

    nothing = point.make_input(None)
    assert await point.execute(nothing, lambda: None) is nothing  # type: ignore[arg-type, return-value]
    assert (ref.step_id, point.step_name, point.node.kind) == ("paid", "Savepoint", StepKind.READ_ONLY)
