"""When a policy tries again, how long it waits, and which errors it takes for hopeless."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator.definition.retry import ExponentialRetry, FixedRetry, NoRetry, RetryPolicy
from saga_orchestrator.errors import OutcomeUnknown, PermanentError, RetryAfter, SagaDefinitionError

SECOND = timedelta(seconds=1)


def delays(policy: RetryPolicy, failures: int) -> list[timedelta | None]:
    return [policy.next_delay(count) for count in range(1, failures + 1)]


def test_max_attempts_counts_the_first_attempt() -> None:
    """Three attempts have two pauses between them."""
    assert delays(FixedRetry(3, SECOND), 4) == [SECOND, SECOND, None, None]


def test_no_retry_gives_up_after_the_first_failure() -> None:
    """One attempt and no more, whatever is asked."""
    assert delays(NoRetry(), 2) == [None, None]


def test_an_exponential_pause_grows_up_to_its_ceiling() -> None:
    """Each pause is `multiplier` times the one before, and never longer than `max_delay`."""
    policy = ExponentialRetry(6, SECOND, multiplier=3, max_delay=timedelta(seconds=10))

    assert delays(policy, 6) == [SECOND, 3 * SECOND, 9 * SECOND, 10 * SECOND, 10 * SECOND, None]


def test_an_exponential_pause_without_a_ceiling_ends_at_a_year() -> None:
    """A pause beyond the last date there is would break whoever adds it to a clock."""
    policy = ExponentialRetry(10_000, SECOND)

    assert policy.next_delay(40) == policy.next_delay(5_000) == timedelta(days=365)


def test_a_ceiling_above_a_year_holds_after_an_overflow_too() -> None:
    """The pause never shrinks again, however many failures there were."""
    policy = ExponentialRetry(10_000, SECOND, max_delay=timedelta(days=500))

    assert policy.next_delay(40) == policy.next_delay(5_000) == timedelta(days=500)


def test_a_ceiling_of_zero_is_a_ceiling() -> None:
    """`max_delay=timedelta(0)` means at once, not unlimited."""
    assert ExponentialRetry(3, SECOND, max_delay=timedelta(0)).next_delay(1) == timedelta(0)


def test_a_curve_of_ones_own_needs_one_method() -> None:
    """A subclass says how long to wait; the counting is done for it."""

    class Linear(RetryPolicy):
        def _delay_for_attempt(self, attempt_number: int) -> timedelta:
            return attempt_number * SECOND

    assert delays(Linear(4), 4) == [SECOND, 2 * SECOND, 3 * SECOND, None]
    assert Linear(4).delay_for(2, "saga/charge") == 2 * SECOND


def test_a_policy_without_a_curve_cannot_wait() -> None:
    """The base class has no pause of its own."""
    with pytest.raises(NotImplementedError):
        RetryPolicy(2).next_delay(1)


@pytest.mark.parametrize("pause", [ZeroDivisionError(), 5], ids=["raises", "is no timedelta"])
def test_a_curve_that_stumbles_gives_up(pause: Any) -> None:
    """The kernel never raises for what an author wrote; the attempts end, and the saga goes back."""

    class Stumbling(RetryPolicy):
        def _delay_for_attempt(self, attempt_number: int) -> timedelta:
            if isinstance(pause, Exception):
                raise pause
            return pause  # type: ignore[no-any-return]

    assert Stumbling(4).delay_for(1, "saga/charge") is None


def test_a_pause_that_a_step_asks_for_is_a_timedelta() -> None:
    """A number of seconds is refused where it is raised, inside the step."""
    with pytest.raises(TypeError, match="RetryAfter takes a timedelta, not 5"):
        RetryAfter(5)  # type: ignore[arg-type]


def test_jitter_is_off_unless_asked_for() -> None:
    """Without jitter every key waits the same."""
    assert FixedRetry(3, SECOND).delay_for(1, "a") == FixedRetry(3, SECOND).delay_for(1, "b") == SECOND


@pytest.mark.parametrize("policy", [FixedRetry(9, SECOND, jitter=0.5), ExponentialRetry(9, SECOND, jitter=0.5)])
def test_jitter_comes_from_the_key(policy: RetryPolicy) -> None:
    """The same key and failure wait the same; others spread within the fraction that jitter may take off."""
    spread = [policy.delay_for(1, f"saga-{number}/charge") for number in range(100)]

    assert spread == [policy.delay_for(1, f"saga-{number}/charge") for number in range(100)]
    assert len(set(spread)) == 100
    assert all(delay is not None and SECOND / 2 < delay <= SECOND for delay in spread)


def test_jitter_differs_between_failures() -> None:
    """Two sagas that met once do not meet again at every attempt."""
    policy = FixedRetry(9, SECOND, jitter=1.0)

    assert policy.delay_for(1, "saga/charge") != policy.delay_for(2, "saga/charge")


def test_jitter_does_not_add_attempts() -> None:
    """Giving up is not spread."""
    assert FixedRetry(2, SECOND, jitter=0.5).delay_for(2, "saga/charge") is None


@pytest.mark.parametrize("error", [ValueError(), OutcomeUnknown(), RetryAfter(SECOND)])
def test_every_error_is_retried_by_default(error: BaseException) -> None:
    """A step that raised did not act, so another attempt is safe."""
    assert NoRetry().retries(error)


def test_a_permanent_error_is_never_retried() -> None:
    """The step knows better than the policy."""
    assert not FixedRetry(3, SECOND, retry_on=PermanentError).retries(PermanentError())


@pytest.mark.parametrize(
    "wanted", [ConnectionError, (ConnectionError, KeyError), lambda error: isinstance(error, OSError)]
)
def test_errors_are_chosen_by_class_by_classes_or_by_a_predicate(wanted: Any) -> None:
    """A filter may be one class, a tuple of them, or any function of the error."""
    only, never = FixedRetry(3, SECOND, retry_on=wanted), FixedRetry(3, SECOND, give_up_on=wanted)

    assert (only.retries(ConnectionResetError()), only.retries(ValueError())) == (True, False)
    assert (never.retries(ConnectionResetError()), never.retries(ValueError())) == (False, True)


def test_what_a_step_asks_for_is_retried_whatever_the_filter_says() -> None:
    """`OutcomeUnknown` and `RetryAfter` are requests, not failures that happen to match."""
    policy = FixedRetry(3, SECOND, retry_on=KeyError)

    assert policy.retries(OutcomeUnknown())
    assert policy.retries(RetryAfter(SECOND))
    assert not FixedRetry(3, SECOND, give_up_on=RetryAfter).retries(RetryAfter(SECOND))


def test_fewer_than_one_attempt_is_refused() -> None:
    """The first attempt counts."""
    with pytest.raises(SagaDefinitionError, match="max_attempts is 0; it counts the first attempt too"):
        FixedRetry(0, SECOND)


@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
def test_a_filter_that_is_none_is_refused(option: str) -> None:
    """A list of classes would only fail when the first error has come."""
    with pytest.raises(SagaDefinitionError, match=f"{option} is .*; give it an error class, a tuple"):
        FixedRetry(3, SECOND, **{option: [ValueError]})  # type: ignore[arg-type]


class TestGroups:
    """Errors that come together, as out of an `asyncio.TaskGroup`, are judged one by one."""

    POLICY = FixedRetry(3, timedelta(0), retry_on=(ConnectionError, ExceptionGroup), give_up_on=KeyError)

    def test_one_that_ends_the_attempts_ends_them(self) -> None:
        nested = ExceptionGroup("two", [ConnectionError(), ExceptionGroup("one", [PermanentError()])])

        assert not self.POLICY.retries(nested)
        assert not self.POLICY.retries(ExceptionGroup("one", [ConnectionError(), KeyError()]))

    def test_a_group_is_worth_another_attempt_by_itself_or_by_all_that_it_holds(self) -> None:
        policy = FixedRetry(3, timedelta(0), retry_on=ConnectionError)

        assert self.POLICY.retries(ExceptionGroup("one", [ValueError()]))
        assert policy.retries(ExceptionGroup("two", [ConnectionError(), RetryAfter(timedelta(0))]))
        assert not policy.retries(ExceptionGroup("two", [ConnectionError(), ValueError()]))


class TestPredicates:
    """A predicate answers at once: an answer that would have to be awaited is no answer."""

    def test_an_answer_that_would_have_to_be_awaited_is_an_error(self) -> None:
        async def ask(error: BaseException) -> bool: ...

        policy = FixedRetry(3, timedelta(0), retry_on=lambda error: ask(error) or None)

        with pytest.raises(TypeError, match="cannot be awaited"):
            policy.retries(ValueError())

    def test_a_future_is_no_answer_either(self) -> None:
        class Later:
            def __await__(self) -> Any: ...

        policy = FixedRetry(3, timedelta(0), retry_on=lambda error: Later())

        with pytest.raises(TypeError, match="cannot be awaited"):
            policy.retries(ValueError())
