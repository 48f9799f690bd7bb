"""Defects of the processes around a job: worker, doorbell, template."""

from tests.mutants.mutant import Mutant

HOUSEKEEPING, SUPERVISED = "worker/housekeeping.py", "tests/worker/test_supervisor.py"
REAPING, PUBLISHING = "tests/worker/test_reaping.py", "tests/worker/test_publishing.py"
PROCESSES = "tests/core/test_process.py"

WAITING = (
    Mutant(
        "reaper-without-the-wait",
        HOUSEKEEPING,
        "        if self._contact.seconds >= self._site.settings.lease_seconds:\n            self._reap()\n",
        "        self._reap()\n",
        (f"{REAPING}::test_lease_that_is_over_is_left_alone_for_one_whole_lease",),
        "The first worker back after an outage robs all others.",
    ),
    Mutant(
        "outage-not-noted-by-the-reaper",
        HOUSEKEEPING,
        "            except DatabaseAway as away:\n                self._contact.lost()\n",
        "            except DatabaseAway as away:\n",
        (f"{REAPING}::test_wait_begins_anew_when_the_database_was_away",),
        "An outage a little shorter than a lease costs every job an attempt.",
    ),
    Mutant(
        "frozen-reaper-reaps-at-once",
        HOUSEKEEPING,
        "if self._since is None or now - self._last > self._longest_gap_seconds:",
        "if self._since is None:",
        ("tests/worker/test_housekeeping.py::test_contact_begins_anew_after_the_process_was_frozen",),
        "A machine that wakes from sleep takes the jobs of those that slept with it.",
    ),
    Mutant(
        "ring-once",
        HOUSEKEEPING,
        "            self._reap()\n        self._ring_again()\n",
        "            self._reap()\n",
        ("tests/worker/test_celery.py::test_lost_message_costs_seconds",),
        "A job whose message was lost waits for ever.",
    ),
    Mutant(
        "late-acknowledgement",
        "worker/app.py",
        "ignore_result=True, acks_late=False)",
        "ignore_result=True, acks_late=True)",
        ("tests/worker/test_acknowledgement.py::test_message_of_a_running_job_is_acknowledged",),
        "After an hour the broker hands a running job's message to another worker; the leases would have to stop it.",
    ),
    Mutant(
        "draining-worker-claims",
        "worker/slots.py",
        "        while not shutdown.draining.is_set():\n            try:\n                template.wait_ready",
        "        while True:\n            try:\n                template.wait_ready",
        ("tests/worker/test_housekeeping.py::test_draining_worker_claims_nothing",),
        "A worker that is told to stop begins a job, and stops it.",
    ),
)

WRITING = (
    Mutant(
        "database-names-what-is-not-stored",
        "worker/record.py",
        "before=self._kept_alive(publisher.store), after=publisher.written",
        "after=lambda: (self._kept_alive(publisher.store)(), publisher.written())[1]",
        (f"{PUBLISHING}::test_rows_are_seen_only_once_their_checkpoint_is_stored",),
        "Epochs are visible whose checkpoint does not exist.",
    ),
    Mutant(
        "tried-publication-changed",
        "worker/publishing.py",
        "if last is None or last.was_tried:",
        "if last is None:",
        (f"{PUBLISHING}::test_publication_that_may_be_committed_is_repeated_as_it_was",),
        "A commit whose answer was lost is repeated with more in it, and refused.",
    ),
    Mutant(
        "write-forgotten-in-an-outage",
        "worker/ledger.py",
        "                return False\n            self._pending.popleft()\n            entry.after()\n",
        "                self._pending.popleft()\n                return False\n"
        "            self._pending.popleft()\n            entry.after()\n",
        (f"{PUBLISHING}::test_write_that_was_not_taken_is_repeated_in_its_place",),
        "Epochs that end while the database is away are lost.",
    ),
    Mutant(
        "fallback-not-ordered",
        "worker/order.py",
        "for one in (claim.checkpoint, claim.previous_checkpoint)",
        "for one in (claim.checkpoint,)",
        ("tests/worker/test_order.py::test_checkpoint_before_the_newest_is_ordered_too",),
        "One damaged file ends the job, though the one before it is there.",
    ),
    Mutant(
        "published-checkpoint-swept",
        "worker/folder.py",
        "self._kept = [one for one in self._kept[:-2] if one.epoch == best_epoch] + self._kept[-2:]",
        "[self.drop(one) for one in self._kept[:-1]]",
        (f"{PUBLISHING}::test_last_two_published_checkpoints_and_the_best_are_kept",),
        "There is nothing to fall back to.",
    ),
    Mutant(
        "one-folder-for-all-attempts",
        "worker/folder.py",
        'self._prefix = f"jobs/{job_id}/{fence}"',
        'self._prefix = f"jobs/{job_id}/1"',
        (f"{PUBLISHING}::test_two_attempts_share_no_folder",),
        "A zombie's trainer writes into the folder of its successor.",
    ),
    Mutant(
        "threads-not-kept",
        "worker/order.py",
        'threads=(claim.numerics or {}).get("threads") or threads,',
        "threads=threads,",
        ("tests/worker/test_order.py::test_later_attempts_compute_with_the_threads_of_the_first",),
        "A job that moves to a larger machine ends with other bits.",
    ),
    Mutant(
        "artifact-digest-not-checked",
        "worker/folder.py",
        "if found != file.sha256:",
        "if found is None:",
        (f"{SUPERVISED}::test_artifact_with_another_digest_is_not_taken",),
        "A model that is not the trained one is handed out.",
    ),
    Mutant(
        "drain-is-a-crash",
        "worker/record.py",
        '        self._requeue("drained", ',
        '        self._requeue("crashed", ',
        (f"{SUPERVISED}::test_drain_gives_the_job_back_free_of_charge",),
        "Every rolling restart is counted among the failures that max_attempts allows.",
    ),
    Mutant(
        "full-disk-is-a-crash",
        "worker/outcome.py",
        'counts_as=None if is_final or code == "disk_full" else "crash"',
        'counts_as=None if is_final else "crash"',
        ("tests/worker/test_outcome.py::test_full_disk_costs_no_budget",),
        "A full disk gives up every job that runs.",
    ),
)

DYING = (
    Mutant(
        "no-death-pact",
        "core/template.py",
        "            die_with(template_pid)\n",
        "",
        (f"{PROCESSES}::test_template_and_children_die_with_their_owner",),
        "A killed worker's trainer goes on beside the one that takes over.",
    ),
    Mutant(
        "death-pact-without-a-second-look",
        "core/template.py",
        "    if os.getppid() != parent:\n        os._exit(1)\n",
        "",
        ("tests/core/test_death_pact.py::test_child_lives_only_below_the_parent_it_knows",),
        "A child that is forked while its template dies is never ended.",
    ),
    Mutant(
        "template-outlives-its-owner",
        "core/template.py",
        "        if not data:\n            return False\n",
        "        if not data:\n            return True\n",
        (f"{PROCESSES}::test_template_and_children_die_with_their_owner",),
        "Every killed worker leaves a template and its trainers behind.",
    ),
    Mutant(
        "group-not-killed",
        "core/template.py",
        "            os.killpg(pid, signal.SIGKILL)",
        "            pass",
        ("tests/core/test_death_pact.py::test_processes_of_a_child_end_with_it",),
        "Processes that a trainer started live on.",
    ),
    Mutant(
        "trainer-does-not-notice-its-supervisors-end",
        "core/train/pipe.py",
        "        if self.channel.closed:\n            raise SupervisorGoneError\n",
        "",
        ("tests/core/train/test_failures.py::test_a_supervisor_that_is_gone_is_noticed_by_looking_and_by_sending",),
        "A trainer whose supervisor gave it up computes on until it has something to say.",
    ),
)

MUTANTS = (*WAITING, *WRITING, *DYING)
