"""The planted bugs, each as one piece of one kernel module and what a tired programmer would have written instead."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug: what it does wrong, in which module, and how. `seed`: a world that notices it, to be found sooner."""

    name: str
    module: str
    right: str
    wrong: str
    seed: int = 0


MUTANTS = (
    # --- replies
    Mutant(
        "the reply of a stale attempt is accepted",
        "replies",
        "case Running(attempt), Returned() if attempt == reply.attempt:",
        "case Running(attempt), Returned():",
        45,
    ),
    Mutant(
        "a stale failure is accepted",
        "replies",
        "case Running(attempt), Raised() if attempt == reply.attempt:",
        "case Running(attempt), Raised():",
        33,
    ),
    Mutant(
        "a stale undo is accepted",
        "replies",
        "case Undoing(attempt), Compensated() if attempt == reply.attempt:",
        "case Undoing(attempt), Compensated():",
        278,
    ),
    Mutant(
        "a timed-out attempt is not tainted",
        "replies",
        "doubted = replace(status, tainted=status.tainted or reply.in_doubt)",
        "doubted = status",
        7,
    ),
    Mutant(
        "a clean failure removes the taint of earlier attempts",
        "replies",
        "doubted = replace(status, tainted=status.tainted or reply.in_doubt)",
        "doubted = replace(status, tainted=reply.in_doubt)",
        4,
    ),
    Mutant(
        "a probe that knows nothing clears the doubt",
        "replies",
        "tainted = is_unknown or (",
        "tainted = False or (",
        13,
    ),
    Mutant("one retry too many", "replies", "retry.delay_for(failures, f", "retry.delay_for(status.failures, f", 7),
    Mutant(
        "one attempt too many to undo",
        "replies",
        "policy.delay_for(failures, f",
        "policy.delay_for(status.failures, f",
        44,
    ),
    Mutant(
        "a step is tried again although the saga has turned back",
        "replies",
        "if draft.course is not Course.FORWARD or not said.retryable or delay is None:",
        "if not said.retryable or delay is None:",
        15,
    ),
    Mutant(
        "a pause without end overflows the calendar", "draft", "self.now + min(pause, _LONGEST)", "self.now + pause", 5
    ),
    Mutant(
        "a probe that leads nowhere counts as progress",
        "replies",
        "draft.recoveries = draft.before.recoveries ",
        "draft.recoveries = 0 ",
        27,
    ),
    Mutant(
        "a reply wakes a saga that is over",
        "replies",
        "return wanted and status_of(",
        "return wanted or status_of(",
        314,
    ),
    Mutant(
        "an undo is not believed",
        "replies",
        "draft.put(reply.step_id, Undone(attempt, status.with_output))",
        "draft.put(reply.step_id, UndoFailed(attempt, status.with_output))",
        1,
    ),
    # --- time and crashes
    Mutant("time does not end the pause before an undo", "timers", "= (*PAUSES,", "= (Retrying,", 15),
    Mutant(
        "time does not end an attempt",
        "timers",
        "*RESTING, Running, Probing, Undoing)",
        "*RESTING, Probing, Undoing)",
        9,
    ),
    Mutant("a claim runs nothing again", "transition", "    take_over(draft)\n", "", 3),
    Mutant(
        "a crash burns an attempt",
        "claim",
        "draft.start(step_id, status.attempt, status.failures, tainted=tainted, heard",
        "draft.start(step_id, status.attempt, status.failures + 1, tainted=tainted, heard",
        3,
    ),
    Mutant(
        "a crash leaves no doubt",
        "claim",
        "draft.start(step_id, status.attempt, status.failures, tainted=tainted, heard",
        "draft.start(step_id, status.attempt, status.failures, heard",
        4,
    ),
    Mutant(
        "a crash of an undo burns an attempt",
        "claim",
        "draft.undo(step_id, status.attempt, status.failures,",
        "draft.undo(step_id, status.attempt, status.failures + 1,",
        13,
    ),
    Mutant("crashes are not counted", "claim", "draft.recoveries += 1", "draft.recoveries += 0", 12),
    Mutant("quarantine never comes", "claim", "draft.quarantined = True", "draft.quarantined = False", 12),
    Mutant(
        "an order that ends a quarantine forgets what was in flight",
        "claim",
        "draft.quarantined = False\n        take_over(draft)",
        "draft.quarantined = False",
        12,
    ),
    Mutant("time moves a saga in quarantine", "transition", "if draft.quarantined:", "if False:", 27),
    # --- forward
    Mutant(
        "a step waits only for the first of those that it comes after",
        "settle",
        "all(map(is_done, nodes[step_id].after))",
        "all(map(is_done, nodes[step_id].after[:1]))",
        3,
    ),
    Mutant("the pivot is not respected when a step fails", "settle", "if draft.is_committed():", "if False:", 4),
    Mutant("a saga turns back while its pivot is in flight", "settle", "elif draft.finals_live():", "elif False:", 101),
    Mutant(
        "a start that was held after a failure is lost when the saga commits itself",
        "settle",
        "draft.touched.extend(draft.graph.nodes)\n    elif draft.finals_live():",
        "pass\n    elif draft.finals_live():",
        3354,
    ),
    Mutant(
        "a saga commits itself although it has failed",
        "settle",
        "if draft.course is Course.FORWARD and draft.has_failed() and not _choose_way(draft):\n        return\n",
        "if draft.course is Course.FORWARD and draft.has_failed():\n        _choose_way(draft)\n",
        3354,
    ),
    Mutant("doubt does not commit", "draft", 'return acted or getattr(status, "tainted", False)', "return acted", 27),
    Mutant(
        "what was waived did not act",
        "draft",
        "isinstance(status, Succeeded | Waived)",
        "isinstance(status, Succeeded)",
        328,
    ),
    Mutant(
        "a pause outlives the turn",
        "settle",
        "if isinstance(status, Retrying | Asking | Waiting):\n            draft.put(",
        "if False:\n            draft.put(",
        17,
    ),
    # --- backward
    Mutant(
        "undo in the order in which the steps ran",
        "settle",
        "all(is_quiet(draft, after) for after in draft.graph.dependents[step_id])",
        "all(is_quiet(draft, before) for before in draft.graph.nodes[step_id].after)",
        13,
    ),
    Mutant(
        "undo without waiting for what is in flight",
        "settle",
        "        case _:\n            return False\n\n\ndef _may_be_undone",
        "        case found:\n            return found.is_live\n\n\ndef _may_be_undone",
        6,
    ),
    Mutant(
        "undo goes on although the author wanted it to stop",
        "settle",
        'return not again and node.on_undo_failure == "continue"',
        "return not again",
        90,
    ),
    Mutant(
        "what is undone again is not waited for",
        "settle",
        'return not again and node.on_undo_failure == "continue"',
        'return node.on_undo_failure == "continue"',
        86,
    ),
    Mutant(
        "a waiver speaks for the steps that come after",
        "settle",
        "isinstance(draft.of(looked_at), Waived | Omitted | Passed | Missed)",
        "isinstance(draft.of(looked_at), Omitted | Passed | Missed)",
        1365,
    ),
    Mutant(
        "a step that has nothing to undo hides what comes after it from an undo that is resumed",
        "settle",
        "isinstance(draft.of(looked_at), Waived | Omitted | Passed | Missed)",
        "isinstance(draft.of(looked_at), Waived | Omitted | Missed)",
        152,
    ),
    Mutant("a step in doubt is left alone", "settle", "return not tainted or node.nothing_to_undo", "return True", 0),
    Mutant(
        "an undo that nobody can do is passed over",
        "settle",
        "draft.put(step_id, UndoFailed(0, with_output))",
        "draft.put(step_id, Passed(1))",
        0,
    ),
    Mutant(
        "an undo runs without the output that it needs",
        "settle",
        "return node.undoable and (with_output or node.undo_without_output)",
        "return node.undoable",
        0,
    ),
    Mutant(
        "only the neighbours of what moved are looked at, and not theirs",
        "settle",
        "                heappush(queue, -position[before])\n",
        "                pass\n",
        6,
    ),
    # --- orders
    Mutant(
        "a saga that is over can be aborted",
        "backward_orders",
        "def abort(draft: Draft) -> Answer:\n    if stands_at(draft).is_terminal:",
        "def abort(draft: Draft) -> Answer:\n    if False:",
        2,
    ),
    Mutant(
        "a saga past its pivot can be cancelled",
        "backward_orders",
        'if draft.is_committed() or draft.finals_live():\n        return refuse(draft, "its pivot',
        'if False:\n        return refuse(draft, "its pivot',
        12,
    ),
    Mutant(
        "a saga past its pivot can be compensated",
        "backward_orders",
        'if draft.is_committed() or draft.finals_live():\n        return refuse(draft, "it is past',
        'if False:\n        return refuse(draft, "it is past',
        4,
    ),
    Mutant(
        "an abort says that what was in flight did not act",
        "backward_orders",
        "draft.put(step_id, Failed(attempt, not is_clean, status.heard))",
        "draft.put(step_id, Failed(attempt, False, status.heard))",
        27,
    ),
    Mutant(
        "a retry is ordered after effects were undone", "forward_orders", "if _undo_has_begun(draft):", "if False:", 17
    ),
    Mutant(
        "an ordered retry forgets the doubt",
        "forward_orders",
        "draft.start(step_id, target.attempt + 1, tainted=target.tainted, heard",
        "draft.start(step_id, target.attempt + 1, heard",
        4,
    ),
    Mutant(
        "an ordered retry repeats the attempt's number",
        "forward_orders",
        "draft.start(step_id, target.attempt + 1, tainted=target.tainted, heard",
        "draft.start(step_id, target.attempt, tainted=target.tainted, heard",
        11,
    ),
    Mutant("an order is carried out unsigned", "orders", "        _sign(draft, order)\n", "", 2),
    # --- what is derived, and what is stored
    Mutant(
        "COMPENSATED although an undo failed",
        "projection",
        "    if residue(graph, state):\n        return SagaStatus.STUCK\n",
        "",
        0,
    ),
    Mutant(
        "passed over counts as undone",
        "projection",
        "undone = any(isinstance(status, Undone) for",
        "undone = any(isinstance(status, Undone | Passed) for",
        16,
    ),
    Mutant(
        "a waiver counts as undone",
        "projection",
        "undone = any(isinstance(status, Undone) for",
        "undone = any(isinstance(status, Undone | Waived) for",
        5,
    ),
    Mutant(
        "what is being undone is not outstanding",
        "projection",
        "for step_id, status in state.open.items() if status.is_live]",
        "for step_id, status in state.open.items() if status.is_live and not isinstance(status, Undoing)]",
        1,
    ),
    Mutant(
        "a step in doubt is no residue",
        "projection",
        "case Failed(tainted=False) | Retrying(tainted=False)",
        "case Failed() | Retrying()",
        12,
    ),
    Mutant(
        "the pause before an undo has no timer",
        "projection",
        "first = min((u for s in state.open.values() if",
        "first = min((u for s in state.open.values() if not isinstance(s, UndoRetrying) and",
        15,
    ),
    Mutant(
        "rows are numbered from the same place again",
        "draft",
        "before.recorded + len(self.records),",
        "before.recorded,",
        0,
    ),
    Mutant(
        "the document drops the taint",
        "codec",
        "    for name, default in _FACTS[cls]:\n        value",
        '    for name, default in _FACTS[cls]:\n        if name == "tainted":\n            break\n        value',
        1,
    ),
    Mutant(
        "the document drops the count of crashes",
        "codec",
        'if state.recoveries else ""',
        'if state.quarantined else ""',
        11,
    ),
    Mutant(
        "a success at a later attempt is written as one at the first",
        "codec",
        "if s is not SUCCEEDED and s != SUCCEEDED]",
        "if not isinstance(s, Succeeded)]",
        4,
    ),
    Mutant(
        "the document shortens times to seconds",
        "codec",
        "_MICROSECOND = timedelta(microseconds=1)",
        "_MICROSECOND = timedelta(seconds=1)",
        20,
    ),
    # --- choices
    Mutant("the chosen branch is omitted", "draft", "if wanted != label:", "if wanted == label:", 13),
    Mutant("every branch of a choice is taken", "draft", "if wanted != label:", "if False:", 13),
    Mutant(
        "a choice that is skipped takes every branch", "forward_orders", "    draft.choose(step_id, None)\n", "", 287
    ),
    Mutant(
        "an omitted step hides from a rollback what comes after it",
        "settle",
        "isinstance(draft.of(looked_at), Waived | Omitted | Passed | Missed)",
        "isinstance(draft.of(looked_at), Waived | Passed | Missed)",
        152,
    ),
    Mutant(
        "an omitted step holds up the rollback",
        "settle",
        "case Pending() | Undone() | Passed() | Waived() | Omitted():",
        "case Pending() | Undone() | Passed() | Waived():",
        13,
    ),
    Mutant(
        "an omitted step is residue",
        "projection",
        "case Undone() | Waived() | Passed() | Omitted():",
        "case Undone() | Waived() | Passed():",
        13,
    ),
    # --- waits
    Mutant(
        "asking is not acting",
        "waits",
        "acted = status.tainted or node.undoable or node.kind.is_final",
        "acted = status.tainted",
        1,
    ),
    Mutant(
        "a step asks on although its saga has turned",
        "waits",
        "if isinstance(asking, Asking) and draft.course is not Course.FORWARD:",
        "if False:",
        57,
    ),
    Mutant(
        "nobody looks whether the event came before", "waits", "asking if reply.types else", "asking if False else", 1
    ),
    Mutant("an event ends a wait whose time is up", "waits", "or is_up(status, draft.now)", "or False", 398),
    Mutant(
        "a wait takes an event of any correlation", "waits", "status.correlation in (None, correlation)", "True", 93
    ),
    Mutant("a wait takes an event of any type", "waits", "kind in status.types and", "", 15),
    Mutant("a wait fails where it was to go on", "waits", "    if status.resumes:", "    if False:", 6),
    Mutant("a wait goes on where it was to fail", "waits", "    if status.resumes:", "    if True:", 0),
    Mutant(
        "a step goes on without the event",
        "waits",
        "draft.start(step_id, status.attempt + 1, tainted=status.tainted, heard=status.heard + 1)",
        "draft.start(step_id, status.attempt + 1, tainted=status.tainted, heard=status.heard)",
        4,
    ),
    Mutant(
        "an undo goes on without the event",
        "waits",
        "with_output=status.with_output, heard=status.heard + 1)",
        "with_output=status.with_output, heard=status.heard)",
        1,
    ),
    Mutant(
        "a step goes on under the attempt that asked",
        "waits",
        "draft.start(step_id, status.attempt + 1, tainted",
        "draft.start(step_id, status.attempt, tainted",
        447,
    ),
    Mutant(
        "an event removes the doubt",
        "waits",
        "draft.start(step_id, status.attempt + 1, tainted=status.tainted, heard",
        "draft.start(step_id, status.attempt + 1, heard",
        4,
    ),
    Mutant(
        "an undo that waits forgets that there was no output",
        "waits",
        "UndoFailed(status.attempt, status.with_output, heard=status.heard)",
        "UndoFailed(status.attempt, True, heard=status.heard)",
        15,
    ),
    Mutant("a wait outlives the turn", "settle", "Retrying | Asking | Waiting)", "Retrying)", 17),
    Mutant(
        "a new owner does not look for the event",
        "claim",
        "elif isinstance(status, Asking | UndoAsking):",
        "elif False:",
        1,
    ),
    Mutant(
        "a saga let out of quarantine does not look for the event",
        "claim",
        "if isinstance(status, Waiting | UndoWaiting) and status.types:",
        "if False:",
        3402,
    ),
    Mutant(
        "an abort leaves an undo waiting",
        "backward_orders",
        "case UndoAsking() | UndoWaiting():",
        "case UndoAsking():",
        121,
    ),
    Mutant(
        "a further attempt forgets the event",
        "timers",
        "tainted=status.tainted, heard=status.heard)",
        "tainted=status.tainted)",
        27,
    ),
    Mutant(
        "a lost attempt forgets the event",
        "claim",
        "status.failures, tainted=tainted, heard=status.heard)",
        "status.failures, tainted=tainted)",
        27,
    ),
    Mutant(
        "the document drops the correlation",
        "codec",
        'if name == "correlation":\n        return None if value is None else',
        'if name == "correlation":\n        return None if True else',
        0,
    ),
    Mutant("a wait for an event has no end", "timers", "(*PAUSES, Waiting, UndoWaiting)", "PAUSES", 4),
    # --- the deadline
    Mutant("a deadline passes over a pivot in flight", "deadline", "    if draft.finals_live():", "    if False:", 27),
    Mutant(
        "a deadline never passes",
        "deadline",
        "draft.deadline is not None and draft.deadline <= draft.now)",
        "False)",
        27,
    ),
    Mutant(
        "a saga past its pivot has a deadline", "deadline", "or is_over or draft.is_committed():", "or is_over:", 27
    ),
    # --- fans
    Mutant(
        "one more may be missed than is tolerated",
        "draft",
        "< self.graph.fans[fan].tolerate",
        "<= self.graph.fans[fan].tolerate",
        26,
    ),
    Mutant(
        "any failure is tolerated",
        "replies",
        "if draft.may_miss(step_id) else Failed",
        "if draft.graph.nodes[step_id].fan else Failed",
        26,
    ),
    Mutant("a fan never unfolds", "replies", '    draft.unfold(reply.step_id, getattr(reply, "items", None))\n', "", 3),
    Mutant(
        "a fan that is passed over has no items",
        "forward_orders",
        "    draft.unfold(step_id, order.items)\n",
        "",
        257,
    ),
    Mutant(
        "what was missed is undone before what comes after it",
        "settle",
        "return quiet and not _is_settled",
        "return not _is_settled",
        3,
    ),
    Mutant(
        "a saga is complete before its items are",
        "projection",
        "len(graph.unfolded(state.fans).nodes)",
        "len(graph.nodes)",
        106,
    ),
    Mutant(
        "an item in doubt that is missed is no residue",
        "projection",
        "if isinstance(s, Failed) or (",
        "if s.is_open and isinstance(s, Failed) or (",
        35,
    ),
    Mutant("the document drops the items", "codec", 'if state.fans else ""', 'if False else ""', 3),
)
