"""Which definitions this process knows, by name and version."""

from __future__ import annotations

from ..definition.saga import SagaDefinition
from ..errors import SagaDefinitionError, SagaError
from ..storage.rows import Claimable
from .texts import check_name


class Registry:
    """The definitions of one orchestrator. A saga keeps the version it was started with; starts take the newest."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, SagaDefinition]] = {}
        self._claimable: Claimable | None = None

    def register(self, name: str, definition: SagaDefinition) -> None:
        """Make a definition known.

        Raises:
            SagaDefinitionError: The name is unusable, or has a definition of this version already.
        """
        if not isinstance(definition, SagaDefinition):
            raise SagaDefinitionError(f"Saga {name!r}: register() takes what SagaBuilder.build() returned.")
        try:
            check_name("A saga's name", name)
        except SagaError as error:
            raise SagaDefinitionError(str(error)) from error
        versions = self._versions.setdefault(name, {})
        if definition.version in versions:
            raise SagaDefinitionError(
                f"Saga '{name}' is already registered with version {definition.version}; "
                "give a changed definition a higher SagaBuilder(version=...), and keep the old one while its sagas run."
            )
        versions[definition.version] = definition
        self._claimable = None

    def newest(self, name: str) -> SagaDefinition:
        """Return the definition that new sagas of this name start with.

        Raises:
            SagaDefinitionError: The name is not registered.
        """
        if not (versions := self._versions.get(name)):
            known = ", ".join(sorted(self._versions)) or "none"
            raise SagaDefinitionError(f"Saga '{name}' is not registered; known: {known}.")
        return versions[max(versions)]

    def find(self, name: str, version: int) -> SagaDefinition | None:
        """Return the definition that a saga was started with, or None if this process does not know it."""
        return self._versions.get(name, {}).get(version)

    @property
    def claimable(self) -> Claimable:
        """What this process can run."""
        if self._claimable is None:
            self._claimable = Claimable({name: frozenset(versions) for name, versions in self._versions.items()})
        return self._claimable
