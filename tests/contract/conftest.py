"""Failures inside the published contract are shown as readably as those of any test."""

import pytest

pytest.register_assert_rewrite("saga_orchestrator.testing.contract")
