from typing import Any

import pytest

from core.db.verdicts import Budgets, Failure, max_attempts, verdict


def after(**fields: Any) -> tuple[str, float, str | None]:
    """Return state, delay and code of the verdict on a first crash that is otherwise as given."""
    failure: dict[str, Any] = {
        "desired": "run", "outcome": "crashed", "code": "killed", "counts_as": "crash", "crashes": 1, "losses": 0,
        "failed_attempts": 1, "same_in_a_row": 1, "max_attempts": None,
    }  # fmt: skip
    found = verdict(Failure(**failure | fields), Budgets())
    return found.state, found.delay_seconds, found.code


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 1.0), (2, 2.0)])
def test_a_crash_waits_twice_as_long_as_the_one_before(crashes: int, seconds: float) -> None:
    assert after(crashes=crashes, failed_attempts=9) == ("queued", seconds, None)


@pytest.mark.parametrize("crashes", [8, 2000])
def test_a_crash_waits_a_minute_at_most(crashes: int) -> None:
    failure = Failure(
        desired="run", outcome="crashed", code="crash", counts_as="crash", crashes=crashes, losses=0, failed_attempts=1,
        same_in_a_row=1, max_attempts=None,
    )  # fmt: skip
    assert verdict(failure, Budgets(crashes=10_000)).delay_seconds == 60.0


@pytest.mark.parametrize(
    ("in_a_row", "seconds"), [(1, 60.0), (2, 120.0), (3, 240.0), (4, 480.0), (5, 900.0), (99, 900.0)]
)
def test_a_full_disk_waits_from_one_to_fifteen_minutes(in_a_row: int, seconds: float) -> None:
    assert after(code="disk_full", counts_as=None, crashes=0, same_in_a_row=in_a_row) == ("queued", seconds, None)


@pytest.mark.parametrize("code", ["drained", "lost"])
def test_a_drain_and_a_loss_wait_not_at_all(code: str) -> None:
    assert after(code=code, counts_as=None) == ("queued", 0.0, None)


@pytest.mark.parametrize("budget", [{"crashes": 3}, {"crashes": 0, "losses": 5, "counts_as": "loss"}], ids=str)
def test_a_used_up_budget_is_poison(budget: dict[str, Any]) -> None:
    assert after(**budget) == ("failed", 0.0, "poison")


@pytest.mark.parametrize("budget", [{"crashes": 2}, {"crashes": 2, "losses": 4, "counts_as": "loss"}], ids=str)
def test_one_less_is_not(budget: dict[str, Any]) -> None:
    assert after(**budget)[0] == "queued"


def test_as_many_failed_attempts_as_the_spec_allows_are_the_end_with_the_last_cause() -> None:
    assert after(failed_attempts=2, max_attempts=2) == ("failed", 0.0, "killed")
    assert after(failed_attempts=1, max_attempts=2)[0] == "queued"


def test_the_last_cause_and_its_advice_are_told() -> None:
    failure = Failure(
        desired="run", outcome="crashed", code="oom", counts_as="crash", crashes=3, losses=0, failed_attempts=3,
        same_in_a_row=3, max_attempts=None, message="Memory ran out. Lower batch_size.",
    )  # fmt: skip
    message = verdict(failure, Budgets()).message
    assert message is not None
    assert message.startswith("Given up after 3 crashes and 0 lost workers without a finished epoch")
    assert message.endswith("the last ended with 'oom'. Memory ran out. Lower batch_size.")


def test_a_drain_never_ends_a_job() -> None:
    used_up = {"counts_as": None, "crashes": 9, "failed_attempts": 9, "max_attempts": 1}
    assert after(outcome="drained", code="outage", **used_up) == ("queued", 0.0, None)


@pytest.mark.parametrize("fields", [{}, {"crashes": 3}, {"code": "drained", "counts_as": None}], ids=str)
def test_what_was_to_be_cancelled_is_cancelled(fields: dict[str, Any]) -> None:
    assert after(desired="cancel", **fields)[0] == "cancelled"


def test_what_was_to_be_paused_is_paused_unless_it_is_given_up() -> None:
    assert after(desired="pause")[0] == "paused"
    assert after(desired="pause", crashes=3)[0] == "failed"


@pytest.mark.parametrize(
    ("spec", "allowed"), [({}, None), ({"execution": {}}, None), ({"execution": {"max_attempts": 2}}, 2)]
)
def test_the_spec_says_how_many_attempts_it_allows(spec: dict[str, Any], allowed: int | None) -> None:
    assert max_attempts(spec) == allowed
