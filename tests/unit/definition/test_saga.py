"""A saga's definition: its fingerprint, its diagrams, and finding a step in it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from saga_orchestrator.definition.builder import SagaBuilder
from saga_orchestrator.definition.graph import StepKind
from saga_orchestrator.definition.saga import SagaDefinition
from saga_orchestrator.definition.step import BaseStep
from saga_orchestrator.errors import SagaDefinitionError


class Nothing(BaseModel):
    pass


class Act(BaseStep[Nothing, Nothing]):
    async def execute(self, inp: Nothing) -> Nothing:
        return inp


class Undoable(Act):
    async def compensate(self, inp: Nothing, out: Nothing) -> None:
        raise NotImplementedError


class RenamedUndoable(Undoable):
    pass


def nothing(*_: Any) -> Nothing:
    return Nothing()


def order_saga(step: type[Act] = Undoable, *, step_id: str = "charge", **settings: Any) -> SagaDefinition:
    builder = SagaBuilder(**settings)
    builder.add_step(step=Act(), input_map=nothing, step_id="look", kind=StepKind.READ_ONLY)
    with builder.parallel():
        builder.add_step(step=Undoable(), input_map=nothing, step_id="reserve")
        builder.add_step(step=step(), input_map=nothing, step_id=step_id)
    builder.add_step(step=Act(), input_map=nothing, step_id="ship", kind=StepKind.PIVOT)
    builder.add_step(step=Act(), input_map=nothing, step_id="notify", kind=StepKind.RETRIABLE)
    return builder.build()


def chain(*step_ids: str, after: Callable[[dict[str, Any]], Any] = lambda refs: None) -> SagaDefinition:
    builder, refs = SagaBuilder(), dict[str, Any]()
    for step_id in step_ids:
        refs[step_id] = builder.add_step(step=Undoable(), input_map=nothing, step_id=step_id, after=after(refs))
    return builder.build()


class TestDefinition:
    def test_it_is_frozen(self) -> None:
        """Nobody changes a definition while sagas run."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            order_saga().version = 2  # type: ignore[misc]

    def test_a_step_is_found_by_its_id(self) -> None:
        """The same object that the list of steps holds."""
        definition = order_saga()

        assert definition.step("ship") is definition.steps[3]

    def test_an_unknown_step_is_refused_with_the_known_ones(self) -> None:
        """A typo is found by reading the message."""
        with pytest.raises(SagaDefinitionError, match="no step 'shop' in this saga; its steps are: look, reserve, "):
            order_saga().step("shop")

    def test_it_knows_whether_a_failure_is_compensated(self) -> None:
        """The builder's setting is kept where the kernel decides by it."""
        assert [order_saga(compensate_on_failure=value).compensate_on_failure for value in (True, False)] == [
            True,
            False,
        ]


class TestFingerprint:
    def test_it_is_the_same_in_every_process(self) -> None:
        """A digest of the structure alone; this value is what rows of released versions hold."""
        assert order_saga().fingerprint == order_saga().fingerprint == "85b4ac01689ce3d76455e14ba1f84395"

    def test_it_does_not_see_what_a_running_saga_does_not_rely_on(self) -> None:
        """Class names, order of edges and retry policies may change under a running saga."""
        assert order_saga(RenamedUndoable).fingerprint == order_saga().fingerprint
        forth = chain("a", "b", "c", after=lambda refs: [*refs.values()])
        back = chain("a", "b", "c", after=lambda refs: [*refs.values()][::-1])
        assert forth.fingerprint == back.fingerprint

    @pytest.mark.parametrize(
        "changed",
        [
            order_saga(step_id="pay"),
            order_saga(version=2),
            order_saga(compensate_on_failure=False),
            chain("look"),
        ],
    )
    def test_it_changes_with_the_structure(self, changed: SagaDefinition) -> None:
        """Ids, version and what a failure does are part of it."""
        assert changed.fingerprint != order_saga().fingerprint
        assert re.fullmatch("[0-9a-f]{32}", changed.fingerprint)

    def test_it_changes_with_edges_kinds_and_compensations(self) -> None:
        """Two steps in each of the ways in which they can differ have different fingerprints."""

        def pair(second: type[Act], *, kind: StepKind | None = None, beside: bool = False) -> str:
            builder = SagaBuilder()
            builder.add_step(step=Undoable(), input_map=nothing)
            builder.add_step(step=second(), input_map=nothing, kind=kind, after=[] if beside else None)
            return builder.build().fingerprint

        found = [
            pair(Act),
            pair(Undoable),
            pair(Act, kind=StepKind.PIVOT),
            pair(Act, kind=StepKind.READ_ONLY),
            pair(Undoable, beside=True),
        ]
        assert len(set(found)) == len(found)


class TestDiagrams:
    def test_a_mermaid_flowchart_shows_kinds_as_shapes(self) -> None:
        """Boxes are compensatable, rounded ones read only, the hexagon is the pivot, double bars are retriable."""
        assert order_saga().to_mermaid() == (
            "flowchart TD\n"
            '    n0(["look<br/>Act"])\n'
            '    n1["reserve<br/>Undoable"]\n'
            '    n2["charge<br/>Undoable"]\n'
            '    n3{{"ship<br/>Act"}}\n'
            '    n4[["notify<br/>Act"]]\n'
            "    n0 --> n1\n"
            "    n0 --> n2\n"
            "    n1 --> n3\n"
            "    n2 --> n3\n"
            "    n3 --> n4\n"
        )

    def test_a_dot_graph_shows_kinds_as_shapes(self) -> None:
        """The same graph for Graphviz."""
        assert order_saga().to_dot() == (
            "digraph saga {\n"
            "    rankdir=TB;\n"
            '    n0 [shape=ellipse, label="look\\nAct"];\n'
            '    n1 [shape=box, label="reserve\\nUndoable"];\n'
            '    n2 [shape=box, label="charge\\nUndoable"];\n'
            '    n3 [shape=hexagon, label="ship\\nAct"];\n'
            '    n4 [shape=component, label="notify\\nAct"];\n'
            "    n0 -> n1;\n"
            "    n0 -> n2;\n"
            "    n1 -> n3;\n"
            "    n2 -> n3;\n"
            "    n3 -> n4;\n"
            "}\n"
        )

    def test_an_id_cannot_break_out_of_a_diagram(self) -> None:
        """Quotes, brackets, entities, backslashes and line breaks are escaped; letters of any script are not."""
        definition = chain('a"]; <b>&#34;\\\n', "оплата_1.x-y z")

        assert '    n0["a#34;#93;#59; #60;b#62;#38;#35;34#59;#92;#10;<br/>Undoable"]\n' in definition.to_mermaid()
        assert '    n0 [shape=box, label="a\\"]; <b>&amp;#34;\\\\&#10;\\nUndoable"];\n' in definition.to_dot()
        assert '"оплата_1.x-y z<br/>Undoable"' in definition.to_mermaid()
        assert '"оплата_1.x-y z\\nUndoable"' in definition.to_dot()
