"""`SagaAdmin`: what operators see and order."""

from .admin import SagaAdmin, SagaPage

__all__ = ["SagaAdmin", "SagaPage"]
