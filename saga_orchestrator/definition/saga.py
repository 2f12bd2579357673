"""A saga's definition: what all of its instances have in common, frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from ..errors import SagaDefinitionError
from . import diagram
from .failure import FailurePlan
from .fans import item_id, item_of
from .graph import Graph
from .step import StepDefinition


@dataclass(frozen=True, eq=False)
class SagaDefinition:
    """The steps of a saga, their order, and how it fails. Made by `SagaBuilder.build`.

    Attributes:
        steps: The steps in the order in which they were added.
        graph: The same, as far as the kernel decides by it.
        version: Tells sagas of this definition from those of an older one of the same name.
        commit: "auto" or "manual": whether somebody is asked before a saga is finished.
        failure: What is done about a saga that has failed.
        is_unknown: It was not built: it stands for a definition that this process does not have.
    """

    steps: tuple[StepDefinition, ...]
    graph: Graph
    version: int = 1
    commit: Literal["auto", "manual"] = "auto"
    failure: FailurePlan = field(default_factory=FailurePlan)
    is_unknown: bool = False

    @property
    def compensate_on_failure(self) -> bool:
        """Whether a failed saga is undone, or left standing for a person to decide."""
        return self.graph.compensate_on_failure

    @cached_property
    def written(self) -> tuple[StepDefinition, ...]:
        """The steps that the author wrote, without those that finish the saga."""
        return tuple(step for step in self.steps if not step.is_finish)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what a running saga relies on: it changes when the structure does, not when code is renamed."""
        structure = {
            "version": self.version,
            "compensate_on_failure": self.compensate_on_failure,
            "steps": {
                node.step_id: {"after": sorted(node.after), "kind": node.kind.value, "undoable": node.undoable}
                | ({"branches": node.branches} if node.branches else {})
                for node in self._sketch.nodes.values()
            },
        }
        canonical = json.dumps(structure, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    @cached_property
    def has_plain(self) -> bool:
        """Whether any of its steps calls a plain function, and so needs a thread."""
        return any(each.plain for step in self.steps for each in (step, step.each) if each is not None)

    def step(self, step_id: str) -> StepDefinition:
        """Return the step of this id.

        Raises:
            SagaDefinitionError: There is none.
        """
        if (found := self._by_id.get(step_id) or self._item(step_id)) is None:
            known = ", ".join(self._by_id)
            raise SagaDefinitionError(f"There is no step '{step_id}' in this saga; its steps are: {known}.")
        return found

    def _item(self, step_id: str) -> StepDefinition | None:
        """Return the step for one item of a fan."""
        if step_id in self._items:
            return self._items[step_id]
        place = item_of(step_id)
        first = None if place is None else self._by_id.get(place[0])
        if first is None or first.each is None:
            return None
        node = replace(first.each.node, step_id=step_id)
        self._items[step_id] = found = replace(first.each, step_id=step_id, node=node, item=place)
        return found

    @cached_property
    def _items(self) -> dict[str, StepDefinition]:
        return {}

    def seen_from(self, scope: str | None) -> Mapping[str, str]:
        """Return what the steps of a part call each step whose output they see; those outside of any part with None.

        A part's own steps are seen from inside it only, and from outside the part itself, as its last step.
        """
        return self._seen[scope]

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart; the shape of a step shows its kind."""
        return diagram.mermaid(self._sketch, self._labels)

    def to_dot(self) -> str:
        """Return the graph in Graphviz's language; the shape of a step shows its kind."""
        return diagram.dot(self._sketch, self._labels)

    @cached_property
    def _by_id(self) -> Mapping[str, StepDefinition]:
        return MappingProxyType({step.step_id: step for step in self.steps})

    @cached_property
    def _seen(self) -> Mapping[str | None, Mapping[str, str]]:
        found: dict[str | None, dict[str, str]] = {step.scope: {} for step in self.steps}
        for step in [step for step in self.written if step.gathers is None]:
            name = step.step_id if step.scope is None else step.step_id.removeprefix(f"{step.scope}.")
            found[step.scope][name] = step.stands_for or step.step_id
        return found

    @cached_property
    def _sketch(self) -> Graph:
        """The graph with each step of a fan once."""
        return self.graph.unfolded(dict.fromkeys(self.graph.fans, 1))

    @property
    def _labels(self) -> dict[str, tuple[str, str]]:
        each = {item_id(first, 0): (fan.item.step_id, fan.item.name) for first, fan in self.graph.fans.items()}
        return {i: each.get(i) or (i, self.step(i).step_name) for i in self._sketch.nodes}
