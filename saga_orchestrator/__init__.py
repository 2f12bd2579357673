"""Embedded saga orchestration for asyncio services, in the application's own database."""

from loguru import logger as _logger

from .admin import SagaAdmin, SagaPage
from .definition.builder import SagaBuilder
from .definition.context import InputContext, StepContext, StepInputMap
from .definition.failure import DirtyState, FailureAction
from .definition.graph import StepKind
from .definition.io import PayloadCodec
from .definition.retry import ExponentialRetry, FixedRetry, NoRetry, RetryPolicy
from .definition.saga import SagaDefinition
from .definition.step import BaseStep, StepDefinition, StepRef
from .definition.waiting import Event, WaitFor
from .errors import (
    ActiveSagaAlreadyExistsError,
    IdempotencyConflictError,
    OutcomeUnknown,
    PayloadError,
    PermanentError,
    RetryAfter,
    SagaDefinitionError,
    SagaError,
    SagaFailedError,
    SagaNotFoundError,
    SagaStateError,
    TypeValidationError,
)
from .kernel.state import SagaStatus
from .runtime.birth import StartResult
from .runtime.engine import SagaEngine
from .runtime.failing import CompensationResult
from .runtime.function import FunctionStep, step
from .runtime.mailroom import SignalResult
from .runtime.orchestrator import SagaOrchestrator
from .runtime.progress import StepProgress
from .runtime.reading import OpenWait
from .runtime.snapshots import HistoryEntry, SagaAdminSnapshot, SagaResult, SagaSnapshot
from .runtime.worker import SagaWorker
from .storage.mixins import SagaStateMixin

__version__ = "1.0.0a1"

__all__ = [
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

_logger.disable("saga_orchestrator")
