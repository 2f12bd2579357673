"""A TCP proxy before PostgreSQL that can fall silent: nothing passes any more, not even an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes on what its clients and the server say, until it is told not to.

    Attributes:
        trap: What a client sends with these bytes in it silences its connection before it arrives.
        deaf: What a client sends with these bytes arrives, and no answer comes back on its connection.
        caught: Set once the trap, or the deafness, has caught a connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._hole = asyncio.Event()
        self._silent: set[int] = set()
        self._deaf: set[int] = set()
        self._count = 0
        self.port = 0
        self.trap: bytes | None = None
        self.deaf: bytes | None = None
        self.caught = asyncio.Event()

    def fall_silent(self) -> None:
        """Pass on nothing from now on, of no connection; accept new ones and serve none."""
        self._hole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        if self._hole.is_set():
            await asyncio.Event().wait()
        self._count += 1
        upstream, sink = await asyncio.open_connection(*self._target)
        self._writers.append(sink)
        with suppress(OSError):
            await asyncio.gather(
                self._pump(self._count, reader, sink, up=True), self._pump(self._count, upstream, writer, up=False)
            )

    async def _pump(self, me: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        while True:
            said = await source.read(1 << 16)
            if up:
                self._look(me, said)
            if self._hole.is_set() or me in self._silent or (not up and me in self._deaf):
                await asyncio.Event().wait()
            if not said:
                sink.close()
                return
            sink.write(said)
            await sink.drain()

    def _look(self, me: int, said: bytes) -> None:
        if self.trap is not None and self.trap in said:
            self.trap = None
            self._silent.add(me)
            self.caught.set()
        if self.deaf is not None and self.deaf in said:
            self.deaf = None
            self._deaf.add(me)
            self.caught.set()

    async def stop(self) -> None:
        """Drop every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """Open a proxy before a server."""
    opened = Proxy(host, port)
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
        await opened.stop()
