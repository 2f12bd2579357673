"""Checks that the models of a saga's steps can be stored, as far as their schemas tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel

from ..errors import PayloadError, SagaDefinitionError
from .fidelity import plan_of
from .readers import can_ignore_clock, find_twins
from .step import StepDefinition


def check_models(steps: Iterable[StepDefinition]) -> None:
    """Refuse a step that takes or returns what never reads back, whatever the engine's settings are.

    Raises:
        SagaDefinitionError: A model has such a field.
    """
    for step, role, model in _models_of(steps):
        if role == "event" and (twin := find_twins(model)) is not None:
            raise SagaDefinitionError(
                f"Step '{step.step_id}': in its event, field '{twin}' of {model.__name__} has the name of another "
                "field as its alias, so a payload could be read in two ways. Rename one of them."
            )
        if not can_ignore_clock(model):
            raise SagaDefinitionError(
                f"Step '{step.step_id}': in its {role}, {model.__name__} compares a moment with the clock, and could "
                "not be read later. Use Pydantic 2.12 or newer, or a plain datetime that the step checks."
            )
        for path, why in plan_of(model).flaws:
            raise SagaDefinitionError(
                f"Step '{step.step_id}': in its {role}, field '{path}' of {model.__name__} {why}, and would be lost. "
                "Use a model without it; a private attribute (_name) says that nothing keeps a value."
            )


def describe_secrets(name: str, steps: Iterable[StepDefinition]) -> Iterator[str]:
    """Return a text for each secret that a step takes or returns, for an engine whose payloads no codec encrypts."""
    for step, role, model in _models_of(steps):
        for path in plan_of(model).secrets:
            yield f"Saga '{name}', step '{step.step_id}': in its {role}, {_describe_secret(path, model)}"


def check_output(step: StepDefinition) -> None:
    """Refuse a step that returns a secret, before it acts: its output could not be stored without a codec.

    Raises:
        PayloadError: Its output's model has such a field.
    """
    for path in plan_of(step.output_model).secrets:
        raise PayloadError(
            f"Step '{step.step_id}' was not called: in its output, {_describe_secret(path, step.output_model)}"
        )


def _describe_secret(path: str, model: type[BaseModel]) -> str:
    return (
        f"field '{path}' of {model.__name__} is a secret (SecretStr, SecretBytes or Secret), and secrets are stored "
        "only where a codec encrypts them. Give the orchestrator a payload_codec, or keep the secret elsewhere and "
        "store a reference to it."
    )


def _models_of(steps: Iterable[StepDefinition]) -> Iterator[tuple[StepDefinition, str, type[BaseModel]]]:
    for step in steps:
        yield step, "input", step.input_model
        yield step, "output", step.output_model
        if step.shape.event_model is not None:
            yield step, "event", step.shape.event_model
