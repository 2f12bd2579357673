"""The outside world: a service that keeps every effect and every undo, beyond the reach of the monkey.

It is what a good participant is: an effect happens once per idempotency key, an undo that arrives before its effect
leaves a tombstone, and an effect that arrives after its undo is turned away. It lives in the process that audits, on a
thread of its own, so it survives every kill; it is never asked what the saga tables say. Whatever it sees that no
participant should ever see (a second key for a step, an effect before its predecessors', a changed input) it keeps as a
violation.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.chaos.graphs import CHILD, GRAPHS, PARENT, TOLERATED, of_place, place_of

LOOPBACK = "127.0.0.1"


@dataclass
class Slot:
    """What one step of one saga has done to the world."""

    key: str = ""
    inputs: str = ""
    effect: str = ""
    stands: bool = False
    undone: bool = False
    declined: bool = False


@dataclass
class Ledger:
    """The books, and the service through which participants write in them."""

    journal: Path
    sagas: dict[str, dict[str, Slot]] = field(default_factory=dict)
    """By saga, and by step."""
    numbers: dict[str, str] = field(default_factory=dict)
    """The sagas by the numbers that they were started for; a child's is its parent's and its step."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    """The ids of the actors that have said so."""
    violations: list[str] = field(default_factory=list)
    early_undos: list[tuple[str, str, str]] = field(default_factory=list)
    """Undos while a dependent stood, as (saga, step, dependent): right only if that dependent's undo had failed."""
    counts: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def start(self) -> None:
        """Listen on a free port of the loopback."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(ready)), name="ledger", daemon=True)
        self._thread.start()
        if not ready.wait(30):
            raise RuntimeError("The ledger did not start.")

    def close(self) -> None:
        """Stop listening; the books can then be read at leisure."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(30)

    async def _live(self, ready: threading.Event) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        with self.journal.open("a") as journal:
            self._file: TextIO = journal
            server = await asyncio.start_server(self._serve, LOOPBACK, 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._closing.wait()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if line := await reader.readline():
                answer = self._answer(json.loads(line))
                self._file.write(f"{line.decode().strip()} -> {json.dumps(answer)}\n")
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:  # the caller was killed: half a request, or nobody there to answer
            self._file.write(f"a caller went away: {error!r}\n")
        finally:
            writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "note":
            self.notes.append(request)
            if request["what"] == "ready":
                self.ready.add(request["pid"])
            return {}
        saga, step = request["saga"], request["step"]
        self.numbers[request["number"]] = saga
        slot = self.sagas.setdefault(saga, {}).setdefault(step, Slot())
        return getattr(self, f"_{request['op']}")(saga, step, slot, request)

    def _do(self, saga: str, step: str, slot: Slot, request: dict[str, Any]) -> dict[str, Any]:
        inputs = json.dumps(request["inputs"], sort_keys=True)
        if slot.undone:
            self.counts["turned away"] += 1
            return {"refused": True}
        if slot.effect:
            self.counts["repeats"] += 1
            if (slot.key, slot.inputs) != (request["key"], inputs):
                self._violated(f"doubled: {saga}/{step}: another key or input, {request['key']} {inputs}, than {slot}")
            return {"effect": slot.effect, "repeated": True}
        slot.key, slot.inputs, slot.stands = request["key"], inputs, True
        self.counts["effects"] += 1
        slot.effect = f"effect-{self.counts['effects']}"
        self._check_before(saga, step, request)
        return {"effect": slot.effect, "repeated": False}

    def _check_before(self, saga: str, step: str, request: dict[str, Any]) -> None:
        """An effect needs those of its predecessors to stand, and was given exactly their outputs.

        Of items that may be missed it was given those that were not.
        """
        given: dict[str, str] = request["inputs"]["of"]
        slots = self.sagas[saga]
        names = [i for place in GRAPHS[request["saga_name"]][place_of(step)] for i in of_place(slots, place)]
        before = {i: slots.get(i, Slot()) for i in names if i in given or place_of(i) not in TOLERATED}
        if not all(slot.stands for slot in before.values()):
            self._violated(f"wrong: {saga}/{step} acted although not all of {before} stand")
        if given != {i: slot.effect for i, slot in before.items()}:
            self._violated(f"wrong: {saga}/{step} was given {given}, not the outputs of {before}")

    def _undo(self, saga: str, step: str, slot: Slot, request: dict[str, Any]) -> dict[str, Any]:
        if request["effect"] not in (None, slot.effect):
            self._violated(
                f"wrong: the undo of {saga}/{step} was given {request['effect']}, not the output {slot.effect}"
            )
        if slot.undone:
            self.counts["repeated undos"] += 1
        elif slot.stands:
            self.counts["undos"] += 1
            self.early_undos += [(saga, step, i) for i in self._standing_after(saga, step, request)]
        else:
            self.counts["tombstones"] += 1
        slot.stands, slot.undone = False, True
        return {}

    def _standing_after(self, saga: str, step: str, request: dict[str, Any]) -> Iterator[str]:
        """Return the steps that depend on one, and stand; that which has a child stands while anything of it does."""
        slots = self.sagas[saga]
        for place, before in GRAPHS[request["saga_name"]].items():
            if place_of(step) in before:
                yield from (i for i in of_place(slots, place) if slots.get(i, Slot()).stands)
        child = self.numbers.get(f"{request['number']}/{CHILD}", "")
        if request["saga_name"] == PARENT and step == "ticket":
            yield from [CHILD] * any(slot.stands for slot in self.sagas.get(child, {}).values())

    def _look(self, saga: str, step: str, slot: Slot, request: dict[str, Any]) -> dict[str, Any]:
        self.counts["probes"] += 1
        return {"effect": slot.effect, "declined": slot.declined, "undone": slot.undone}

    def _decline(self, saga: str, step: str, slot: Slot, request: dict[str, Any]) -> dict[str, Any]:
        slot.declined = True
        if slot.stands:
            self._violated(f"wrong: {saga}/{step} is declined by its data, and has acted")
        return {}

    def _violated(self, what: str) -> None:
        self.violations.append(what)


async def ask(port: int, op: str, **facts: Any) -> dict[str, Any]:
    """Send one request to the ledger, and return its answer."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(json.dumps({"op": op, **facts}).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise ConnectionError("the ledger hung up")
    answer: dict[str, Any] = json.loads(line)
    return answer
