"""The kernel under test: the one that is shipped, or a copy of it with a planted bug."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import saga_orchestrator.kernel

SHIPPED = "saga_orchestrator.kernel"
SOURCES = Path(saga_orchestrator.kernel.__file__).parent
MODULES = (
    "effects",
    "step_status",
    "undo_status",
    "state",
    "events",
    "order_events",
    "projection",
    "draft",
    "settle",
    "transition",
    "codec",
    "laws",
    "waits",
    "rewind",
    "pause",
    "notes",
)
_numbers = itertools.count(1)


def edition(package: str = SHIPPED) -> SimpleNamespace:
    """Return all the names of a kernel, side by side."""
    modules = [importlib.import_module(f"{package}.{name}") for name in MODULES]
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@contextmanager
def patched(folder: Path, module: str, old: str, new: str) -> Iterator[SimpleNamespace]:
    """Load a copy of the kernel in which one piece of one module is replaced; it is gone again afterwards."""
    for source in SOURCES.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        if source.stem == module:
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times in {module}; mend the mutant"
            text = text.replace(old, new)
        (folder / source.name).write_text(text, encoding="utf-8")
    package = f"saga_orchestrator.kernel_with_bug_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[package])
        yield edition(package)
    finally:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
