"""Draws a graph as text that renders: deterministic, and safe whatever a step is called."""

from __future__ import annotations

from collections.abc import Mapping

from .graph import Graph, StepKind

Labels = Mapping[str, tuple[str, ...]]
"""The lines that a step's box shows, by step id."""

_MERMAID_SHAPES = {
    StepKind.COMPENSATABLE: ("[", "]"),
    StepKind.READ_ONLY: ("([", "])"),
    StepKind.PIVOT: ("{{", "}}"),
    StepKind.RETRIABLE: ("[[", "]]"),
}
_DOT_SHAPES = {
    StepKind.COMPENSATABLE: "box",
    StepKind.READ_ONLY: "ellipse",
    StepKind.PIVOT: "hexagon",
    StepKind.RETRIABLE: "component",
}


def mermaid(graph: Graph, labels: Labels) -> str:
    """Return the graph as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for step_id, index in graph.position.items():
        left, right = ("{", "}") if step_id in graph.choices else _MERMAID_SHAPES[graph.nodes[step_id].kind]
        label = "<br/>".join(_mermaid_text(line) for line in labels[step_id])
        lines.append(f'    n{index}{left}"{label}"{right}')
    for before, step, answer in _edges(graph):
        label = f'|"{_mermaid_text(answer)}"|' if answer else ""
        lines.append(f"    {before} -->{label} {step}")
    return "\n".join(lines) + "\n"


def dot(graph: Graph, labels: Labels) -> str:
    """Return the graph in Graphviz's language."""
    lines = ["digraph saga {", "    rankdir=TB;"]
    for step_id, index in graph.position.items():
        label = "\\n".join(_dot_text(line) for line in labels[step_id])
        shape = "diamond" if step_id in graph.choices else _DOT_SHAPES[graph.nodes[step_id].kind]
        lines.append(f'    n{index} [shape={shape}, label="{label}"];')
    for before, step, answer in _edges(graph):
        label = f' [label="{_dot_text(answer)}"]' if answer else ""
        lines.append(f"    {before} -> {step}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _edges(graph: Graph) -> list[tuple[str, str, str | None]]:
    """Return which box leads to which; from a choice, with the answer that leads there."""
    return [
        (f"n{graph.position[before]}", f"n{graph.position[node.step_id]}", dict(node.branches).get(before))
        for node in graph.nodes.values()
        for before in node.after
    ]


def _mermaid_text(text: str) -> str:
    """Write everything but letters, digits and a few signs as an entity; Mermaid has too many special characters."""
    return "".join(letter if letter.isalnum() or letter in " _-." else f"#{ord(letter)};" for letter in text)


def _dot_text(text: str) -> str:
    """Escape what ends a quoted string, starts an escape or a character entity, or breaks the line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return "".join(letter if letter.isprintable() else f"&#{ord(letter)};" for letter in escaped)
