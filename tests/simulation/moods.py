"""The moods that services are in: each is one way in which a call can go. The first of each list is the good one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from saga_orchestrator import OutcomeUnknown, PermanentError, RetryAfter

from .plan import LEASE

if TYPE_CHECKING:
    from .ledger import Place
    from .participants import Receipt, Services


async def does_well(services: Services, place: Place) -> Receipt:
    await services.pause()
    receipt = services.act(place)
    await services.pause()
    return receipt


async def fails(services: Services, place: Place) -> Receipt:
    await services.pause()
    raise RuntimeError("it did not act")


async def fails_for_good(services: Services, place: Place) -> Receipt:
    await services.pause()
    raise PermanentError("it did not act, and never will")


async def asks_for_patience(services: Services, place: Place) -> Receipt:
    await services.pause()
    raise RetryAfter(timedelta(seconds=3))


async def cannot_tell_and_did_not(services: Services, place: Place) -> Receipt:
    await services.pause()
    raise OutcomeUnknown("it may have acted")


async def cannot_tell_and_did(services: Services, place: Place) -> Receipt:
    await services.pause()
    services.act(place)
    await services.pause()
    raise OutcomeUnknown("it may have acted")


async def hangs_before_acting(services: Services, place: Place) -> Receipt:
    await services.pause(8)
    return await does_well(services, place)


async def hangs_after_acting(services: Services, place: Place) -> Receipt:
    receipt = services.act(place)
    await services.pause(8)
    return receipt


async def outlasts_a_lease(services: Services, place: Place) -> Receipt:
    await services.pause(2.5 * LEASE)
    return await does_well(services, place)


async def acts_and_talks_nonsense(services: Services, place: Place) -> Any:
    """Return no receipt at all, or one that would read back as the receipt of something else."""
    receipt = await does_well(services, place)
    return "nonsense" if receipt.number % 2 else services.in_cents(receipt)


async def is_cancelled_from_inside(services: Services, place: Place) -> Receipt:
    services.act(place)
    raise asyncio.CancelledError


async def acts_although_cancelled(services: Services, place: Place) -> Receipt:
    try:
        await services.pause(8)
    except asyncio.CancelledError:
        await services.pause()
    return services.act(place)


async def undoes_well(services: Services, place: Place) -> None:
    await services.pause()
    services.undo(place)
    await services.pause()


async def undo_hangs(services: Services, place: Place) -> None:
    await services.pause(8)
    await undoes_well(services, place)


async def undo_fails_after_the_deed(services: Services, place: Place) -> None:
    await undoes_well(services, place)
    raise RuntimeError("it did undo, and says that it did not")


async def undo_cannot_tell(services: Services, place: Place) -> None:
    await undoes_well(services, place)
    raise OutcomeUnknown("it may have undone")


async def probes_well(services: Services, place: Place) -> Receipt | None:
    await services.pause()
    return services.learn(place)


async def probe_hangs(services: Services, place: Place) -> Receipt | None:
    await services.pause(8)
    return services.learn(place)


EXECUTING = [
    does_well,
    fails,
    fails,
    fails_for_good,
    asks_for_patience,
    cannot_tell_and_did_not,
    cannot_tell_and_did,
    hangs_before_acting,
    hangs_after_acting,
    outlasts_a_lease,
    acts_and_talks_nonsense,
    is_cancelled_from_inside,
    acts_although_cancelled,
]
COMPENSATING = [
    undoes_well,
    fails,
    fails,
    fails_for_good,
    asks_for_patience,
    cannot_tell_and_did_not,
    undo_hangs,
    undo_fails_after_the_deed,
    undo_cannot_tell,
]
PROBING = [probes_well, fails, cannot_tell_and_did_not, probe_hangs]
