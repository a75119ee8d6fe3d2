"""What an attempt means for its email: a pure function, computed without I/O, tested as a table."""

from dataclasses import dataclass
from datetime import timedelta

from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_exponential, wait_fixed, wait_random

from celery_mailer.models.provider import NOT_TAKEN
from celery_mailer.models.transitions import DEFER, DEFER_FREE, DOUBT, REJECT, SENT, Move
from celery_mailer.values import Kind, OnUncertain, Outcome, RetryPolicy

FREE = frozenset({Kind.PROVIDER, Kind.THROTTLED})  # not the email's doing: costs no attempt

# Attempts after which a repetition that the provider recognises by its key is still made on its word. Each
# comes a minute after the one before, and the shortest memory is a quarter of an hour (Brevo's): the
# policy's growing delays would outlast it, and the repetition be a second mail.
SAFE_REPETITIONS = 4


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the judgement may look at. ``attempts`` counts this one; ``age`` is since enqueueing."""

    outcome: Outcome
    kind: Kind
    attempts: int
    age: timedelta
    some_accepted: bool = False  # of the recipients, now or in an earlier attempt
    some_rejected: bool = False
    alternatives: bool = False  # whether another provider is left that has failed it less often
    retry_after: timedelta | None = None  # what the provider itself asked for
    doubted: bool = False  # whether somebody may have it by an earlier attempt


@dataclass(frozen=True, slots=True)
class Verdict:
    """The move to make, and after how long the email is due again. ``resend`` follows a doubt."""

    move: Move
    reason: str = ""
    due_after: timedelta | None = None
    resend: bool = False


def judge(case: Situation, policy: RetryPolicy, on_uncertain: OnUncertain) -> Verdict:
    """The verdict on one attempt."""
    if case.outcome == Outcome.ACCEPTED:
        return Verdict(SENT, "partly_rejected" if case.some_rejected else "")
    if case.outcome == Outcome.REJECTED:
        return Verdict(SENT, "partly_rejected") if case.some_accepted else Verdict(REJECT, str(case.kind))
    again = _due_after(case, policy)
    if case.outcome == Outcome.UNCERTAIN or _outlasts_its_key(case):
        resend = again is not None and on_uncertain == OnUncertain.RESEND
        return Verdict(DOUBT, str(case.kind), again if resend else None, resend)
    if again is None:
        return _given_up(case)
    # Only a counted attempt makes deliver look who had it already: one that reached somebody is counted.
    free = case.kind in FREE and not (case.some_accepted or case.some_rejected)
    return Verdict(DEFER_FREE if free else DEFER, str(case.kind), again)


def _outlasts_its_key(case: Situation) -> bool:
    return case.kind == Kind.NO_ANSWER and case.attempts > SAFE_REPETITIONS


def _given_up(case: Situation) -> Verdict:
    """No attempt is left. Where a provider may have it, for all we know, it has not failed."""
    if case.kind == Kind.NO_ANSWER:
        return Verdict(DOUBT, str(case.kind))
    if case.doubted:
        return Verdict(DOUBT, "gave_up")
    return Verdict(SENT, "partly_given_up") if case.some_accepted else Verdict(REJECT, "gave_up")


def _due_after(case: Situation, policy: RetryPolicy) -> timedelta | None:
    """How long to wait before the next attempt; ``None`` when there is to be none.

    The next provider takes over at once, but only if this one certainly did not take the mail.
    """
    if case.attempts >= policy.max_attempts and case.kind not in FREE:
        return None
    failover = case.alternatives and case.outcome == Outcome.DEFERRED and case.kind in NOT_TAKEN
    after = timedelta(0) if failover else _delay(case, policy)
    return after if case.age + after <= policy.give_up_after else None


def _delay(case: Situation, policy: RetryPolicy) -> timedelta:
    """The policy's wait, and at least what the provider asked for, but not past the time to give up.

    A repetition that the provider recognises comes when it says: it must not have forgotten the key.
    """
    asked = case.retry_after
    if asked is None:
        return wait(policy, case.attempts)
    if case.kind == Kind.NO_ANSWER and not _outlasts_its_key(case):
        return asked
    return max(wait(policy, case.attempts), min(asked, policy.give_up_after - case.age))


def wait(policy: RetryPolicy, attempts: int) -> timedelta:
    """The policy's delay after ``attempts`` failures, by tenacity's strategy of that name."""
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = max(attempts, 1)
    return timedelta(seconds=min(_strategy(policy)(state), policy.max.total_seconds()))


def _strategy(policy: RetryPolicy) -> wait_base:
    low, high = policy.min.total_seconds(), policy.max.total_seconds()
    match policy.wait:
        case "fixed":
            return wait_fixed(low)
        case "random":
            return wait_random(low, high)
        case "exponential":
            return wait_exponential(multiplier=low, min=low, max=high)
        case _:
            # Jitter of half the first delay: enough to spread what one outage deferred together. Room is
            # left for it below ``max``: tenacity's own wait_exponential_jitter is always ``max`` up there.
            top = max(low, high - low / 2)
            return wait_exponential(multiplier=low, max=top) + wait_random(0, low / 2)
