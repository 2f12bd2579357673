"""The network between the actors and PostgreSQL: a proxy in a thread of its own, which a monkey can torment.

It holds what is said and lets it go later, drops connections, swallows the answer of a COMMIT, and freezes the
connections that there are while new ones work. A frozen connection says nothing any more, not even that it has ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

_COMMITS = (b"COMMIT", b"WITH locked")
"""What commits: the word, and the statement that is a transaction by itself."""


class _Line:
    """One connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = client, server
        self.is_frozen = False

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Network:
    """Stands before one server; `port` is where the actors find it."""

    def __init__(self, host: str, port: int) -> None:
        self.deeds: Counter[str] = Counter()
        self.port = 0
        self._target = host, port
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = asyncio.Event()
        self._swallows = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-network", daemon=True)
        self._thread.start()
        self._ready.wait()

    # --- what the monkey does, from its own thread -------------------------------------------------------------------

    def hold(self) -> None:
        """Pass on nothing until `release`."""
        self._tell("network holds", self._open.clear)

    def release(self) -> None:
        """Pass on everything again; what is frozen stays so."""
        self._loop.call_soon_threadsafe(self._open.set)

    def drop(self) -> None:
        """End every connection."""
        self._tell("network drops", self._drop)

    def swallow(self) -> None:
        """Have the answer of the next commit not arrive, and its connection fall silent."""
        self._tell("commits asked to be swallowed", self._swallow)

    def freeze(self) -> None:
        """Have the connections that there are fall silent; new ones work."""
        self._tell("network freezes", self._freeze)

    def close(self) -> None:
        """End everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    # --- the thread of the network -----------------------------------------------------------------------------------

    def _tell(self, deed: str, act: Any) -> None:
        self.deeds[deed] += 1
        self._loop.call_soon_threadsafe(act)

    def _drop(self) -> None:
        for line in tuple(self._lines):
            line.drop()

    def _freeze(self) -> None:
        for line in self._lines:
            line.is_frozen = True

    def _swallow(self) -> None:
        self._swallows += 1

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._open.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._drop()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, sink = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, sink)
        self._lines.add(line)
        with suppress(OSError):
            await asyncio.gather(self._pump(line, reader, sink, up=True), self._pump(line, answers, writer, up=False))
        self._lines.discard(line)
        line.drop()

    async def _pump(self, line: _Line, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        while said := await source.read(1 << 16):
            await self._open.wait()
            if line.is_frozen:
                continue
            sink.write(said)
            await sink.drain()
            if up and self._swallows and any(word in said for word in _COMMITS):
                self._swallows -= 1
                self.deeds["commits swallowed"] += 1
                line.is_frozen = True
        if not line.is_frozen:
            line.drop()
