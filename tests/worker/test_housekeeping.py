"""Lost jobs are taken away only after one whole lease of unbroken contact."""

from collections.abc import Callable

from core.db import leases, workers
from tests.service import eventually
from tests.worker.conftest import Desk
from worker.housekeeping import Contact, Housekeeping
from worker.slots import Slots


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_contact_grows_while_the_database_answers() -> None:
    clock = Clock()
    contact = Contact(30.0, clock)
    assert contact.seconds == 0.0
    for _ in range(4):
        contact.answered()
        clock.now += 5.0
    assert contact.seconds == 20.0


def test_contact_begins_anew_after_an_outage() -> None:
    clock = Clock()
    contact = Contact(30.0, clock)
    contact.answered()
    clock.now += 20.0
    contact.lost()
    contact.answered()
    assert contact.seconds == 0.0


def test_contact_begins_anew_after_the_process_was_frozen() -> None:
    clock = Clock()
    contact = Contact(30.0, clock)
    contact.answered()
    clock.now += 31.0
    contact.answered()
    assert contact.seconds == 0.0


def make_housekeeping(desk: Desk) -> Housekeeping:
    announcement = workers.Announcement(
        id=desk.site.worker_id, name="w", host="here", pid=1, version="0", queues=["cpu"], devices=[], slots=1
    )
    return Housekeeping(desk.site, Slots(desk.site), announcement)


def test_job_of_a_dead_worker_is_queued_again_after_a_whole_lease(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(lease_seconds=0.5)
    job_id = desk.submit(epochs=1)
    claim = desk.claim()
    assert claim is not None
    housekeeping = make_housekeeping(desk)
    housekeeping.tick()
    assert desk.job(job_id).state == "running"

    def is_queued() -> bool:
        housekeeping.tick()
        return desk.job(job_id).state == "queued"

    assert eventually(is_queued)
    assert desk.job(job_id).losses_no_progress == 1
    assert desk.job(job_id).fence > claim.fence


def test_live_worker_keeps_its_job(desk: Desk) -> None:
    job_id = desk.submit(epochs=40, epoch_seconds=0.1)
    carrying = desk.carry_in_background()
    housekeeping = make_housekeeping(desk)
    while carrying.is_alive():
        housekeeping.tick()
        carrying.join(0.1)
    assert desk.job(job_id).state == "succeeded"
    assert desk.job(job_id).attempt == 1


def test_worker_is_listed_until_it_leaves(desk: Desk) -> None:
    housekeeping = make_housekeeping(desk)
    housekeeping.start()

    def listed() -> list[str]:
        with desk.site.database.session_scope(write=False) as session:
            return [worker.id for worker in workers.listing(session)]

    assert eventually(lambda: listed() == [desk.site.worker_id])
    housekeeping.stop()
    assert listed() == []


def test_draining_worker_claims_nothing(desk: Desk) -> None:
    job_id = desk.submit(epochs=1)
    desk.site.shutdown.ask()
    assert not Slots(desk.site).carry_one(("cpu",))
    assert desk.job(job_id).state == "queued"


def test_slots_claim_the_best_waiting_job(desk: Desk) -> None:
    job_id = desk.submit(epochs=2)
    slots = Slots(desk.site)
    assert slots.carry_one(("cpu",))
    assert not slots.carry_one(("cpu",))
    assert slots.free == 1
    with desk.site.database.session_scope(write=False) as session:
        assert leases.waiting(session, ["cpu"]) == []
    assert desk.job(job_id).state == "succeeded"
