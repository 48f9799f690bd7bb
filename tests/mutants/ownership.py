"""Defects of statements: who may write what, and what stands together in one transaction."""

from tests.mutants.mutant import Mutant

LEASES, CLAIMS, TRANSITIONS = "core/db/leases.py", "core/db/claims.py", "core/db/transitions.py"
PUBLICATIONS = "core/db/publications.py"
ENGINE, TABLES = "core/db/engine.py", "migrations/versions/0001_create_every_table.py"
OWNED, UNFENCED = "    job = owned(session, job_id, fence)\n", "    job = session.get_one(Job, job_id)\n"
ZOMBIE = "tests/core/db/test_leases.py::TestLostOwnership::test_of_a_zombie"
FENCES = "tests/core/db/test_fences.py"
HELD = f"{FENCES}::TestRowsThatAreHeld"
ENGINES = "tests/core/db/test_engine.py"
PUBLISHED = "tests/core/db/test_leases.py::TestPublish"


def _unfenced(call: str, following: str, breaks: str) -> Mutant:
    """Return the defect of a statement that takes its row whoever asks."""
    return Mutant(
        f"{call}-without-fence",
        LEASES,
        OWNED + following,
        UNFENCED + following,
        (f"{ZOMBIE}[sqlite-{call}]",),
        breaks,
    )


FENCING = (
    _unfenced("start", "    first = job.numerics", "A worker that woke up again changes the plan of its successor."),
    Mutant(
        "publish-without-fence",
        PUBLICATIONS,
        ".where(*HELD).with_for_update()",
        ".where(HELD[0]).with_for_update()",
        (f"{ZOMBIE}[sqlite-publish]",),
        "Two attempts write epochs of one job.",
    ),
    _unfenced("finish", "    if artifacts:", "A job ends while its new owner still trains it."),
    _unfenced("pause", "    values: dict[str, Any]", "A job is let go of by a worker that does not own it."),
    _unfenced("requeue", "    return fail_attempt(", "A zombie gives away the job of its successor, budget and all."),
    Mutant(
        "heartbeat-without-fence",
        LEASES,
        'Job.state == "running", Job.fence == fence)\n        .values(',
        'Job.state == "running")\n        .values(',
        (f"{ZOMBIE}[sqlite-heartbeat]",),
        "A zombie keeps its successor's lease alive and never hears that it has lost the job.",
    ),
    Mutant(
        "wish-without-fence",
        LEASES,
        'select(Job.desired).where(Job.id == job_id, Job.state == "running", Job.fence == fence)',
        'select(Job.desired).where(Job.id == job_id, Job.state == "running")',
        ("tests/worker/test_supervisor.py::test_statement_with_an_old_fence_is_refused",),
        "A worker that lost its job goes on training until it has something to write.",
    ),
    Mutant(
        "fence-not-raised-by-a-claim",
        CLAIMS,
        '"fence": Job.fence + 1,',
        '"fence": Job.fence,',
        ("tests/core/db/test_leases.py::TestClaim::test_gives_a_fence_a_lease_and_an_attempt[sqlite]",),
        "Two attempts may come to share a fence, and a folder.",
    ),
    Mutant(
        "fence-not-raised-by-an-end",
        TRANSITIONS,
        '"fence": Job.fence + 1,',
        '"fence": Job.fence,',
        ("tests/worker/test_housekeeping.py::test_job_of_a_dead_worker_is_queued_again_after_a_whole_lease",),
        "What happened to a job cannot be ordered by fence any more.",
    ),
    Mutant(
        "move-without-its-guards",
        TRANSITIONS,
        "        Job.state == job.state,\n        Job.fence == job.fence,\n",
        "",
        (f"{FENCES}::test_a_row_that_has_moved_on_is_not_moved_again[sqlite]",),
        "Whoever decided on an old row overwrites what has happened since.",
    ),
)

TAKING = (
    Mutant(
        "reaper-without-its-guard",
        LEASES,
        "        .limit(limit)\n        .with_for_update(skip_locked=True)\n",
        "        .limit(limit)\n",
        (
            f"{HELD}::test_a_heartbeat_that_holds_the_row_wins_over_the_reaper",
            f"{HELD}::test_a_reaper_passes_by_a_job_that_another_is_just_taking",
        ),
        "The reaper decides on a row that another is changing.",
    ),
    Mutant(
        "reaper-takes-live-leases",
        LEASES,
        ", Job.lease_until < now())",
        ")",
        ("tests/core/db/test_endings.py::TestReap::test_leaves_jobs_with_a_live_lease_alone[sqlite]",),
        "Jobs are taken away from workers that are well.",
    ),
    Mutant(
        "loss-costs-nothing",
        LEASES,
        'counts_as="loss"',
        "counts_as=None",
        ("tests/core/db/test_endings.py::TestReap::test_five_losses_without_an_epoch_are_poison[sqlite]",),
        "A job that takes its machine down does so for ever.",
    ),
    Mutant(
        "heartbeat-without-renewal",
        LEASES,
        '"lease_until": now(lease_seconds), **seen',
        '"lease_until": Job.lease_until, **seen',
        ("tests/core/db/test_leases.py::TestHeartbeat::test_renews_the_lease_and_says_what_the_owner_wants[sqlite]",),
        "Every job that is longer than a lease is lost.",
    ),
    Mutant(
        "claim-waits-for-locked-rows",
        CLAIMS,
        "with_for_update(skip_locked=True)",
        "with_for_update()",
        (f"{HELD}::test_a_claim_passes_by_a_job_that_another_is_just_taking",),
        "Workers queue up behind one another's claims, and find nothing though jobs wait.",
    ),
    Mutant(
        "claim-without-lock",
        CLAIMS,
        "    if is_locking:\n",
        "    if not heads:\n",
        (f"{HELD}::test_a_claim_passes_by_a_job_that_another_is_just_taking",),
        "Two workers choose the same row.",
    ),
    Mutant(
        "claim-ignores-the-back-off",
        CLAIMS,
        "        or_(Job.run_after.is_(None), Job.run_after <= now()),\n",
        "",
        ("tests/core/db/test_leases.py::TestClaim::test_waits_for_the_end_of_a_back_off[sqlite]",),
        "A crashing job is tried as fast as it crashes.",
    ),
)

WHOLE = (
    Mutant(
        "pointer-outside-the-transaction",
        PUBLICATIONS,
        "    _change(session, job, values)\n    decide(session, job, decisions)\n",
        '    session.connection().exec_driver_sql("COMMIT")\n'
        '    session.connection().exec_driver_sql("BEGIN")\n'
        "    _change(session, job, values)\n    decide(session, job, decisions)\n",
        (f"{FENCES}::test_what_is_not_committed_leaves_nothing[sqlite-publish]",),
        "A crash leaves rows whose checkpoint nothing points to: the resumed job writes them again.",
    ),
    Mutant(
        "previous-checkpoint-forgotten",
        PUBLICATIONS,
        "current.as_json() if (current := current_checkpoint(job)) else None",
        "None",
        (f"{PUBLISHED}::test_keeps_the_checkpoint_before[sqlite]",),
        "One damaged file ends the job.",
    ),
    Mutant(
        "publication-not-recognised",
        PUBLICATIONS,
        "if job.checkpoint_key == checkpoint.key and job.checkpoint_digest == checkpoint.digest:",
        "if job.checkpoint_key is None and not rows:",
        (f"{PUBLISHED}::test_the_same_again_changes_nothing[sqlite]",),
        "A publication whose answer was lost ends the attempt when it is repeated.",
    ),
    Mutant(
        "gap-in-the-rows",
        PUBLICATIONS,
        "    if epochs != list(range(begin, begin + len(epochs))):\n",
        "    if epochs and epochs[-1] < begin:\n",
        (f"{PUBLISHED}::test_rows_that_leave_a_gap_are_refused_whole[sqlite-[2]]",),
        "A lost epoch is not noticed.",
    ),
    Mutant(
        "budget-not-reset-by-an-epoch",
        PUBLICATIONS,
        '        values |= {"crashes_no_progress": 0, "losses_no_progress": 0}\n',
        "",
        (f"{PUBLISHED}::test_a_published_epoch_resets_both_budgets[sqlite]",),
        "A long job on machines that come and go is given up though it gets on.",
    ),
    Mutant(
        "epoch-key-missing",
        TABLES,
        '        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("pk_epochs")),\n',
        "",
        (f"{PUBLISHED}::test_a_row_that_is_there_already_is_refused_whole[sqlite]",),
        "Nothing but good will keeps an epoch from being written twice.",
    ),
    Mutant(
        "terminal-index-missing",
        TABLES,
        '        unique=True,\n        postgresql_where=sa.text("is_terminal"),',
        '        unique=False,\n        postgresql_where=sa.text("is_terminal"),',
        ("tests/core/db/test_leases.py::TestFinish::test_the_database_refuses_a_second_terminal_event[sqlite]",),
        "A job may end twice.",
    ),
    Mutant(
        "terminal-event-not-marked",
        TRANSITIONS,
        "body or {}, is_terminal=is_terminal)",
        "body or {})",
        (f"{FENCES}::test_the_event_of_an_end_is_terminal[sqlite-succeeded]",),
        "The index of terminal events guards nothing.",
    ),
    Mutant(
        "deferred-sqlite-transaction",
        ENGINE,
        'exec_driver_sql(f"BEGIN {word}")',
        'exec_driver_sql("BEGIN DEFERRED")',
        (f"{ENGINES}::test_eight_threads_that_read_and_then_write_never_find_the_database_locked[sqlite]",),
        "Two writers that begin by reading: one of them fails at once with 'database is locked'.",
    ),
    Mutant(
        "sqlite-not-synchronous",
        ENGINE,
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=NORMAL",
        (f"{ENGINES}::test_sqlite_is_durable_and_checks_references",),
        "A power cut takes back jobs that clients got a 201 for.",
    ),
    Mutant(
        "idempotency-conflict-ignored",
        "core/db/jobs.py",
        "if job is not None and job.body_sha256 != new.body_sha256:",
        "if job is not None and not job.body_sha256:",
        ("tests/core/db/test_jobs.py::TestCreate::test_the_same_key_with_another_body_is_refused[sqlite]",),
        "A client that uses a key for two jobs is told that both run.",
    ),
    Mutant(
        "idempotency-race",
        "core/db/jobs.py",
        '            .on_conflict_do_nothing(index_elements=["project", "idempotency_key"])\n',
        "",
        ("tests/core/db/test_jobs.py::TestCreate::test_the_same_key_and_body_give_the_first_job[sqlite]",),
        "A repeated POST is an error instead of the first answer.",
    ),
    Mutant(
        "drain-counts-against-the-budget",
        "core/db/verdicts.py",
        "    if failure.counts_as is None:\n        return None\n",
        "",
        ("tests/core/db/test_verdicts.py::test_a_drain_never_ends_a_job",),
        "Rolling restarts give a job up.",
    ),
)

MUTANTS = (*FENCING, *TAKING, *WHOLE)
