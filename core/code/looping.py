"""The script's training loop, with what this job uses and nothing else."""

from core.code import judging, metrics
from core.code.job import Job
from core.code.layout import Page, indented, literal, quoted
from core.code.losses import has_penalty
from core.code.models import has_batch_norm, judged
from core.code.optimizing import after_epoch, after_update, is_by_step, is_validated_each_epoch, swa_lr

AUTOCAST = {"bf16-mixed": "torch.bfloat16", "16-mixed": "torch.float16"}
MEAN = '''def mean(losses, targets):
    """Return the mean over samples, in float64: a smaller last batch counts for less."""
    counts = torch.tensor([len(target) for target in targets], dtype=torch.float64)
    blocks = zip(torch.stack(losses).double().split(1024), counts.split(1024), strict=True)
    return float(sum(values @ weights for values, weights in blocks)) / float(counts.sum())'''


def loop(job: Job, page: Page) -> None:
    """Write the functions that measure, the loop over epochs, and what is left at its end."""
    page.use("math")
    metrics.metrics(job, page)
    page.add(*(MEAN.replace("dtype=torch.float64)", "dtype=torch.float64, device=device)")
               if job.is_on_gpu else MEAN).splitlines())  # fmt: skip
    _summary(job, page)
    if _evaluates(job):
        _evaluate(job, page)
    _refresh(job, page)
    _state(job, page)
    if job.judges_within_epochs:
        _judge(job, page)
    if job.spec.evaluate_at_start:
        lines = ["# Before the first update", 'row = evaluate(model, x_train_eval, y_train, "train")']
        lines += ['row |= evaluate(model, x_val, y_val, "val")'] if job.has("val") else []
        page.add(*lines, "show(0, row)")
    page.add("for epoch in range(1, EPOCHS + 1):", *indented(_epoch(job, page)))
    _finish(job, page)


def _evaluates(job: Job) -> bool:
    return job.has("val") or job.has("test") or job.spec.evaluate_at_start


def _summary(job: Job, page: Page) -> None:
    entries = '{"loss": mean(losses, targets), **metrics(torch.cat(outputs), torch.cat(targets))}'
    if not metrics.wanted(job):
        entries = '{"loss": mean(losses, targets)}'
    page.add(
        "def summary(name, losses, outputs, targets):",
        '    """Return loss and metrics of one pass over a set, such as `val_loss`."""',
        f"    row = {entries}",
        '    return {f"{name}_{key}": value for key, value in row.items()}',
    )
    page.add(
        "def show(epoch, row):",
        '    """Print the numbers of an epoch."""',
        '    numbers = [f"{name} {value:.6g}" for name, value in row.items() if isinstance(value, float)]',
        '    print(f"epoch {epoch:3d}  " + "  ".join(numbers))',
    )


def _evaluate(job: Job, page: Page) -> None:
    inputs = "x[rows].to(torch.bfloat16)" if job.spec.precision == "bf16-true" else "x[rows]"
    forward = [f"outputs.append(model({inputs}))", "losses.append(loss_fn(outputs[-1], y[rows]))"]
    page.add(
        "@torch.no_grad()",
        "def evaluate(model, x, y, name):",
        '    """Measure a model on a set, in order; batches may be larger, as no gradients are kept."""',
        "    was_training = model.training",
        "    model.eval()",
        "    losses, outputs, targets = [], [], []",
        "    size = max(BATCH_SIZE, min(4096, 2**20 // x[0].numel()))",
        "    for rows in torch.arange(len(x)).split(size):",
        *indented(_autocast(job, forward), 2),
        "        targets.append(y[rows])",
        "    model.train(was_training)",
        "    return summary(name, losses, outputs, targets)",
    )


def _autocast(job: Job, lines: list[str]) -> list[str]:
    dtype = AUTOCAST.get(job.spec.precision)
    if dtype is None:
        return lines
    device = "device.type" if job.is_on_gpu else '"cpu"'
    return [f"with torch.autocast({device}, dtype={dtype}):", *indented(lines)]


def _state(job: Job, page: Page) -> None:
    lines = judging.state(job)
    lines += ["step = 0  # optimizer updates"] if job.counts_steps else []
    lines += ["judged = model  # the average, once there is one"] if job.spec.swa else []
    lines += ["forward = torch.compile(model)"] if job.spec.compile is True else []
    page.add(*lines)


def _judge(job: Job, page: Page) -> None:
    page.add(
        "def judge(row):",
        '    """Look at the numbers that were just measured; return why to stop, None to go on."""',
        *_globals(job),
        *indented(judging.lines(job, page, lambda reason: f"return {quoted(reason)}")),
        "    return None",
    )


def _globals(job: Job) -> list[str]:
    names = judging.names(job)
    return [f"    global {', '.join(names)}"] if names else []


def _epoch(job: Job, page: Page) -> list[str]:
    lines = ["model.train()", "losses, outputs, targets = [], [], []"]
    lines += ["data_losses = []"] if has_penalty(job) else []
    lines += ["stop, val, validated = None, {}, None"] if job.judges_within_epochs else []
    lines += _order(job)
    lines += _batches(job)
    lines += _average_epoch(job)
    lines += _measured(job)
    if job.judges_within_epochs:
        lines += ["reason = judge({**fresh, **train})", "stop = stop or reason"]
    else:
        lines += judging.lines(job, page, lambda reason: f"break  # {reason}")
    lines += ['if not math.isfinite(row["train_loss"]):', '    raise SystemExit("the training loss is not finite")']
    if job.judges_within_epochs:
        lines += [f"if stop{_or_max_steps(job)}:", "    break"]
    elif job.spec.max_steps is not None:
        lines += ["if step == MAX_STEPS:", "    break"]
    return lines + after_epoch(job, page)


def _or_max_steps(job: Job) -> str:
    return " or step == MAX_STEPS" if job.spec.max_steps is not None else ""


def _order(job: Job) -> list[str]:
    device = ".to(device)" if job.is_on_gpu else ""
    if job.spec.shuffle:
        lines = [
            'generator = torch.Generator().manual_seed(derive("samples", epoch))',
            f"order = torch.randperm(len(x_train), generator=generator){device}",
        ]
    else:
        lines = [f"order = torch.arange(len(x_train)){device}"]
    if job.spec.drop_last:
        lines += ["order = order[: len(order) - len(order) % min(BATCH_SIZE, len(order))]"]
    return lines


def _batches(job: Job) -> list[str]:
    count = job.spec.accumulate_grad_batches
    if count == 1:
        head = "for batch, rows in enumerate(order.split(BATCH_SIZE)):" if job.is_augmented else None
        return [head or "for rows in order.split(BATCH_SIZE):", *indented([*_forward(job), *_update(job)])]
    batch = "for batch, rows in enumerate(group, first):" if job.is_augmented else "for rows in group:"
    group = _group_closure(job, batch) if is_lbfgs(job) else [batch, *indented(_forward(job))]
    return [
        "batches = order.split(BATCH_SIZE)",
        f"for first in range(0, len(batches), {count}):",
        f"    group = batches[first : first + {count}]  # one update for all of these",
        "    samples = sum(len(rows) for rows in group)",
        *indented([*group, *_update(job)]),
    ]


def is_lbfgs(job: Job) -> bool:
    """Whether the optimizer evaluates the loss by itself."""
    return job.spec.optimizer.type == "LBFGS"


def _forward(job: Job) -> list[str]:
    """Return the lines from a batch's rows to its gradients."""
    if is_lbfgs(job):
        return [*_taken(job), *_closure(job, _loss(job))]
    return [*_taken(job), *_loss(job), f"{_share(job)}.backward()", *_recorded(job)]


def _taken(job: Job) -> list[str]:
    """Return the lines from a batch's rows to what the model takes."""
    lines = ["inputs, target = x_train[rows], y_train[rows]"]
    lines += ["inputs = augment(inputs, epoch, batch)"] if job.is_augmented else []
    return lines + (["inputs = inputs.to(torch.bfloat16)"] if job.spec.precision == "bf16-true" else [])


def _loss(job: Job) -> list[str]:
    model = "forward" if job.spec.compile is True else "model"
    name = "data_loss" if has_penalty(job) else "loss"
    lines = _autocast(job, [f"output = {model}(inputs)", f"{name} = loss_fn(output, target)"])
    return lines + (["loss = data_loss + penalty()"] if has_penalty(job) else [])


def _share(job: Job) -> str:
    share = "loss" if job.spec.accumulate_grad_batches == 1 else "(loss * (len(rows) / samples))"
    return f"scaler.scale({share})" if job.spec.precision == "16-mixed" else share


def _recorded(job: Job) -> list[str]:
    lines = ["losses.append(loss.detach())"]
    lines += ["data_losses.append(data_loss.detach())"] if has_penalty(job) else []
    lines += ["outputs.append(output.detach())"]
    return [*lines, "targets.append(target)"]


def _closure(job: Job, forward: list[str]) -> list[str]:
    kept = (
        "(loss.detach(), data_loss.detach(), output.detach())"
        if has_penalty(job)
        else "(loss.detach(), output.detach())"
    )
    names = "loss, data_loss, output" if has_penalty(job) else "loss, output"
    return [
        "looks = []",
        "",
        "def closure(inputs=inputs, target=target, looks=looks):",
        '    """Evaluate the loss once more, as LBFGS asks for it."""',
        "    optimizer.zero_grad()",
        *indented(
            [*forward, "loss.backward()", *_clipped(job), f"looks.append({kept})", "return float(loss.detach())"]
        ),
        "",
        "optimizer.step(closure)",
        f"{names} = looks[0]",
        *_recorded(job),
    ]


def _group_closure(job: Job, batch: str) -> list[str]:
    """Return the lines of an LBFGS update on several batches, each weighted by its share of the samples."""
    kept = "(loss.detach(), data_loss.detach(), output.detach(), target)"
    names = "loss, data_loss, output, target"
    if not has_penalty(job):
        kept, names = (words.replace(" data_loss.detach(),", "").replace(" data_loss,", "") for words in (kept, names))
    return [
        "looks = []",
        "",
        "def closure(group=group, first=first, samples=samples, looks=looks):"
        if job.is_augmented
        else "def closure(group=group, samples=samples, looks=looks):",
        '    """Evaluate the loss once more, as LBFGS asks for it."""',
        "    optimizer.zero_grad()",
        "    total = 0.0",
        f"    {batch}",
        *indented([*_taken(job), *_loss(job), "share = loss * (len(rows) / samples)", "share.backward()"], 2),
        "        total += share.detach()",
        f"        looks.append({kept})",
        *indented(_clipped(job)),
        "    return float(total)",
        "",
        "optimizer.step(closure)",
        f"for {names} in looks[: len(group)]:",
        *indented(_recorded(job)),
    ]


def _clipped(job: Job) -> list[str]:
    clipping = job.spec.gradient_clipping
    if clipping is None:
        return []
    if clipping.clip_value is not None:
        return [f"nn.utils.clip_grad_value_(model.parameters(), {literal(clipping.clip_value)})"]
    norm = "" if clipping.norm_type == 2.0 else f", norm_type={literal(clipping.norm_type)}"
    return [f"nn.utils.clip_grad_norm_(model.parameters(), {literal(clipping.max_norm)}{norm})"]


def _update(job: Job) -> list[str]:
    """Return the lines of one optimizer update and what follows it."""
    if is_lbfgs(job):
        lines = ["optimizer.zero_grad()"]
    elif job.spec.precision == "16-mixed":
        unscaled = ["scaler.unscale_(optimizer)", *_clipped(job)] if job.spec.gradient_clipping else []
        lines = [*unscaled, "scaler.step(optimizer)", "scaler.update()", "optimizer.zero_grad()"]
    else:
        lines = [*_clipped(job), "optimizer.step()", "optimizer.zero_grad()"]
    lines += ["step += 1"] if job.counts_steps else []
    lines += after_update(job)
    lines += ["average.update_parameters(model)"] if job.spec.ema else []
    if job.judges_within_epochs:
        lines += [
            f"if step % {job.spec.validate_every.steps} == 0:",
            f'    val, validated = evaluate({judged(job)}, x_val, y_val, "val"), step',
            "    stop = judge(val)",
            f"if stop{_or_max_steps(job)}:",
            "    break",
        ]
    elif job.spec.max_steps is not None:
        lines += ["if step == MAX_STEPS:", "    break"]
    return lines


def _average_epoch(job: Job) -> list[str]:
    swa = job.spec.swa
    if swa is None:
        return []
    lines = ["average.update_parameters(model)"]
    if has_batch_norm(job):
        lines += ["refresh(average.module)"]
    return [f"if epoch >= {swa.start_epoch}:", *indented([*lines, "judged = average.module"])]


REFRESH = '''def refresh(model):
    """Give averaged weights BatchNorm statistics of their own: the mean over the training set."""
    norms = nn.modules.batchnorm._BatchNorm
    layers = [layer for layer in model.modules() if isinstance(layer, norms)]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    size = max(BATCH_SIZE, min(4096, 2**20 // x_train_eval[0].numel()))
    with torch.no_grad():
        for rows in torch.arange(len(x_train_eval)).split(size):
            model(x_train_eval[rows])
    model.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum'''


def _refresh(job: Job, page: Page) -> None:
    """Write what measures BatchNorm's statistics anew, where weights are averaged."""
    if job.spec.swa is not None and has_batch_norm(job):
        page.add(*REFRESH.splitlines())


def _measured(job: Job) -> list[str]:
    """Return the lines that make and show the row of the epoch."""
    train = 'summary("train", losses, outputs, targets)'
    name = "train" if job.judges_within_epochs else "row"
    terms = [
        f'{name}["train_data_loss"] = mean(data_losses, targets)',
        f'{name}["train_penalty"] = {name}["train_loss"] - {name}["train_data_loss"]',
    ]
    terms = terms if has_penalty(job) else []
    val = f'evaluate({judged(job)}, x_val, y_val, "val")'
    if job.judges_within_epochs:
        lines = [
            f"train, fresh = {train}, {{}}",
            *terms,
            f"if validated != step and (stop{_or_max_steps(job)} or epoch == EPOCHS):",
            f"    val = fresh = {val}",
            "row = {**train, **val}",
        ]
    else:
        lines = [f"row = {train}", *terms]
        if job.has("val"):
            lines += [f"row |= {val}"] if is_validated_each_epoch(job) else [f"if {_is_due(job)}:", f"    row |= {val}"]
    return [*lines, *_lr(job), "show(epoch, row)"]


def _is_due(job: Job) -> str:
    if job.spec.max_steps is not None:
        return f"epoch % {job.spec.validate_every.epochs} == 0 or epoch == EPOCHS or step == MAX_STEPS"
    return f"epoch % {job.spec.validate_every.epochs} == 0 or epoch == EPOCHS"


def _lr(job: Job) -> list[str]:
    if job.spec.lr_scheduler is None and swa_lr(job) is None:
        return []
    if not is_by_step(job):
        return ['row["lr"] = optimizer.param_groups[0]["lr"]']
    if swa_lr(job) is not None and job.spec.swa is not None:
        group = 'optimizer.param_groups[0]["lr"]'
        return [f'row["lr"] = lr if epoch < {job.spec.swa.start_epoch} else {group}']
    return ['row["lr"] = lr']


def _finish(job: Job, page: Page) -> None:
    name = judged(job)
    lines: list[str] = []
    if judging.keeps_best(job):
        page.use("copy")
        lines += [
            "# The result is the weights of the best epoch, not of the last.",
            f"{name}.load_state_dict(best_weights)",
            f'print(f"best epoch {{best_epoch}}  {judging.monitor(job)} {{best:.6g}}")',
        ]
    for matrix in metrics.matrices(job):
        if job.has("val"):
            lines += [f'print(row.get("val_{matrix}"))']
    if job.has("test"):
        lines += [f'test_row = evaluate({name}, x_test, y_test, "test")',
                  'print("  ".join(f"{name} {value}" for name, value in test_row.items()))']  # fmt: skip
    page.add(*lines, f'torch.save({name}.state_dict(), "model.pt")')
