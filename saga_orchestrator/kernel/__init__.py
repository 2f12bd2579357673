"""The law of sagas: one pure function, `decide`, and everything that can be derived from the state it returns.

Theory of operation
===================

A saga is a graph of steps and a `State`. Nothing else moves the state than `decide(graph, state, event, now=...)`,
and `decide` does nothing but move the state: no I/O, no clock, no randomness. It works in two passes, as h11's
automaton does:

1. `transition` (with `replies`, `timers`, `claim` and `orders`) moves the steps that the event addresses. An event
   that comes too late, twice, or for somebody else gets a verdict and moves nothing; it is never an exception.
2. `settle` then applies the state-triggered moves to a fixed point: which steps may start now, which way the saga goes
   after a failure, which steps may be undone.

The courses
-----------
A saga runs FORWARD until a step has failed for good. Then, once no step is in flight whose effect could forbid the
way back, it turns: BACKWARD where its effects can be undone, HALTED where its author or an operator wants them left
alone. Once a PIVOT or RETRIABLE step has acted (or may have), it never turns: it stays FORWARD, and ends STUCK if it
cannot go on. A saga that is COMPLETED stays so, unless it is a child and its parent has it undone.

Did it act?
-----------
The one question that a saga must never get wrong. A step that returned acted. A step that raised did not. An attempt
that timed out, was lost with its worker, or answered something that cannot be stored is *in doubt*: it *taints* the
step, and no later clean failure removes the taint; only a probe or an operator does. A tainted step takes part in the
rollback. What can neither be undone nor ruled out stays visible as an `UndoFailed` step: the saga is STUCK, never
COMPENSATED.

Waits
-----
A step that asks is `Asking` until somebody has looked whether its event came before the question (`Collect`), and then
`Waiting`; an event is given to it in either status, until its time is up. Asking is an effect, where that could be
undone.

Pauses
------
A saga that is paused begins nothing: `settle` leaves it alone, and neither time nor an event moves what rests. What is
in flight goes on to its end. Whoever resumes it finds due what is due, and looks again for what it waits for.

What may interleave, and what a crash leaves
--------------------------------------------
The state in the database is the only truth. Work (`Execute`, `Probe`, `Compensate`, `Collect`) starts after the commit
that orders it, so a crash can lose work but never order it twice under different names: `outstanding(state)` is all the
work that could have been lost, and `Claimed` is the event by which a new owner says so. A reply is accepted from the
current attempt only. Events of one saga are decided one after another (the store's lock and revision see to that);
any order of arrival is legal, and the laws in `laws` hold after each.

Derived, never maintained
-------------------------
Status, the timer, what is awaited, the residue and the outstanding work are functions of the state (`projection`).
Nobody sets a status by hand, so none can be forgotten.
"""
