"""The script's optimizer and learning-rate schedule."""

from typing import Any

from core.code.job import Job, arguments_of
from core.code.layout import Call, Page, Raw, quoted, tupled, written
from core.spec import component
from core.spec.job import Component

NESTING = ("SequentialLR", "ChainedScheduler")
OURS = ("interval", "monitor")


def optimizer(job: Job, page: Page) -> None:
    """Write `optimizer`, and `scheduler` where there is one."""
    part = job.spec.optimizer
    given = {name: tupled(value) for name, value in arguments_of("optimizers", part, without=("param_groups",)).items()}
    groups = part.arguments.get("param_groups") or ()
    lines: list[str] = []
    if groups:
        page.use("re")
        lines, weights = _groups(groups)
    elif job.spec.model.arguments.get("freeze"):
        weights = "[weight for weight in model.parameters() if weight.requires_grad]"
    else:
        weights = "model.parameters()"
    lines += written("optimizer = ", Call(f"torch.optim.{part.type}", (Raw(weights),), given))
    if job.spec.lr_scheduler is not None:
        lines += written("scheduler = ", _scheduler(job.spec.lr_scheduler, page))
    if job.spec.precision == "16-mixed":
        lines += [f"scaler = torch.amp.GradScaler({'device.type' if job.is_on_gpu else quoted('cpu')})"]
    if swa_lr(job) is not None and job.spec.swa and job.spec.swa.start_epoch == 1:
        lines += _swa(job, page)
    page.add(*lines)


def _groups(groups: Any) -> tuple[list[str], str]:
    """Write parameter groups: a weight belongs to the first whose pattern its name matches."""
    lines = [
        "# Weights with arguments of their own, by name; the others come first",
        "left = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}",
    ]
    names: list[str] = []
    for number, group in enumerate(groups, 1):
        name = f"group_{number}"
        own = {key: tupled(value) for key, value in group.items() if key != "match"}
        matching = f"[left.pop(name) for name in list(left) if re.search({quoted(group['match'])}, name)]"
        lines += written(f"{name} = ", {"params": Raw(matching), **own})
        names.append(name)
    lines += ['others = [{"params": list(left.values())}] if left else []']
    return lines, f"[*others, {', '.join(names)}]"


def _scheduler(part: Component, page: Page) -> Call:
    page.use("torch.optim.lr_scheduler", part.type)
    if part.type in NESTING:
        children = [_scheduler(component(item), page) for item in part.arguments["schedulers"]]
        if part.type == "ChainedScheduler":
            return Call(part.type, (children,), {"optimizer": Raw("optimizer")})
        milestones = {"milestones": list(part.arguments["milestones"])}
        return Call(part.type, (Raw("optimizer"), children), milestones)
    given = arguments_of("lr_schedulers", part, without=OURS)
    return Call(part.type, (Raw("optimizer"),), {name: tupled(value) for name, value in given.items()})


def swa_lr(job: Job) -> float | None:
    """Return the learning rate of averaging, where it has one of its own."""
    return job.spec.swa.lr if job.spec.swa else None


def _swa(job: Job, page: Page) -> list[str]:
    page.use("torch.optim.swa_utils", "SWALR")
    return written("scheduler = ", Call("SWALR", (Raw("optimizer"),), {"swa_lr": swa_lr(job)}))


def is_by_step(job: Job) -> bool:
    """Whether the schedule follows updates, not epochs."""
    part = job.spec.lr_scheduler
    return part is not None and part.arguments.get("interval") == "step" and not _is_swa_from_the_start(job)


def _is_swa_from_the_start(job: Job) -> bool:
    return swa_lr(job) is not None and job.spec.swa is not None and job.spec.swa.start_epoch == 1


def after_update(job: Job) -> list[str]:
    """Return the lines of the schedule after an update."""
    if not is_by_step(job):
        return []
    lines = ['lr = optimizer.param_groups[0]["lr"]  # that this update used', "scheduler.step()"]
    if swa_lr(job) is None or job.spec.swa is None:
        return lines
    return [lines[0], f"if epoch < {job.spec.swa.start_epoch}:", f"    {lines[1]}"]


def after_epoch(job: Job, page: Page) -> list[str]:
    """Return the lines of the schedule after an epoch."""
    swa, part = job.spec.swa, job.spec.lr_scheduler
    if swa is None or swa_lr(job) is None:
        return _own_step(job)
    if swa.start_epoch == 1:
        return ["scheduler.step()"]
    own = _own_step(job) if part is not None else []
    if own == ["scheduler.step()"]:
        lines = own
    else:
        lines = [f"if epoch >= {swa.start_epoch}:", "    scheduler.step()"]
        lines += ["else:", *(f"    {line}" for line in own)] if own else []
    return [*lines, f"if epoch == {swa.start_epoch - 1}:", *(f"    {line}" for line in _swa(job, page))]


def _own_step(job: Job) -> list[str]:
    part = job.spec.lr_scheduler
    if part is None or (is_by_step(job) and part.type != "ReduceLROnPlateau"):
        return []
    if part.type != "ReduceLROnPlateau":
        return ["scheduler.step()"]
    monitor = part.arguments.get("monitor", "val_loss" if job.has("val") else "train_loss")
    early = job.spec.early_stopping
    lines = [f"scheduler.step(row[{quoted(monitor)}])"]
    if early is not None and early.cooldown:
        rates = '[group["lr"] for group in optimizer.param_groups]'
        lines = ["# A smaller rate needs time to show", f"rates = {rates}", *lines, f"if {rates} != rates:",
                 f"    cooldown, wait = {early.cooldown}, 0"]  # fmt: skip
    if monitor.startswith("val_") and not is_validated_each_epoch(job):
        return [f"if {quoted(monitor)} in row:", *(f"    {line}" for line in lines)]
    return lines


def is_validated_each_epoch(job: Job) -> bool:
    """Whether every epoch's row has the numbers of the validation set."""
    return job.spec.validate_every.epochs == 1
