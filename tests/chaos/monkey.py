"""The monkey: what it does to the actors and to the database, from a shuffled deck, so that nothing is left out."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

import asyncpg

from tests.chaos.network import Network
from tests.chaos.troupe import Member, Troupe
from tests.chaos.world import LEASE
from tests.support.postgres import PostgresServer

_DECK = (
    *("kill", "kill a worker", "kill a worker", "stop", "stop", "stop a worker", "tell", "tell a worker"),
    *("crash database", "cut connections"),
)
_NETWORK = (
    "hold network",
    "hold network",
    "drop network",
    *("swallow commit",) * 4,
    "freeze network",
    "freeze network",
)
_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
_LONGEST_PAUSE = 0.9


class Monkey:
    """Torments a troupe, and the server if there is one; every actor that ends is replaced."""

    def __init__(
        self, troupe: Troupe, server: PostgresServer | None, seed: int, network: Network | None = None
    ) -> None:
        self.deeds: Counter[str] = Counter()
        self._troupe = troupe
        self._server = server
        self._network = network
        self._cards = _DECK if network is None else (*_DECK, *_NETWORK)
        self._chance = random.Random(seed)
        self._deck: list[str] = []
        self._moves: dict[str, Callable[[Member], None]] = {"kill": self._kill, "stop": self._stop, "tell": self._tell}

    def rage(self, seconds: float, is_enough: Callable[[], bool]) -> None:
        """Go on for so long, and on a slow machine until it has been enough: until something was killed and stopped."""
        until = time.monotonic() + seconds
        while time.monotonic() < until or not (self.deeds["kills"] and self.deeds["stops"] and is_enough()):
            pause = time.monotonic() + self._chance.uniform(0.1, _LONGEST_PAUSE)
            while time.monotonic() < pause:
                self._replace()
                time.sleep(0.02)
            self._strike()

    def calm(self) -> None:
        """Undo what can be undone: nobody is stopped any more, and nobody is missing."""
        for member in self._troupe.members:
            self._troupe.wake(member)
        self._replace()

    def _strike(self) -> None:
        if not self._deck:
            self._deck = self._chance.sample(self._cards, len(self._cards))
        card = self._deck.pop()
        if card == "crash database":
            self._crash_database()
        elif card == "cut connections":
            self._cut_connections()
        elif card in _NETWORK:
            self._torment_network(card)
        else:
            self._torment(card)

    def _torment_network(self, card: str) -> None:
        network = self._network
        assert network is not None
        if card == "hold network":
            network.hold()
            time.sleep(LEASE.total_seconds() * self._chance.uniform(0.2, 2.0))
            network.release()
        else:
            {"drop network": network.drop, "swallow commit": network.swallow, "freeze network": network.freeze}[card]()
        self.deeds.update(network.deeds)
        network.deeds.clear()

    def _torment(self, card: str) -> None:
        """Pick a victim, of one role if the card names it."""
        name, _, role = card.partition(" a ")
        free = [m for m in self._troupe.members if m.role == (role or m.role) and (m.is_free or name == "kill")]
        if free:
            self._moves[name](self._chance.choice(free))

    def _kill(self, member: Member) -> None:
        self._troupe.kill(member)
        self._troupe.begin(member.role)
        self.deeds["kills"] += 1

    def _stop(self, member: Member) -> None:
        self._troupe.stop(member, LEASE.total_seconds() * self._chance.uniform(1.1, 2.5))
        self.deeds["stops"] += 1

    def _tell(self, member: Member) -> None:
        self._troupe.tell(member)
        self.deeds["graceful restarts"] += 1

    def _crash_database(self) -> None:
        if self._server is not None:
            self._server.stop("immediate")
            time.sleep(self._chance.uniform(0, 1))
            self._server.restart("immediate")
            self.deeds["database crashes"] += 1

    def _cut_connections(self) -> None:
        async def cut(dsn: str) -> None:
            connection = await asyncpg.connect(dsn, ssl=False)
            try:
                await connection.execute(_CUT)
            finally:
                await connection.close()

        if self._server is not None:
            asyncio.run(cut(self._server.dsn()))
            self.deeds["cuts of all connections"] += 1

    def _replace(self) -> None:
        for ended in self._troupe.look():
            self._troupe.begin(ended.role)
