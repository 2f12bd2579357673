"""Which definitions this process knows, by name and version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from loguru import logger

from ..definition.child import certain_children
from ..definition.models import describe_secrets
from ..definition.saga import SagaDefinition
from ..errors import SagaDefinitionError, SagaError
from ..storage.rows import Claimable
from .texts import check_name


class Registry:
    """The definitions of one orchestrator. A saga keeps the version it was started with; starts take the newest.

    Args:
        encrypts: A codec encodes payloads, so that secrets can be stored.
        has_sessions: The store has transactions for steps to write in.
    """

    def __init__(self, *, encrypts: bool = False, has_sessions: bool = True) -> None:
        self._encrypts, self._has_sessions = encrypts, has_sessions
        self._versions: dict[str, dict[int, SagaDefinition]] = {}
        self._claimable: Claimable | None = None
        self._warned: set[tuple[str, int]] = set()
        self.held: dict[str, set[UUID]] = {}
        """The names of which nothing is begun here, and the sagas that were paused with each."""

    def register(self, name: str, definition: SagaDefinition) -> None:
        """Make a definition known.

        Raises:
            SagaDefinitionError: The name is unusable, or has a definition of this version already; or the saga would
                start itself as its own child, or as one of its child's, without an end; or a step of it is
                transactional, and the store has no sessions.
        """
        if not isinstance(definition, SagaDefinition):
            raise SagaDefinitionError(f"Saga {name!r:.80}: register() takes what SagaBuilder.build() returned.")
        try:
            check_name("A saga's name", name)
        except SagaError as error:
            raise SagaDefinitionError(str(error)) from error
        versions = self._versions.get(name, {})
        if definition.version in versions:
            raise SagaDefinitionError(
                f"Saga '{name}' is already registered with version {definition.version}; "
                "give a changed definition a higher SagaBuilder(version=...), and keep the old one while its sagas run."
            )
        self._check_sessions(name, definition)
        self._check_ends(name, {**versions, definition.version: definition})
        for secret in () if self._encrypts else describe_secrets(name, definition.steps):
            logger.warning("{} Until then the engine refuses the step before it is called.", secret)
        self._versions.setdefault(name, {})[definition.version] = definition
        self._claimable = None

    def newest(self, name: str) -> SagaDefinition:
        """Return the definition that new sagas of this name start with.

        Raises:
            SagaDefinitionError: The name is not registered.
        """
        if not (versions := self._versions.get(name)):
            known = ", ".join(sorted(self._versions)) or "none"
            raise SagaDefinitionError(
                f"Saga '{name}' is not registered; known: {known}. Call register('{name}', ...) in this process."
            )
        return versions[max(versions)]

    def find(self, name: str, version: int) -> SagaDefinition | None:
        """Return the definition that a saga was started with, or None if this process does not know it."""
        return self._versions.get(name, {}).get(version)

    @property
    def undo_windows(self) -> dict[tuple[str, int], timedelta]:
        """For how long after its end a saga that has completed can be undone, by name and version."""
        known = [(name, found) for name, versions in self._versions.items() for found in versions.values()]
        return {(name, each.version): each.graph.undo_window or timedelta(0) for name, each in known}

    def warn_changed(self, name: str, version: int) -> None:
        """Say in the log, once for each name and version, that the sagas of a changed definition are left alone."""
        if (name, version) not in self._warned:
            self._warned.add((name, version))
            logger.warning(
                "sagas of version {} of '{}' are left alone: the definition registered here has other steps than those "
                "that they were started with. Give the changed definition a higher SagaBuilder(version=...), and keep "
                "the old one registered. list_sagas(awaiting='definition') finds these sagas",
                version,
                name,
            )

    def hold(self, name: str) -> None:
        """Begin and claim nothing of this name any more.

        Raises:
            SagaDefinitionError: The name is not registered.
        """
        self.newest(name)
        self.held.setdefault(name, set())
        self._claimable = None

    def let_go(self, name: str) -> set[UUID]:
        """Begin and claim what has this name again; return the sagas that were paused with it."""
        self._claimable = None
        return self.held.pop(name, set())

    def _check_sessions(self, name: str, definition: SagaDefinition) -> None:
        if self._has_sessions:
            return
        for step in definition.steps:
            if step.needs_session or (step.each is not None and step.each.needs_session):
                raise SagaDefinitionError(
                    f"Saga '{name}': step '{step.step_id}' is transactional, and the store of this orchestrator has no "
                    "sessions. Give the orchestrator model_class and session_maker; in a test, on a SQLite file."
                )

    def _check_ends(self, name: str, versions: Mapping[int, SagaDefinition]) -> None:
        """Refuse a saga that could complete only after it has: it waits for a child of its own name, come what may."""
        newest = {known: of_name[max(of_name)] for known, of_name in {**self._versions, name: versions}.items()}
        seen, to_see = {name}, [name]
        while to_see:
            parent = to_see.pop()
            children = certain_children(newest[parent].steps) if parent in newest else {}
            if name in children:
                raise SagaDefinitionError(
                    f"Saga '{name}' would start children without end: step '{children[name]}' of '{parent}' starts "
                    f"'{name}' again, always. Let a choice (add_choice) decide whether it does."
                )
            to_see += children.keys() - seen
            seen |= children.keys()

    @property
    def claimable(self) -> Claimable:
        """What this process can run."""
        if self._claimable is None:
            mine = {name: frozenset(known) for name, known in self._versions.items() if name not in self.held}
            self._claimable = Claimable(mine)
        return self._claimable
