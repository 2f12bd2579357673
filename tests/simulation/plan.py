"""Which faults a run has, and how often.

Most runs have only some kinds of faults (swarm testing: Groce et al., 2012). A world in which everything fails at
once hides the bugs that need one fault at a bad moment and good luck for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

LEASE = 10.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The faults of one run. Rates are chances: per store call, per `await` in a step, or per call of a step.

    Attributes:
        seconds: How long faults happen; then all is well, and everything must come to rest.
        lost_answers: The store did it, and the connection broke before it said so.
        freezes: A machine stands still, often beyond its leases.
        slow_calls: A store call takes as long as a good part of a lease, or longer; `slow_renewals` only renewals.
        unruly: A step fails in one of the ways in which steps fail.
        slowness: How many seconds some of the steps' calls take at most, even when all is well.
        old_releases: A machine that comes up knows only some of the definitions, as in the middle of a deployment.
        resolved: At the end an operator brings every stuck saga to an end.
        crash_at: Kill the machine that reaches the boundary of this number, and nothing else.
        holds: How often somebody pauses a saga, or sets a breakpoint, or resumes one, or lets it take a step.
        rewinds: How often somebody has a saga go back to a step, or undoes one that is over. Only where there are any
            does a definition open an undo window.
        decisions: How often somebody commits a saga, or rejects it. Only where there are any has a step a confirm, or a
            saga to be committed.
        sick_calls: The database refuses a call for a reason of its own: its disk is full, a limit has cut it off.
        silent_calls: A connection says nothing any more; the call may have been done, and ends with its time limit.
        parts: Steps do a part of their work by `ctx.once`.
        purges: How often somebody deletes sagas that have been over for a few seconds.
        actions: How often two people do something about one failed saga at once. Only where there are any has a
            definition hooks for that.
        defects: The engine itself fails while it decides what follows.
        families: Sagas may have a child, which is a saga of its own. Then every machine knows every definition: who
            runs a parent must know its child.
    """

    machines: int = 3
    sagas: int = 4
    seconds: float = 40.0
    crashes_at_store: float = 0.0
    crashes_in_steps: float = 0.0
    freezes: float = 0.0
    refused_calls: float = 0.0
    lost_answers: float = 0.0
    slow_calls: float = 0.0
    slow_renewals: float = 0.0
    unruly: float = 0.0
    slowness: float = 2.0
    orders: int = 0
    notifications: int = 0
    shutdowns: int = 0
    cancelled_callers: float = 0.0
    old_releases: float = 0.0
    resolved: bool = True
    crash_at: int | None = None
    holds: int = 0
    rewinds: int = 0
    decisions: int = 0
    families: bool = False
    sick_calls: float = 0.0
    silent_calls: float = 0.0
    parts: bool = False
    purges: int = 0
    actions: int = 0
    defects: float = 0.0

    @property
    def spares_owners(self) -> bool:
        """Whether no fault takes a saga from its owner, so that no saga has a reason to be quarantined."""
        stopping = (self.crashes_at_store, self.crashes_in_steps, self.freezes, self.shutdowns)
        delaying = (self.slow_calls, self.slow_renewals, self.silent_calls, self.refused_calls, self.lost_answers)
        return not any((*stopping, *delaying, self.unruly, self.orders, self.defects)) and self.crash_at is None

    @classmethod
    def drawn(cls, random: Random) -> Plan:
        """Draw which faults there are, and their rates."""

        def sometimes(most: float) -> float:
            return random.choice((0.0, random.uniform(0, most)))

        drawn = cls(
            machines=random.choice((2, 3, 3)),
            sagas=random.randint(4, 16),
            crashes_at_store=sometimes(0.06),
            crashes_in_steps=sometimes(0.1),
            freezes=sometimes(0.06),
            refused_calls=sometimes(0.1),
            lost_answers=sometimes(0.15),
            slow_calls=sometimes(0.08),
            slow_renewals=sometimes(0.4),
            unruly=sometimes(0.6),
            slowness=random.choice((0.2, 2.0, LEASE)),
            orders=random.choice((0, 0, random.randint(1, 40))),
            notifications=random.choice((0, random.randint(1, 10))),
            shutdowns=random.choice((0, 0, random.randint(1, 4))),
            cancelled_callers=sometimes(0.5),
            old_releases=sometimes(0.5),
            resolved=random.random() < 0.5,
            holds=random.choice((0, 0, random.randint(1, 40))),
            rewinds=random.choice((0, random.randint(1, 40))),
            decisions=random.choice((0, 0, random.randint(1, 20))),
        )
        drawn = replace(drawn, families=True, old_releases=0.0) if random.random() < 0.3 else drawn
        return replace(
            drawn,
            sick_calls=sometimes(0.1),
            silent_calls=random.choice((0.0, 0.0, random.uniform(0, 0.02))),
            parts=random.random() < 0.5,
            purges=random.choice((0, random.randint(1, 20))),
            actions=random.choice((0, 0, random.randint(1, 30))),
            defects=random.choice((0.0, 0.0, random.uniform(0, 0.05))),
        )
