import pytest

from core.db.engine import Database
from core.db.leases import AttemptEnd, requeue
from core.db.series import attempts
from tests.core.db.given import queued, read, running


@pytest.mark.parametrize(("given", "kept"), [("a\0b", "a\ufffdb"), ("a\ud800", "a\ufffd"), ("Straße 🚀", "Straße 🚀")])
def test_names_are_kept_as_far_as_a_database_can(database: Database, given: str, kept: str) -> None:
    assert read(database, queued(database, name=given).id).name == kept


@pytest.mark.parametrize("given", ["a\0b", "a\ud800", "Straße 🚀"])
def test_json_is_kept_as_it_is(database: Database, given: str) -> None:
    assert read(database, queued(database, spec={given: given}).id).spec == {given: given}


def test_a_message_of_a_trainer_may_hold_anything(database: Database) -> None:
    claim = running(database)
    with database.session_scope() as session:
        end = AttemptEnd(code="crash", message="\0 was read")
        requeue(session, claim.job_id, claim.fence, outcome="crashed", end=end, counts_as="crash")
        assert attempts(session, claim.job_id)[0].message == "\ufffd was read"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(database: Database, number: float) -> None:
    with pytest.raises(Exception, match="JSON compliant"):
        queued(database, spec={"epochs": number})
