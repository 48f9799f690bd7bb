"""The script's metrics: each one that the job measures, as its formula."""

from core.code.job import Job
from core.code.layout import Page, quoted
from core.code.losses import is_balanced
from core.code.preprocessing import own_units, target_scalers
from core.spec.job import Component
from core.spec.scores import named

BY_CLASS = ("precision", "recall", "f1")
FOR_NUMBERS = ("mae", "mse", "rmse", "r2")
FORMULAS = {
    "precision": "right / predicted.clamp(min=1)",
    "recall": "right / actual.clamp(min=1)",
    "f1": "2 * right / (predicted + actual).clamp(min=1)",
}
AUROC = '''def area_under_roc(scores, positive):
    """Return the area under the ROC curve by the rank sum; ties share their mean rank."""
    _, inverse, counts = scores.unique(sorted=True, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]
    ones = float(positive.sum())
    zeros = len(scores) - ones
    if not ones or not zeros:
        return math.nan
    return (float(ranks[positive].sum()) - ones * (ones + 1) / 2) / (ones * zeros)'''


def wanted(job: Job) -> dict[str, Component]:
    """Return the metrics by name."""
    return named(job.spec.metrics or ())


def metrics(job: Job, page: Page) -> None:
    """Write `metrics(output, target)`, which returns them by name."""
    found = wanted(job)
    kinds = {part.type for part in found.values()}
    if not found:
        return
    if kinds & {"auroc"}:
        page.use("math")
        page.add(*AUROC.splitlines())
    lines = _regression(job) if job.task == "regression" else _classes(job, kinds)
    entries: list[str] = []
    for name, part in found.items():
        before, value = _metric(job, name, part)
        lines += before
        entries.append(f"{quoted(name)}: {value}")
    flat = f"    return {{{', '.join(entries)}}}"
    made = [flat] if len(flat) <= 100 else ["    return {", *(f"        {entry}," for entry in entries), "    }"]
    page.add(
        "def metrics(output, target):",
        '    """Return the metrics over all samples of a set."""',
        *(f"    {line}" for line in lines),
        *made,
    )


def needs_classes(job: Job) -> bool:
    """Whether the number of classes must be known."""
    kinds = {part.type for part in wanted(job).values()}
    is_counted = job.task != "multilabel" and bool(kinds & {*BY_CLASS, "confusion_matrix"})
    return is_counted or is_balanced(job)


def _regression(job: Job) -> list[str]:
    lines = ["output = output.double().reshape(len(output), -1)", "target = target.double().reshape(output.shape)"]
    if target_scalers(job):
        device = (".cpu()", ".to(device)") if job.is_on_gpu else ("", "")
        for name in ("output", "target"):
            made = own_units(job).replace("values.numpy()", f"{name}{device[0]}.numpy()")
            lines.append(f"{name} = torch.from_numpy({made}){device[1]}")
    return lines


def _classes(job: Job, kinds: set[str]) -> list[str]:
    is_probability = any(term.type == "BCELoss" for term in job.losses)
    is_labelled = bool(kinds - {"auroc", "log_loss"})
    if job.task == "classification":
        is_soft = any(term.type == "CrossEntropyLoss" for term in job.losses) and job.spec.data.train.type == "dataset"
        lines = ["output = output.float()"] if job.spec.precision != "32-true" else []
        lines += ["target = target.argmax(dim=1) if target.ndim == 2 else target"] if is_soft else []
        return lines + (["predicted = output.argmax(dim=1)"] if is_labelled else [])
    probability = "output.float()" if is_probability else "output.float().sigmoid()"
    shape = ".reshape(-1)" if job.task == "binary" else ""
    lines = [f"output, target = {probability}{shape}, target{shape}.long()"]
    return lines + (["predicted = (output > 0.5).long()"] if is_labelled else [])


def _metric(job: Job, name: str, part: Component) -> tuple[list[str], str]:
    """Return the lines before, and the expression of one metric."""
    if part.type in BY_CLASS:
        return _by_class(job, name, part)
    if part.type in FOR_NUMBERS:
        return _error(part.type)
    return {"accuracy": _accuracy, "confusion_matrix": _matrix, "log_loss": _log_loss, "auroc": _auroc}[part.type](
        job, part
    )


def _error(kind: str) -> tuple[list[str], str]:
    if kind == "r2":
        return _r2(), "float(r2.mean())"
    error = "(output - target).abs()" if kind == "mae" else "(output - target).square()"
    mean = f"({error}.sum(dim=0) / len(target))"
    return [], f"float({mean}{'.sqrt()' if kind == 'rmse' else ''}.mean())"


def _matrix(_job: Job, _part: Component) -> tuple[list[str], str]:
    pairs = "torch.bincount(target * classes + predicted, minlength=classes**2)"
    return [f"counts = {pairs}"], "counts.reshape(classes, classes).tolist()"


def _accuracy(job: Job, part: Component) -> tuple[list[str], str]:
    top_k = part.arguments.get("top_k", 1)
    if top_k > 1 and job.task == "classification":
        nearest = f"output.topk(min({top_k}, output.shape[1]), dim=1).indices"
        return [f"among = ({nearest} == target.unsqueeze(1)).any(dim=1)"], "float(among.sum()) / len(target)"
    whole = ".all(dim=1)" if job.task == "multilabel" else ""
    return [], f"float((predicted == target){whole}.sum()) / len(target)"


def _by_class(job: Job, name: str, part: Component) -> tuple[list[str], str]:
    average = part.arguments.get("average", "macro")
    if job.task == "multilabel":
        counts = [
            "right = (predicted * target).sum(dim=0)",
            "predicted_, actual = predicted.sum(dim=0), target.sum(dim=0)",
        ]
    else:
        counts = [
            "right = torch.bincount(target[predicted == target], minlength=classes)",
            "predicted_ = torch.bincount(predicted, minlength=classes)",
            "actual = torch.bincount(target, minlength=classes)",
        ]
    lines = [*counts, "right, predicted_, actual = right.double(), predicted_.double(), actual.double()"]
    formula = FORMULAS[part.type].replace("predicted", "predicted_")
    if average == "micro":
        lines += ["right, predicted_, actual = right.sum(), predicted_.sum(), actual.sum()"]
    lines += [f"{name} = {formula}"]
    return lines, {
        "micro": f"float({name})",
        "binary": f"float({name}[1])",
        "weighted": f"float(({name} * actual).sum() / actual.sum().clamp(min=1))",
    }.get(average, f"float({name}[(predicted_ + actual) > 0].mean())")


def _log_loss(job: Job, _part: Component) -> tuple[list[str], str]:
    if job.task == "classification":
        log_p = "output.double().log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)"
        return [f"log_p = {log_p}"], "float(-log_p.sum()) / len(target)"
    mean = ".mean(dim=1)" if job.task == "multilabel" else ""
    return [
        "eps = torch.finfo(torch.float64).eps",
        "p = output.double().clamp(eps, 1 - eps)",
        f"log_p = torch.where(target == 1, p.log(), (1 - p).log()){mean}",
    ], "float(-log_p.sum()) / len(target)"


def _auroc(job: Job, part: Component) -> tuple[list[str], str]:
    if job.task == "binary":
        return [], "area_under_roc(output, target == 1)"
    device = ", device=target.device" if job.is_on_gpu else ""
    scores = "output" if job.task == "multilabel" else "output.float().softmax(dim=1)"
    classes = (
        "target == 1" if job.task == "multilabel" else f"target.unsqueeze(1) == torch.arange(scores.shape[1]{device})"
    )
    weights = "is_class.sum(dim=0).tolist()" if part.arguments.get("average") == "weighted" else "[1] * len(areas)"
    return [
        f"scores = {scores}",
        f"is_class = {classes}",
        "areas = [area_under_roc(scores[:, c], is_class[:, c]) for c in range(scores.shape[1])]",
        f"pairs = zip(areas, {weights}, strict=True)",
        "known = [(area, n) for area, n in pairs if not math.isnan(area)]  # one class alone has none",
        "total = sum(n for _, n in known)",
    ], "sum(area * n for area, n in known) / total if total else math.nan"


def _r2() -> list[str]:
    return [
        "spread = (target - target.mean(dim=0)).square().sum(dim=0)",
        "residual = (target - output).square().sum(dim=0)",
        "constant = torch.where(residual == 0, 1.0, 0.0).double()",
        "r2 = torch.where(spread > 0, 1 - residual / spread, constant)",
    ]


def matrices(job: Job) -> list[str]:
    """Return the names of the metrics that are no numbers."""
    return [name for name, part in wanted(job).items() if part.type == "confusion_matrix"]


def class_count(job: Job) -> str:
    """Return the expression of the number of classes, of the labels `y` as they were loaded."""
    return "2" if job.task == "binary" else "int(y.max()) + 1"
