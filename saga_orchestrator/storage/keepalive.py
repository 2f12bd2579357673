"""Tells an operator that PostgreSQL would notice a lost host late.

The server is asked, because it knows what holds for a connection, whoever has set it: the application for its engine,
or an administrator for the server. A connection within one host is not looked at, for it is not lost without its host.
"""

from __future__ import annotations

from loguru import logger
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LATE = 300
"""Seconds of silence until the first probe; systems wait for 7200 by default, and the howto recommends 30."""
_ASK = text(
    "SELECT setting::int, inet_client_addr() IS NULL OR inet_client_addr() <<= '127.0.0.0/8' OR "
    "inet_client_addr() = '::1' FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
)


async def warn_of_keepalive(connection: AsyncConnection) -> None:
    """Log one WARNING if the server looks for this host only after a long silence."""
    if connection.dialect.name != "postgresql":
        return
    row = (await connection.execute(_ASK)).one_or_none()
    if row is not None and is_late(int(row[0]), is_local=bool(row[1])):
        logger.warning(
            "PostgreSQL looks for a lost host only after {} s, and keeps the locks of its transactions until then. Set "
            "tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count and tcp_user_timeout in the "
            "server_settings of your engine's connect_args, for example 30, 10, 3 and 60000.",
            row[0],
        )


def is_late(seconds: int, *, is_local: bool) -> bool:
    """Return whether a host that is lost is noticed late; 0 means that the server cannot tell."""
    return not is_local and (seconds == 0 or seconds > LATE)
