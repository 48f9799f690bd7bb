"""Defects of what a trainer leaves on disk and takes up again."""

from tests.mutants.mutant import Mutant

TRAINER, CHECKPOINT, JOURNAL = "core/train/trainer.py", "core/train/checkpoint.py", "core/train/journal.py"
RUN, DIGESTS = "core/train/run.py", "core/digests.py"
CHECKED = "tests/core/train/test_checkpoint.py"
DURABLE = "tests/core/train/test_durable.py"
BESIDE = "tests/core/train/test_journal.py"
STOPPED = "tests/core/train/test_resume.py::test_stopped_at_any_step_the_bits_are_those_of_an_undisturbed_run[5]"
EVERY_STEP = "tests/core/train/test_resume.py::test_stopped_at_every_step_the_bits_are_those_of_an_undisturbed_run"
VALIDATED = "tests/core/train/test_stopped.py::test_what_was_validated_before_the_stop_stands_in_the_row"
VARIETY = "tests/core/train/test_resume_varieties.py::test_every_kind_of_state_is_resumed"
GENERATORS = "tests/core/train/test_numerics.py::test_all_generators_go_on_where_they_were"
OTHER_BITS = "A resumed job ends with other weights than an undisturbed one."

WRITTEN = (
    Mutant(
        "told-before-it-is-durable",
        CHECKPOINT,
        "            digest = write_durably(path, data)\n",
        "            digest = digests.of_checkpoint(data)\n"
        '            __import__("threading").Timer(0.05, write_durably, (path, bytes(data))).start()\n',
        (f"{DURABLE}::test_rows_are_told_with_a_checkpoint_that_can_be_read_already",),
        "An epoch is published before its checkpoint: a crash in between leaves rows that cannot be resumed from.",
    ),
    Mutant(
        "checkpoint-written-in-place",
        CHECKPOINT,
        'temporary = path.with_name(f".{path.name}.tmp")',
        "temporary = path",
        (f"{DURABLE}::test_end_before_the_rename_leaves_the_file_as_it_was[checkpoint.written]",),
        "A crash while saving leaves half a checkpoint in the place of a whole one.",
    ),
    Mutant(
        "checkpoint-not-synced",
        CHECKPOINT,
        "            os.fsync(file.fileno())\n",
        "",
        (f"{DURABLE}::test_bytes_then_name_then_folder_are_made_durable",),
        "After a power cut the name is there and the bytes are not.",
    ),
    Mutant(
        "folder-not-synced",
        CHECKPOINT,
        "        os.fsync(folder)\n",
        "        pass\n",
        (f"{DURABLE}::test_bytes_then_name_then_folder_are_made_durable",),
        "After a power cut the checkpoint that the database names is not there.",
    ),
    Mutant(
        "checkpoint-digest-not-checked",
        CHECKPOINT,
        "        if found == digest:\n",
        "        if found:\n",
        (f"{CHECKED}::test_a_damaged_checkpoint_falls_back_to_the_one_before[flipped]",),
        "Training goes on from flipped bits.",
    ),
    Mutant(
        "sha256-of-checkpoints-forgotten",
        DIGESTS,
        "blake3() if prefix == BLAKE3 else hashlib.sha256()",
        "blake3()",
        (f"{CHECKED}::test_checkpoint_of_an_older_version_is_checked_by_its_sha256[sound]",),
        "After an update every job ends with checkpoint_invalid.",
    ),
    Mutant(
        "newer-digest-is-damage",
        DIGESTS,
        'if prefix not in ("", BLAKE3):',
        "if prefix is None:",
        (f"{CHECKED}::test_digest_that_only_a_newer_version_knows_is_no_damage_and_names_who_is_too_old",),
        "A program that is too old computes epochs again and points to damaged disks.",
    ),
    Mutant(
        "one-checkpoint-kept",
        CHECKPOINT,
        "KEPT = 2\n",
        "KEPT = 1\n",
        (f"{CHECKED}::test_the_last_two_are_kept_and_no_temporary_file_stays",),
        "There is nothing to fall back to.",
    ),
    Mutant(
        "known-rows-sent-again",
        JOURNAL,
        'if row["epoch"] > self.known_epochs:',
        'if row["epoch"] > 0:',
        ("tests/core/train/test_resume.py::test_epochs_that_are_known_already_are_computed_again_but_not_sent",),
        "A job that falls back to an older checkpoint is refused its own rows.",
    ),
    Mutant(
        "pointer-goes-back",
        JOURNAL,
        "        if epoch < self.known_epochs:\n            return\n",
        "",
        ("tests/core/train/test_resume.py::test_epochs_that_are_known_already_are_computed_again_but_not_sent",),
        "The newest checkpoint is older than the newest row.",
    ),
    Mutant(
        "stopped-without-a-checkpoint",
        RUN,
        '(reason != "cancel" or trainer.journal.rows):\n            trainer.save()\n',
        '(reason != "cancel" or trainer.journal.rows):\n            pass\n',
        ("tests/core/train/test_stopped.py::test_stop_between_checkpoints_saves_where_training_stands",),
        "Pause and drain throw away the epoch that runs, and the rows that waited.",
    ),
    Mutant(
        "copied-while-it-changes",
        JOURNAL,
        "        write = self.store.take(state, epoch=epoch, step=progress.step)\n",
        "        write = lambda: self.store.take(state, epoch=epoch, step=progress.step)()\n",
        (f"{BESIDE}::test_training_goes_on_while_a_checkpoint_is_written_and_its_rows_are_told_after_it",),
        "A checkpoint holds weights of the next epoch, some of them half-way through an update.",
    ),
    Mutant(
        "copied-over-the-one-before",
        JOURNAL,
        "        self.settle()\n        write = ",
        "        write = ",
        (f"{BESIDE}::test_checkpoint_after_every_epoch_waits_for_the_one_before",),
        "Two checkpoints are mixed into one file, which has a digest that fits.",
    ),
    Mutant(
        "failed-save-forgotten",
        "core/train/beside.py",
        "            work.result()\n",
        "            work.exception()\n",
        (f"{BESIDE}::test_full_disk_is_told_as_such_and_nothing_is_published[training goes on-1]",),
        "A job ends well on a full disk, and its last epochs are not there.",
    ),
    Mutant(
        "failed-save-seen-at-the-end-only",
        "core/train/beside.py",
        "        if self._work is not None and self._work.done():\n            self.wait()\n",
        "        return\n",
        (f"{BESIDE}::test_what_goes_wrong_beside_the_training_is_raised_in_it_once",),
        "A job computes on for hours on a full disk.",
    ),
    Mutant(
        "last-word-before-the-last-rows",
        RUN,
        "        self._settle()\n        return Stopped(",
        "        return Stopped(",
        (f"{BESIDE}::test_last_word_of_a_stop_follows_the_rows_that_are_being_published[cancel]",),
        "A job that is cancelled ends while epochs of it are on their way, and they are lost.",
    ),
    Mutant(
        "failure-told-before-the-last-rows",
        RUN,
        "        try:\n            self._settle()\n",
        "        try:\n            pass\n",
        (f"{BESIDE}::test_last_word_of_a_failure_follows_the_rows_that_are_being_published",),
        "A job that fails loses an epoch that is finished, or says another reason than the first.",
    ),
)


def _not_restored(what: str, line: str, *killers: str, file: str = TRAINER, instead: str = "") -> Mutant:
    """Return the defect of a state that is saved and not loaded; of a call only its arguments are left."""
    if line.endswith("("):
        instead = f"{line[: -len(line.lstrip())]}_ = ("
    return Mutant(f"{what}-not-restored", file, line, instead, killers or (STOPPED,), OTHER_BITS)


RESTORED = (
    _not_restored("model", "        self.model.load_state_dict("),
    _not_restored("optimizer", "        self.updater.load_optimizer("),
    _not_restored("scheduler", "        self.schedule.load_state_dict("),
    _not_restored("sums-of-the-epoch", "        self.updater.load_state_dict("),
    _not_restored(
        "average",
        "        if self.average is not None:\n            self.average.load_state_dict",
        instead="        if self.average is not None and False:\n            self.average.load_state_dict",
    ),
    _not_restored("judge", "        self.judge.load_state_dict("),
    _not_restored("position", '        self.at = Position(**state["position"])\n'),
    _not_restored("validation", '        self.val_metrics = state["val_metrics"]\n', f"{VALIDATED}[4]"),
    _not_restored("rng", "        set_rng_state("),
    _not_restored(
        "torch-rng", '    torch.set_rng_state(state["torch"].cpu())\n', GENERATORS, STOPPED, file="core/train/rng.py"
    ),
    _not_restored(
        "python-rng",
        "    random.setstate((version, tuple(internal), gauss_next))\n",
        GENERATORS,
        file="core/train/rng.py",
    ),
    _not_restored(
        "numpy-rng",
        '    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), place, has_gauss, gauss))\n',
        GENERATORS,
        file="core/train/rng.py",
    ),
    _not_restored(
        "place-in-the-epoch",
        "self.train.epoch(self.at.epoch + 1, self.at.batch)",
        instead="self.train.epoch(self.at.epoch + 1)",
    ),
    _not_restored(
        "order-of-the-samples",
        'torch.randperm(len(self.split), generator=generator(self.seed, "samples", epoch))',
        file="core/train/data.py",
        instead="torch.randperm(len(self.split))",
    ),
    _not_restored(
        "equal-average",
        '        self.updates = state["updates"]\n',
        f"{VARIETY}[equal average with a rate of its own]",
        file="core/train/averaging.py",
    ),
    _not_restored(
        "rate-of-swa",
        '        if state["is_swa"] and self.swa is not None:\n            self._begin_swa(self.swa[1])\n',
        "tests/core/train/test_schedule.py::test_rates_before_and_within_swa_go_on_where_they_were",
        file="core/train/schedule.py",
    ),
    _not_restored(
        "loss-scale",
        '        if self.scaler:\n            self.scaler.load_state_dict(state["scaler"])\n',
        f"{VARIETY}[loss scale of 16-mixed]",
        file="core/train/updating.py",
    ),
    _not_restored(
        "early-stopping",
        "            self.stopper.load_state_dict(",
        EVERY_STEP,
        file="core/train/judging.py",
    ),
    _not_restored(
        "best-weights",
        "        self.best.load_state_dict(",
        "tests/core/train/test_stopped.py::test_best_weights_of_an_earlier_attempt_stay_the_best",
        file="core/train/judging.py",
    ),
    _not_restored(
        "kept-weights",
        "        self.shelf.load_state_dict(",
        "tests/core/train/test_keeping.py::test_a_killed_job_leaves_the_weights_of_an_undisturbed_one",
        file="core/train/judging.py",
    ),
    _not_restored(
        "decisions-of-the-epoch",
        '        self.decisions = list(state["decisions"])\n',
        f"{VALIDATED}[4]",
        file="core/train/judging.py",
    ),
    _not_restored(
        "history-of-converged",
        "        self.rules.load_state_dict(",
        f"{VARIETY}[history of converged]",
        file="core/train/judging.py",
    ),
)

MUTANTS = (*WRITTEN, *RESTORED)
