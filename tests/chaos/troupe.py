"""The actors as child processes: begun, ended, and never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.postgres import PR_SET_PDEATHSIG, libc

ROOT = Path(__file__).parents[2]
_GRACE = 30.0
"""Seconds in which an actor has to end after SIGTERM; the library itself takes a few, when the database is away."""


@dataclass(eq=False)
class Member:
    """One child process."""

    role: str
    child: subprocess.Popen[bytes]
    log: Path
    told_at: float | None = None
    """When it was sent SIGTERM."""
    wakes_at: float | None = None
    """When it is continued, while it is stopped."""

    @property
    def is_free(self) -> bool:
        """Whether nothing is being done to it."""
        return self.told_at is None and self.wakes_at is None


@dataclass
class Troupe:
    """All the actors of one run. Ends what it began, and nothing else."""

    url: str
    ledger_port: int
    seed: int
    folder: Path
    ready: set[int]
    """The ids of those that have said so; who has not may be ended by SIGTERM itself."""
    members: list[Member] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What actors did that no actor should: they crashed by themselves, or did not end when told."""
    begun: int = 0

    def begin(self, role: str) -> Member:
        """Start one more actor."""
        self.begun += 1
        log = self.folder / f"{self.begun:03}-{role}.log"
        arguments = ["-m", "tests.chaos.actors", role, self.url, str(self.ledger_port), str(self.seed + self.begun)]
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent if libc else None,  # noqa: PLW1509 - one system call, which takes no lock
                start_new_session=True,
            )
        self.members.append(Member(role, child, log))
        return self.members[-1]

    def kill(self, member: Member) -> None:
        """SIGKILL; it works on the stopped, too."""
        member.child.kill()
        member.child.wait()
        self.members.remove(member)

    def stop(self, member: Member, seconds: float) -> None:
        """SIGSTOP: whatever it was about to do, it does `seconds` later."""
        member.child.send_signal(signal.SIGSTOP)
        member.wakes_at = time.monotonic() + seconds

    def tell(self, member: Member) -> None:
        """SIGTERM."""
        member.child.send_signal(signal.SIGTERM)
        member.told_at = time.monotonic()

    def look(self) -> list[Member]:
        """Continue whose time has come; return those that have ended, and note who ended wrongly."""
        ended = []
        now = time.monotonic()
        for member in tuple(self.members):
            if member.wakes_at is not None and member.wakes_at <= now:
                self.wake(member)
            if member.child.poll() is not None:
                self._judge(member)
                ended.append(member)
            elif member.told_at is not None and now - member.told_at > _GRACE:
                for number in (signal.SIGUSR1, signal.SIGUSR2):
                    member.child.send_signal(number)
                time.sleep(1)
                told = f"{member.log.name} did not end within {_GRACE} s of SIGTERM: {_tail(member, 6000)}"
                self.faults.append(told)
                self.kill(member)
                ended.append(member)
        return ended

    def wake(self, member: Member) -> None:
        """SIGCONT, if it is stopped."""
        if member.wakes_at is not None:
            member.wakes_at = None
            member.child.send_signal(signal.SIGCONT)

    def dismiss(self, *roles: str) -> None:
        """Tell everybody of these roles to end, and wait until they have."""
        for member in [member for member in self.members if member.role in roles]:
            self.wake(member)
            if member.told_at is None:
                self.tell(member)
        while any(member.role in roles for member in self.members):
            self.look()
            time.sleep(0.05)

    def close(self) -> None:
        """End everybody at once."""
        for member in tuple(self.members):
            self.kill(member)

    def _judge(self, member: Member) -> None:
        self.members.remove(member)
        code = member.child.returncode
        if code == -signal.SIGTERM and member.told_at is not None and member.child.pid not in self.ready:
            return
        if code or member.told_at is None:
            told = "after SIGTERM" if member.told_at is not None else "by itself"
            self.faults.append(f"{member.log.name} ended {told} with {code}: {_tail(member, 1500)}")


def _tail(member: Member, length: int) -> str:
    return member.log.read_text(errors="replace")[-length:]


def _die_with_parent() -> None:
    assert libc
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
