"""What the figures were measured on; nothing that names the machine or its owner."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import asyncpg

LIBRARIES = ("sqlalchemy", "asyncpg", "aiosqlite", "pydantic", "python-saga-orchestrator", "dbos", "psycopg")


async def describe(dsn: str) -> dict[str, Any]:
    """Return processor, memory, systems and versions, and the settings of PostgreSQL that make a commit durable."""
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        settings = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        }
    finally:
        await connection.close()
    import sqlite3

    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": settings,
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def short(machine: dict[str, Any]) -> str:
    """Return a name for the kind of machine, fit for a file name."""
    words = re.findall(r"[a-z0-9]+", str(machine["cpu"]).lower())[:3]
    return "-".join([f"{machine['cores']}-core", *words])


def _cpu() -> str:
    try:
        listing = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", listing, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
