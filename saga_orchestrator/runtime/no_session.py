"""What `ctx.session` is where there is no session: false, and any use of it says what to do."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import SagaStateError


class NoSession:
    """Stands where a transactional step has its session. A None would be taken for "no transaction" without a word.

    Args:
        is_transactional: The step is, and this is its probe.
    """

    __slots__ = ("_is_transactional", "_step_id")

    def __init__(self, step_id: str, *, is_transactional: bool) -> None:
        self._step_id, self._is_transactional = step_id, is_transactional

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<no session: step '{self._step_id}' has none>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse()

    async def __aenter__(self) -> Any:
        self._refuse()

    async def __aexit__(self, *_: object) -> None: ...

    def __enter__(self) -> Any:
        self._refuse()

    def __exit__(self, *_: object) -> None: ...

    def _refuse(self) -> NoReturn:
        if self._is_transactional:
            raise SagaStateError(
                f"The probe of step '{self._step_id}' uses ctx.session, and a probe has no transaction. "
                "Use a session of your own."
            )
        raise SagaStateError(
            f"Step '{self._step_id}' uses ctx.session, and is not transactional. Set transactional = True in the class "
            "of the step; a function cannot be a transactional step."
        )
