"""Runs the examples of README.md, docs/ and the docstrings, so that no page shows code that does not work.

A Markdown page is run like a script of its own: one namespace for all its ``python`` blocks, a new empty folder to work
in, and `__name__ == "__main__"`, so that a quick start with `asyncio.run(main())` at its end really runs. The
docstrings of a module share the names of that module. Examples may use `await`, `async with` and `async for` outside a
function, as in `python -m asyncio`: all those of a page share one event loop. There is no way to skip a block: what is
not meant to run is not marked ``python``.

A page is one test, because its examples build on each other and pytest-xdist would spread them over processes.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.abstract import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser

DOCTESTS = DocTestStringParser()


def run_block(example: Example) -> None:
    source = pad(example.parsed, example.line + example.parsed.line_offset)
    example.namespace["__run__"](source, example.path, "exec")


def awaiting(doctests: Iterable[Region]) -> Iterable[Region]:
    """Let doctests await: each calls the page's `__run__` with its own source, where doctest would compile it."""
    for region in doctests:
        region.parsed.source = f"__run__({region.parsed.source!r})\n"
        yield region


def docstring_examples(document: Document) -> Iterable[Region]:
    return awaiting(DOCTESTS(document.text, document.path))


def markdown_examples(document: Document) -> Iterable[Region]:
    for block in CodeBlockParser("python", run_block)(document):
        if not block.parsed.startswith(">>>"):
            yield block
            continue
        for region in awaiting(DOCTESTS(block.parsed, document.path)):
            region.adjust(block, block.parsed)
            yield region


PAGES = {
    ".md": Sybil([markdown_examples], patterns=["README.md", "docs/*.md", "docs/*/*.md", "docs/*/*/*.md"]),
    ".py": Sybil([docstring_examples], patterns=[f"saga_orchestrator/{'*/' * depth}*.py" for depth in range(4)]),
}


class PageFile(pytest.File):
    """A file with examples."""

    def collect(self) -> Iterator[pytest.Item]:
        document = PAGES[self.path.suffix].parse(self.path)
        if any(document.examples()):
            yield PageItem.from_parent(self, name="examples", document=document)


class PageItem(pytest.Item):
    """All the examples of one page, in order."""

    def __init__(self, *, document: Document, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.document = document

    def runtest(self) -> None:
        with opened(self.document.namespace, as_script=self.path.suffix == ".md"):
            for example in self.document.examples():
                example.evaluate()

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"the examples of {self.path.name}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PageFile | None:
    page = PAGES.get(file_path.suffix)
    return PageFile.from_parent(parent, path=file_path) if page and page.should_parse(file_path) else None


class Script:
    """What `sys.modules` holds as `__main__` while a page runs: classes look up their annotations there."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.__dict__ = namespace


@contextlib.contextmanager
def opened(namespace: dict[str, Any], *, as_script: bool) -> Iterator[None]:
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as place, contextlib.chdir(place), asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:

        def run(source: str, filename: str = "<example>", mode: str = "single") -> None:
            code = compile(source, filename, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            result = eval(code, namespace)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(result)

        namespace["__run__"] = run
        if as_script:
            namespace["__name__"] = "__main__"
            patch.setitem(sys.modules, "__main__", Script(namespace))
        yield
