"""What a step class promises, read once from its methods when the class is created.

The order of trust: what `execute` is annotated with; where its names cannot be resolved yet (local classes, imports
under TYPE_CHECKING), what the class gives to `BaseStep[Input, Output]`. Where both speak, they must agree. A class that
is still generic, abstract or without `execute` has no shape yet: it is a base for others, and no error.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel

from ..errors import TypeValidationError
from .annotations import (
    accepts,
    admits_none,
    bindings,
    evaluate,
    free_variables,
    mentions,
    name_of,
    positional_parameters,
    substitute,
    without,
)
from .waiting import Event, WaitFor

_FORMS = {
    "execute": "async def execute(self, inp: YourInput) -> YourOutput",
    "compensate": "async def compensate(self, inp: YourInput, out: YourOutput) -> None",
    "probe": "async def probe(self, inp: YourInput) -> YourOutput | None",
    "on_event": "async def on_event(self, inp: YourInput, event: Event) -> YourOutput",
    "confirm": "async def confirm(self, inp: YourInput, out: YourOutput) -> None",
}
_UNRESOLVED: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """The facts that a step class states by how it is written.

    Attributes:
        undoable: It overrides `compensate`.
        undo_without_output: Its `compensate` is annotated to take None for an output that was never learnt.
        probes: It overrides `probe`.
        hears: It overrides `on_event`, so it may wait; `event_model` is what it wants an event's payload to be.
        confirms: It overrides `confirm`.
    """

    input_model: type[BaseModel]
    output_model: type[BaseModel]
    execute_takes_ctx: bool
    compensate_takes_ctx: bool = False
    probe_takes_ctx: bool = False
    undoable: bool = False
    undo_without_output: bool = False
    probes: bool = False
    hears: bool = False
    on_event_takes_ctx: bool = False
    event_model: type[BaseModel] | None = None
    confirms: bool = False
    confirm_takes_ctx: bool = False


def read_shape(cls: type, root: type) -> StepShape | None:
    """Return the shape of step class `cls`, or None while it is only a base for others; `root` is `BaseStep`.

    Raises:
        TypeValidationError: A method is not `async def`, takes the wrong arguments, or is not annotated as it must be.
    """
    step = _StepClass(cls, root)
    if inspect.isabstract(cls) or not step.overrides("execute"):
        return None
    execute_takes_ctx = step.takes_ctx("execute", 1)
    input_model, output_model = step.model(1), step.model("return")
    if input_model is None or output_model is None:
        return None
    step.names |= {input_model.__name__: input_model, output_model.__name__: output_model}
    undoable, probes, hears, confirms = map(step.overrides, ("compensate", "probe", "on_event", "confirm"))
    step.check_waits(hears=hears)
    if hears:
        step.check_answer(output_model)
    if confirms:
        step.check_confirm(input_model, output_model)
    return StepShape(
        input_model=input_model,
        output_model=output_model,
        execute_takes_ctx=execute_takes_ctx,
        undoable=undoable,
        compensate_takes_ctx=undoable and step.takes_ctx("compensate", 2),
        undo_without_output=undoable and step.undoes_without_output(input_model, output_model),
        probes=probes,
        probe_takes_ctx=probes and step.takes_ctx("probe", 1),
        hears=hears,
        on_event_takes_ctx=hears and step.takes_ctx("on_event", 2),
        event_model=step.event_model() if hears else None,
        confirms=confirms,
        confirm_takes_ctx=confirms and step.takes_ctx("confirm", 2),
    )


class _StepClass:
    """A step class, its methods, and what its bases' type variables stand for."""

    def __init__(self, cls: type, root: type) -> None:
        self._cls = cls
        self._root = root
        self._bound = bindings(cls)
        given = self._bound[root]
        variables = root.__parameters__  # type: ignore[attr-defined]
        self._given = dict(zip((1, "return"), (given.get(variable, variable) for variable in variables), strict=True))
        self.names = {model.__name__: model for model in self._given.values() if inspect.isclass(model)}

    def overrides(self, method: str) -> bool:
        return getattr(self._cls, method) is not getattr(self._root, method)

    def takes_ctx(self, name: str, arguments: int) -> bool:
        """Check how a method is written, and return whether it takes a StepContext after its `arguments`."""
        method = getattr(self._cls, name)
        if not inspect.iscoroutinefunction(method):
            raise self._error(f"{name} is not an `async def` method.", name)
        by_position = positional_parameters(method)
        more = [p for p in inspect.signature(method).parameters.values() if p not in by_position]
        needed = [p for p in more if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        if needed or len(by_position) not in (1 + arguments, 2 + arguments):
            raise self._error(f"{name} takes the wrong arguments.", name)
        return len(by_position) == 2 + arguments

    def model(self, place: int | str) -> type[BaseModel] | None:
        """Return the model at a place of `execute`, or None while the class is generic in it."""
        side = "return" if place == "return" else "input"
        found, given = self._annotation("execute", place), self._given[place]
        if found is inspect.Parameter.empty:
            raise self._error(f"execute's {side} is not annotated.", "execute")
        if found is _UNRESOLVED and isinstance(given, TypeVar):
            found = given
        if found is _UNRESOLVED:
            raise self._error(
                f"execute's {side} annotation cannot be resolved; import its names at run time.", "execute"
            )
        if side == "return":
            found = without(found, WaitFor)
        open_variables = set(free_variables(found))
        if open_variables & set(self._cls.__parameters__):  # type: ignore[attr-defined]
            return None
        if isinstance(found, TypeVar):
            raise self._error(f"execute's {side} type {found} is not given, or cannot be resolved here.", "execute")
        return self._checked_model(found, given, side)

    def check_waits(self, *, hears: bool) -> None:
        """Refuse a step that says it waits, and does not say how it goes on."""
        for method in ("execute", "compensate"):
            if not hears and self.overrides(method) and mentions(self._annotation(method, "return"), WaitFor):
                raise self._error(f"{method} may return WaitFor, but there is no on_event to go on in.", "on_event")

    def check_answer(self, output_model: type) -> None:
        """Refuse an `on_event` that is annotated to return what the step does not."""
        found = self._annotation("on_event", "return")
        if found is inspect.Parameter.empty or found is _UNRESOLVED:
            return
        answer = without(without(found, WaitFor), types.NoneType)
        if answer not in (WaitFor, types.NoneType, None, Any) and not accepts(output_model, answer):
            raise self._error(
                f"on_event returns {name_of(answer)}, but execute {output_model.__name__}.",
                "on_event",
            )

    def event_model(self) -> type[BaseModel] | None:
        """Return the model that `on_event` wants an event's payload to be, if it names one."""
        annotation = self._annotation("on_event", 2)
        (wanted,) = get_args(annotation) if get_origin(annotation) is Event else (None,)
        return wanted if inspect.isclass(wanted) and issubclass(wanted, BaseModel) else None

    def undoes_without_output(self, input_model: type, output_model: type) -> bool:
        """Check what `compensate` is annotated to take, and return whether it takes None for the output."""
        out = self._annotation("compensate", 2)
        if out is _UNRESOLVED:
            raise self._error(
                "the type of compensate's output cannot be resolved; import it at run time.", "compensate"
            )
        self._check_given("compensate", input_model, output_model)
        return admits_none(out)

    def check_confirm(self, input_model: type, output_model: type) -> None:
        """Refuse a `confirm` that takes something else than it is given, or says that it waits."""
        self.takes_ctx("confirm", 2)
        if mentions(self._annotation("confirm", "return"), WaitFor):
            raise self._error("confirm may not return WaitFor; it cannot wait.", "confirm")
        self._check_given("confirm", input_model, output_model)

    def _check_given(self, method: str, *models: type) -> None:
        for place, model in enumerate(models, 1):
            annotation = self._annotation(method, place)
            if annotation not in (_UNRESOLVED, inspect.Parameter.empty) and not accepts(annotation, model):
                raise self._error(f"{method} takes {name_of(annotation)} where {model.__name__} is given.", method)

    def _checked_model(self, found: Any, given: Any, side: str) -> type[BaseModel]:
        if not (inspect.isclass(found) and issubclass(found, BaseModel) and found is not BaseModel):
            raise self._error(f"execute's {side} is {name_of(found)}, which is not a Pydantic model.", "execute")
        agree = accepts(given, found) if side == "return" else accepts(found, given)
        if not agree:
            raise self._error(
                f"execute's {side} is {name_of(found)}, but the class is given {name_of(given)}.", "execute"
            )
        return found

    def _annotation(self, name: str, place: int | str) -> Any:
        """Return an annotation with its type variables replaced; `place` is a position (self is 0) or "return"."""
        method = getattr(self._cls, name)
        written = (
            inspect.signature(method).return_annotation
            if isinstance(place, str)
            else positional_parameters(method)[place].annotation
        )
        owner = next(base for base in self._cls.__mro__ if name in base.__dict__)
        variables = {variable.__name__: variable for variable in getattr(owner, "__parameters__", ())}
        try:
            return substitute(evaluate(written, method, self.names | variables), self._bound[owner])
        except Exception:  # noqa: BLE001 - the text of an annotation may raise anything
            return _UNRESOLVED

    def _error(self, problem: str, method: str) -> TypeValidationError:
        return TypeValidationError(
            f"Step '{self._cls.__name__}': {problem} Write: {_FORMS[method]} "
            "with Pydantic models of your own; a last parameter `ctx: StepContext` may follow."
        )
