"""One run of chaos: build the stage, let the monkey rage, let the workers finish, audit.

Everything is on the loopback, in a folder of its own, and ended by its id whatever happens. The folder, with the
ledger's journal and every actor's log, is kept if the audit finds something, or on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_orchestrator import SagaAdmin, SagaOrchestrator, SagaStateError, SagaStatus
from tests.chaos.audit import Findings, audit
from tests.chaos.graphs import CHILD
from tests.chaos.kin import waits_for_stuck
from tests.chaos.ledger import Ledger
from tests.chaos.monkey import Monkey
from tests.chaos.network import Network
from tests.chaos.tables import Base, ChaosSaga
from tests.chaos.troupe import Troupe
from tests.chaos.world import connect, orchestrate
from tests.support.postgres import PostgresServer

Database = Literal["postgresql", "sqlite"]
_ENTRANCE = 90.0
_STILL = 30.0
"""Seconds within which the actors have to be ready, and some saga to move as long as one is left."""
_MOST_MOVES = 300
"""How often every saga that is left may move on average before one of them comes to an end; more is a circle."""
_ENOUGH = 60
"""Sagas that have to be there before the monkey stops: so many that some of them turn back."""

_LOST_OWNERS = re.compile(r"^quarantined: \d+ owners in a row")


@dataclass
class Settling:
    """How the workers have finished what was left, and what they have not finished."""

    seconds: float = 0.0
    left: dict[UUID, int] = field(default_factory=dict)
    """The sagas that still have to move, and their revisions."""
    moves: int = 0
    """How often they have moved since one came to an end."""

    def __str__(self) -> str:
        if not self.left:
            return f"settled in {self.seconds:.1f} s"
        why = "nothing has moved" if self.moves <= _MOST_MOVES * len(self.left) else "they move in a circle"
        return f"{len(self.left)} sagas not settled in {self.seconds:.1f} s, for {why} any more"

    def look(self, now: dict[UUID, int]) -> bool:
        """Take in what is left now, and return whether something has moved."""
        before, self.left = self.left, now
        if now == before:
            return False
        has_ended = any(saga_id not in now for saga_id in before)
        moved = sum(revision - before.get(saga_id, revision) for saga_id, revision in now.items())
        self.moves = 0 if has_ended else self.moves + moved
        return True

    @property
    def is_circling(self) -> bool:
        """Whether the sagas that are left move, and none of them comes to an end."""
        return self.moves > _MOST_MOVES * len(self.left)


@dataclass
class Report:
    """What happened, and what the audit says."""

    seed: int
    seconds: float
    findings: Findings
    deeds: Counter[str]
    counts: Counter[str]
    notes: Counter[str]
    folder: Path
    settling: Settling

    @property
    def is_clean(self) -> bool:
        return not self.findings.all

    def __str__(self) -> str:
        found = self.findings
        verdict = " ".join(f"{name} {len(getattr(found, name))}" for name in ("lost", "doubled", "wrong", "stranded"))
        lines = [
            f"chaos: {self.seconds:.0f} s, seed {self.seed}, {self.settling}",
            f"  sagas      {sum(found.statuses.values())}: {_listed(found.statuses)}",
            f"  history    {found.steps} rows",
            f"  monkey     {_listed(self.deeds)}",
            f"  ledger     {_listed(self.counts)}",
            f"  promises   {_listed(self.notes)}",
            verdict,
        ]
        if not self.is_clean:
            lines += [f"  {what}" for what in found.all[:50]]
            lines.append(f"again with --seed {self.seed}; the logs are in {self.folder}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Stage:
    """What a run plays on."""

    database: Database = "postgresql"
    workers: int = 3
    network: bool = False
    """Whether the actors reach PostgreSQL by a network that the monkey torments."""


def run(seconds: float, *, seed: int, stage: Stage | None = None, keep: bool = False) -> Report:
    """Run chaos for so long, and return what came of it. Call it on the main thread (see `PostgresServer`)."""
    plays = stage or Stage()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="saga-chaos-"))
        server = stack.enter_context(PostgresServer().start(fsync=True)) if plays.database == "postgresql" else None
        url = server.url(server.create_database()) if server else f"sqlite+aiosqlite:///{folder / 'chaos.db'}"
        asyncio.run(_create_tables(url))
        network = stack.enter_context(_network(server)) if plays.network and server else None
        ledger = Ledger(folder / "ledger.log")
        ledger.start()
        stack.callback(ledger.close)
        troupe = stack.enter_context(
            _troupe(Troupe(_by(url, network), ledger.port, seed * 10_000, folder, ledger.ready), plays.workers)
        )
        monkey = Monkey(troupe, server, seed, network)
        monkey.rage(seconds, lambda: _promised(ledger) >= _ENOUGH)
        monkey.calm()
        troupe.dismiss("service", "operator")
        settling = asyncio.run(_settle(url, ledger, troupe))
        troupe.dismiss("worker")
        ledger.close()
        findings = asyncio.run(_audit(url, ledger))
        findings.wrong += troupe.faults
        report = Report(seed, seconds, findings, monkey.deeds, ledger.counts, _counted(ledger), folder, settling)
    if report.is_clean and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        (folder / "evidence.log").write_text("\n".join(report.findings.evidence))
    return report


@contextlib.contextmanager
def _network(server: PostgresServer) -> Iterator[Network]:
    url = make_url(server.url("postgres"))
    network = Network(url.host or "127.0.0.1", url.port or 5432)
    try:
        yield network
    finally:
        network.close()


def _by(url: str, network: Network | None) -> str:
    """Return the address of the database by way of the network."""
    if network is None:
        return url
    return make_url(url).set(host="127.0.0.1", port=network.port).render_as_string(hide_password=False)


async def _create_tables(url: str) -> None:
    engine = connect(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


@contextlib.contextmanager
def _troupe(troupe: Troupe, workers: int) -> Iterator[Troupe]:
    """Have everybody on stage and ready."""
    roles = [*["worker"] * workers, "service", "operator"]
    try:
        for role in roles:
            troupe.begin(role)
        until = time.monotonic() + _ENTRANCE
        while len(troupe.ready) < len(roles):
            troupe.look()
            if troupe.faults or time.monotonic() > until:
                raise RuntimeError(f"The actors did not get ready: {troupe.faults}")
            time.sleep(0.05)
        yield troupe
    finally:
        troupe.close()


async def _settle(url: str, ledger: Ledger, troupe: Troupe) -> Settling:
    """Wait until every saga is over or stuck, however long that takes, or none of them gets there any more."""
    settling, begun = Settling(), time.monotonic()
    moved = begun
    async with _behind_the_stage(url, ledger) as (_, orchestrator):
        while True:
            troupe.look()
            has_moved = settling.look(await _unfinished(orchestrator))
            now = time.monotonic()
            moved = now if has_moved else moved
            if not settling.left or settling.is_circling or now - moved > _STILL:
                break
            await asyncio.sleep(0.2)
    settling.seconds = time.monotonic() - begun
    return settling


@contextlib.asynccontextmanager
async def _behind_the_stage(url: str, ledger: Ledger) -> AsyncIterator[tuple[AsyncEngine, SagaOrchestrator[ChaosSaga]]]:
    engine = connect(url)
    try:
        async with orchestrate(engine, ledger.port) as orchestrator:
            yield engine, orchestrator
    finally:
        await engine.dispose()


async def _unfinished(orchestrator: SagaOrchestrator[ChaosSaga]) -> dict[UUID, int]:
    """Return what still has to move, with its revision.

    Those that lost too many owners are released, as a person would. What waits for a child that is stuck has to wait
    until a person has looked at that.
    """
    moving = (SagaStatus.RUNNING, SagaStatus.SUSPENDED, SagaStatus.COMPENSATING)
    admin = SagaAdmin(orchestrator.engine)
    page = await admin.list_sagas(status=moving, limit=1000)
    stuck = await admin.list_sagas(status=SagaStatus.STUCK, saga_name=CHILD, limit=1000)
    left = {saga.id: saga.revision for saga in page.items if not waits_for_stuck(saga, stuck.items)}
    return left | await _release_quarantined(orchestrator)


async def _release_quarantined(orchestrator: SagaOrchestrator[ChaosSaga]) -> dict[UUID, int]:
    admin, released = SagaAdmin(orchestrator.engine), dict[UUID, int]()
    page = await admin.list_sagas(status=SagaStatus.STUCK, limit=1000)
    for saga in page.items:
        if _LOST_OWNERS.search(saga.last_error or ""):
            await _release(admin, saga.id)
            released[saga.id] = saga.revision
    return released


async def _release(admin: SagaAdmin[ChaosSaga], saga_id: UUID) -> None:
    """Have a saga go on, or else back; one that has moved meanwhile needs neither."""
    signed = {"actor": "audit", "reason": "quarantined by too many kills"}
    for order in (admin.retry_step, admin.compensate_step):
        with contextlib.suppress(SagaStateError):
            await order(saga_id, **signed)
            return


async def _audit(url: str, ledger: Ledger) -> Findings:
    async with _behind_the_stage(url, ledger) as (engine, orchestrator):
        return await audit(engine, orchestrator, ledger)


def _promised(ledger: Ledger) -> int:
    return sum(note["what"] in ("started", "committed") for note in ledger.notes)


def _counted(ledger: Ledger) -> Counter[str]:
    return Counter(
        f"{note['what']} {note['name']} {note['answer'].partition(':')[0]}" if note["what"] == "order" else note["what"]
        for note in ledger.notes
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
