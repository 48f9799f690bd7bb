"""The script's judgement of an epoch: the best weights, early stopping, good enough."""

from collections.abc import Callable

from core.code.job import Job
from core.code.layout import Page, literal, quoted
from core.code.models import judged
from core.code.optimizing import is_validated_each_epoch
from core.spec.job import EarlyStopping, StopWhen

Stop = Callable[[str], str]
"""Gives the line that ends training for a reason."""


def monitor(job: Job) -> str:
    """Return the metric by which the best weights are chosen."""
    early = job.spec.early_stopping
    return early.monitor if early else "val_loss" if job.has("val") else "train_loss"


def keeps_best(job: Job) -> bool:
    """Whether the best weights are what the job returns."""
    early = job.spec.early_stopping
    return early is None or early.restore_best


def mode(job: Job) -> str:
    """Return whether less (`min`) or more (`max`) of the monitor is better."""
    early = job.spec.early_stopping
    return (early.mode if early else None) or "min"


def state(job: Job) -> list[str]:
    """Return the lines that set up what judging remembers."""
    early = job.spec.early_stopping
    start = "-math.inf" if mode(job) == "max" else "math.inf"
    lines: list[str] = []
    if early is not None or keeps_best(job):
        lines.append(f"best, best_epoch{', best_weights' if keeps_best(job) else ''} = {start}, 0"
                     + (", None" if keeps_best(job) else ""))  # fmt: skip
    if early is not None:
        lines.append("wait = 0  # checks without improvement")
        lines += ["cooldown = 0  # checks that do not count after a smaller learning rate"] if early.cooldown else []
        if early.baseline is not None:
            lines.append(f"is_beaten = False  # the baseline, {literal(early.baseline)}")
    for number, rule in enumerate(rules(job), 1):
        lines += [f"history_{number} = []"] if rule.converged else []
    return lines


def names(job: Job) -> list[str]:
    """Return the variables that judging changes."""
    return [name.strip() for line in state(job) for name in line.split(" = ")[0].split(",")]


def rules(job: Job) -> list[StopWhen]:
    """Return the conditions of `stop_when`."""
    found = job.spec.stop_when
    return [] if found is None else list(found) if isinstance(found, tuple) else [found]


def lines(job: Job, page: Page, stop: Stop) -> list[str]:
    """Return the lines that look at `row`, the numbers that were just measured."""
    if job.spec.early_stopping is not None:
        made = _guarded(job, monitor(job), _early(job, job.spec.early_stopping, page, stop))
    else:
        value = f"row[{quoted(monitor(job))}]"
        made = _guarded(job, monitor(job), [f"if {value} < best:", *_keep(job, value)])
    for number, rule in enumerate(rules(job), 1):
        made += _guarded(job, rule.monitor, _rule(rule, number, stop))
    return made


def _guarded(job: Job, name: str, inner: list[str]) -> list[str]:
    """Look only where the number was just measured."""
    is_always = not job.judges_within_epochs and (not name.startswith("val_") or is_validated_each_epoch(job))
    return inner if is_always else [f"if {quoted(name)} in row:", *(f"    {line}" for line in inner)]


def _keep(job: Job, value: str) -> list[str]:
    kept = [f"    best, best_epoch = {value}, epoch"]
    if keeps_best(job):
        kept.append(f"    best_weights = copy.deepcopy({judged(job)}.state_dict())")
    return kept


def _early(job: Job, early: EarlyStopping, page: Page, stop: Stop) -> list[str]:
    page.use("math")
    value = f"row[{quoted(early.monitor)}]"
    better, worse = ("<", ">") if mode(job) == "min" else (">", "<")
    made = _ends_at_once(early, value, worse, stop)
    improved = f"{value} {better} {_required(early, better)}"
    if early.min_delta and early.min_delta_mode == "rel":
        improved = f"best_epoch == 0 or {improved}"
    if not early.check_finite:
        improved = (
            f"math.isfinite({value}) and ({improved})"
            if " or " in improved
            else f"math.isfinite({value}) and {improved}"
        )
    if not _is_special(early):
        reset = [f"    best, best_epoch, wait = {value}, epoch, 0", *_keep(job, value)[1:]]
        if early.stopping_threshold is not None:
            reached = [f"if {_reached(early, value, better)}:", f"    {stop('stopping_threshold')}"]
            return [*made, f"is_better = {improved}", "if is_better:", *reset, *reached,
                    "if not is_better:", *_counted(early, stop)]  # fmt: skip
        return [*made, f"if {improved}:", *reset, "else:", *_counted(early, stop)]
    return [
        *made,
        f"is_better = {improved}",
        "if is_better:",
        *_keep(job, value),
        *_special(early, value, better, stop),
    ]


def _ends_at_once(early: EarlyStopping, value: str, worse: str, stop: Stop) -> list[str]:
    made: list[str] = []
    if early.check_finite:
        made += [f"if not math.isfinite({value}):", f"    {stop('early_stopping')}"]
    if early.divergence_threshold is not None:
        made += [f"if {value} {worse} {literal(early.divergence_threshold)}:",
                 f'    raise SystemExit("{early.monitor} diverged")']  # fmt: skip
    return made


def _required(early: EarlyStopping, better: str) -> str:
    """Return what the next value must be strictly better than."""
    if not early.min_delta:
        return "best"
    sign = "-" if better == "<" else "+"
    scale = " * abs(best)" if early.min_delta_mode == "rel" else ""
    return f"best {sign} {literal(early.min_delta)}{scale}"


def _is_special(early: EarlyStopping) -> bool:
    return bool(early.cooldown or early.start_from_epoch or early.baseline is not None)


def _reached(early: EarlyStopping, value: str, better: str) -> str:
    test = f"{value} {better}= {literal(early.stopping_threshold)}"
    return test if early.check_finite else f"math.isfinite({value}) and {test}"


def _counted(early: EarlyStopping, stop: Stop) -> list[str]:
    return ["    wait += 1", f"    if wait >= {early.patience}:", f"        {stop('early_stopping')}"]


def _special(early: EarlyStopping, value: str, better: str, stop: Stop) -> list[str]:
    made: list[str] = []
    if early.stopping_threshold is not None:
        made += [f"if {_reached(early, value, better)}:", f"    {stop('stopping_threshold')}"]
    condition = "is_better"
    if early.baseline is not None:
        made += [f"is_beaten = is_beaten or (is_better and {value} {better} {literal(early.baseline)})"]
        condition = "is_better and is_beaten"
    made += [f"if {condition}:", "    wait = 0"]
    if early.cooldown:
        made += ["    cooldown = max(0, cooldown - 1)", "elif cooldown:", "    cooldown, wait = cooldown - 1, 0"]
    counts = f"elif epoch >= {early.start_from_epoch}:" if early.start_from_epoch else "else:"
    return [*made, counts, *_counted(early, stop)]


def _rule(rule: StopWhen, number: int, stop: Stop) -> list[str]:
    value = f"row[{quoted(rule.monitor)}]"
    made: list[str] = []
    tests = [f"{value} {sign} {literal(limit)}" for sign, limit in (("<", rule.below), (">", rule.above))
             if limit is not None]  # fmt: skip
    if tests:
        made += [f"if {' or '.join(tests)}:", f"    {stop('stopping_threshold')}"]
    if rule.converged is None:
        return made
    name, window = f"history_{number}", rule.converged.window
    moved = f"max({name}) - min({name}) < {literal(rule.converged.tolerance)}"
    return [
        *made,
        f"{name} = [*{name}, {value}][-{window}:]",
        f"if len({name}) == {window} and {moved}:",
        f"    {stop('converged')}",
    ]
