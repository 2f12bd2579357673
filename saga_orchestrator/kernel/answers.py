"""How an order is answered: carried out, done already, or refused. A refusal is an answer, not an error.

Its reason says where the saga stands, and what is allowed instead.
"""

from __future__ import annotations

from .draft import Draft
from .effects import Verdict
from .projection import status_of
from .state import SagaStatus

Answer = tuple[Verdict, str]
APPLIED: Answer = (Verdict.APPLIED, "")


def refuse(draft: Draft, why: str) -> Answer:
    return Verdict.REFUSED, f"it is {stands_at(draft).value}: {why}"


def stands_at(draft: Draft) -> SagaStatus:
    """Return where the saga stood when the order came."""
    return status_of(draft.graph, draft.before)
