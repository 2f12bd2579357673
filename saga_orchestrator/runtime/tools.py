"""What all drivers of an engine share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from ..kernel.events import Doubted
    from ..storage.group_commit import GroupCommit
    from .performer import Performer
    from .threads import Threads


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one engine's drivers.

    Attributes:
        collect: Gives a saga what has come for it.
        doubt: Writes a doubt of a saga that its driver does not drive any more.
    """

    commits: GroupCommit
    performer: Performer
    now: Callable[[], datetime]
    collect: Callable[[UUID], Awaitable[None]]
    threads: Threads
    doubt: Callable[[UUID, Doubted], None]
