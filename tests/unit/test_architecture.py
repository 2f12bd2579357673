"""The shape of the package, as a test: sizes, names, what the kernel may know, and what is public.

import-linter holds the layers; this holds what it cannot say. Each rule is a function over a source file, so that the
last test can show, on a planted file, that every rule is able to fail.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import saga_orchestrator

PACKAGE = Path(saga_orchestrator.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

FILE_CAP, KERNEL_FILE_CAP = 300, 180
FUNCTION_CAP, NESTING_CAP = 40, 3
BANNED = {"manager", "handler", "helper", "helpers", "util", "utils", "data", "info", "process"}
KERNEL_MAY_IMPORT = (
    "saga_orchestrator.definition.graph",
    "saga_orchestrator.definition.retry",
    "saga_orchestrator.errors",
)
IMPURE = {
    "asyncio",
    "logging",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
}
CLOCKS_AND_DICE = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7"}
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)

PUBLIC = [
    "ActiveSagaAlreadyExistsError",
    "BaseStep",
    "CompensationResult",
    "DirtyState",
    "Event",
    "ExponentialRetry",
    "FailureAction",
    "FixedRetry",
    "FunctionStep",
    "HistoryEntry",
    "IdempotencyConflictError",
    "InputContext",
    "NoRetry",
    "OpenWait",
    "OutcomeUnknown",
    "PayloadCodec",
    "PayloadError",
    "PermanentError",
    "RetryAfter",
    "RetryPolicy",
    "SagaAdmin",
    "SagaAdminSnapshot",
    "SagaBuilder",
    "SagaDefinition",
    "SagaDefinitionError",
    "SagaEngine",
    "SagaError",
    "SagaFailedError",
    "SagaNotFoundError",
    "SagaOrchestrator",
    "SagaPage",
    "SagaResult",
    "SagaSnapshot",
    "SagaStateError",
    "SagaStateMixin",
    "SagaStatus",
    "SagaWorker",
    "SignalResult",
    "StartResult",
    "StepContext",
    "StepDefinition",
    "StepInputMap",
    "StepKind",
    "StepProgress",
    "StepRef",
    "TypeValidationError",
    "WaitFor",
    "__version__",
    "step",
]


def in_kernel(path: Path) -> bool:
    return path.relative_to(PACKAGE).parts[0] == "kernel"


def too_long(path: Path, source: str) -> Iterator[str]:
    cap = KERNEL_FILE_CAP if in_kernel(path) else FILE_CAP
    if (lines := len(code_lines(source))) > cap:
        yield f"{lines} lines of code, more than {cap}: two things live here"


def code_lines(source: str) -> set[int]:
    """The lines that hold code: no docstring, comment, blank line or import, so that no explanation costs room."""
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {line for token in tokens if token.type not in silent for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or is_bare_text(node):
            held.difference_update(range(node.lineno, node.end_lineno + 1))
    return held


def is_bare_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring: of a module, a class, a function, or the attribute above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def undocumented(path: Path, source: str) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(source)):
        yield "no docstring that says why this module exists"


def meaningless_names(path: Path, source: str) -> Iterator[str]:
    classes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    for name in (path.stem, *classes):
        words = set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
        if banned := words & BANNED:
            yield f"{name}: {banned.pop()} says nothing"


def swollen_functions(path: Path, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        if (lines := (node.end_lineno or 0) - body[0].lineno + 1) > FUNCTION_CAP:
            yield f"{node.name}: {lines} lines"
        if (nested := depth(node)) > NESTING_CAP:
            yield f"{node.name}: nested {nested} deep"


def depth(node: ast.AST, level: int = 0) -> int:
    """The deepest nesting of blocks below a node; an `elif` is no deeper than its `if`, a function starts anew."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child, level + (isinstance(child, BLOCKS) and not is_elif)))
    return deepest


def impurity(path: Path, source: str) -> Iterator[str]:
    if not in_kernel(path):
        return
    tree = ast.parse(source)
    for module in imported(path, tree):
        top = module.split(".")[0]
        ours = top == "saga_orchestrator"
        if ours and not (module.startswith(("saga_orchestrator.kernel", *KERNEL_MAY_IMPORT))):
            yield f"imports {module}"
        if not ours and (top not in sys.stdlib_module_names or top in IMPURE):
            yield f"imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in CLOCKS_AND_DICE:
            yield f"line {node.lineno}: {ast.unparse(node.func)}() reads a clock or rolls dice"


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """The absolute names of the modules that a file imports: `from a import b` counts as `a.b` if that is a module."""
    package = ["saga_orchestrator", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (below(module, alias.name) for alias in node.names)


def below(module: str, name: str) -> str:
    folder = PACKAGE.parent.joinpath(*module.split("."))
    is_module = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
    return f"{module}.{name}" if is_module else module


RULES = (too_long, undocumented, meaningless_names, swollen_functions, impurity)


def strains(path: Path, source: str) -> list[str]:
    return [f"{path.relative_to(PACKAGE)}: {found}" for rule in RULES for found in rule(path, source)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_source_file_keeps_the_house_rules(path: Path) -> None:
    assert strains(path, path.read_text(encoding="utf-8")) == []


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(saga_orchestrator.__all__) == PUBLIC
    assert [name for name in PUBLIC if not hasattr(saga_orchestrator, name)] == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


DEEP = """
def f():
    for a in b:
        if a:
            while a:
                with a:
                    pass
"""


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("runtime/new.py", '"""."""\n' + "a = 1\n" * 301, "301 lines of code, more than 300"),
        ("kernel/new.py", '"""."""\n' + "a = 1\n" * 181, "181 lines of code, more than 180"),
        ("runtime/new.py", "a = 1\n", "no docstring"),
        ("runtime/row_helper.py", '"""."""\n', "helper says nothing"),
        ("runtime/new.py", '"""."""\nclass LeaseManager: ...\n', "manager says nothing"),
        ("runtime/new.py", '"""."""\ndef f():\n' + "    a = 1\n" * 41, "f: 41 lines"),
        ("runtime/new.py", '"""."""\n' + DEEP, "f: nested 4 deep"),
        ("kernel/new.py", '"""."""\nimport asyncio\n', "imports asyncio"),
        ("kernel/new.py", '"""."""\nimport pydantic\n', "imports pydantic"),
        ("kernel/new.py", '"""."""\nfrom ..storage import store\n', "imports saga_orchestrator.storage"),
        ("kernel/new.py", '"""."""\nfrom .. import definition\n', "imports saga_orchestrator.definition"),
        (
            "kernel/new.py",
            '"""."""\nfrom datetime import datetime\nnow = datetime.now()\n',
            "datetime.now() reads a clock",
        ),
    ],
)
def test_every_rule_can_fail(name: str, source: str, complaint: str) -> None:
    found = strains(PACKAGE / name, source)

    assert len(found) == 1
    assert complaint in found[0]


def test_only_code_counts_as_length() -> None:
    explained = [
        '"""Why this module exists,',
        "",
        'at length."""',
        "import ast",
        "from x import (",
        "    y,",
        ")",
        "",
        "# a reason",
        "A = 1",
        '"""What it is."""',
        "def f():",
        '    """Do."""',
        "    return (",
        "        1  # because",
        "    )",
    ]
    source = "\n".join([*explained, ""])

    assert [source.splitlines()[line - 1] for line in sorted(code_lines(source))] == [
        "A = 1",
        "def f():",
        "    return (",
        "        1  # because",
        "    )",
    ]


def test_what_the_kernel_needs_is_allowed() -> None:
    imports = [
        "import json",
        "from ..errors import SagaError",
        "from ..definition.graph import Graph",
        "from . import state",
    ]
    source = "\n".join(['"""."""', *imports, ""])

    assert strains(PACKAGE / "kernel" / "new.py", source) == []
