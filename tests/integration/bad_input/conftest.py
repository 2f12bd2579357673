"""The same scenes as those of the regression tests."""

from tests.regressions.conftest import ledger, scene, timeless

__all__ = ["ledger", "scene", "timeless"]
