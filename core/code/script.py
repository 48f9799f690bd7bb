"""The parts of a script in their order."""

from collections.abc import Mapping
from typing import Any

from core.code import (
    looping,
    losses,
    metrics,
    models,
    optimizing,
    preprocessing,
    sources,
    splitting,
    transforms,
)
from core.code.job import Job, Upload
from core.code.layout import Page, plain
from core.spec import parse_object

DERIVE = '''def derive(*purpose):
    """Return a seed for one purpose, so that no draw depends on how many came before it."""
    digest = blake2b(repr((SEED, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1'''


def script(
    resolved: dict[str, Any],
    *,
    uploads: Mapping[str, Upload] | None = None,
    numerics: Mapping[str, Any] | None = None,
) -> str:
    """Return a job as one plain PyTorch file.

    The same job gives the same text. On the CPU, with the same versions and instruction set, the file ends with the
    job's weights, bit for bit.

    Args:
        resolved: the job's resolved spec.
        uploads: what is known of the uploads that it names, by `"<dataset id>@<version>"`.
        numerics: device, threads, instruction set and versions with which the job ran, once it has begun.

    Raises:
        CodeRefused: it uses what a script cannot repeat.
    """
    job = Job(parse_object(resolved), uploads or {})
    page = Page()
    _constants(job, page)
    sources.load(job, page)
    if metrics.needs_classes(job):
        page.add(f"classes = {metrics.class_count(job)}")
    is_split = splitting.split(job, page)
    preprocessing.preprocess(job, page, is_split=is_split)
    transforms.tensors(job, page, is_split=is_split)
    if job.spec.batch_size == "full":
        page.add("BATCH_SIZE = len(x_train)  # the whole set")
    models.model(job, page)
    losses.loss(job, page)
    optimizing.optimizer(job, page)
    looping.loop(job, page)
    return page.text(_title(job, numerics))


def _title(job: Job, numerics: Mapping[str, Any] | None) -> str:
    name = plain(job.spec.name or "") or "A training job"
    lines = [f'"""{name}, as plain PyTorch.', ""]
    lines += ["Needs torch, torchvision, scikit-learn and numpy. Prints every epoch's numbers and leaves the"]
    if job.spec.compile is True:
        lines += ["weights in model.pt. The job ran with whole updates compiled, this runs with the model compiled:"]
        lines += ["the last bits differ."]
        return "\n".join([*lines, '"""'])
    lines += ["weights in model.pt. On a CPU these are exactly those of the job that it was written from, if the"]
    if numerics:
        versions = f"torch {numerics.get('torch')}, torchvision {numerics.get('torchvision')}"
        lines += [f"versions and instructions are the same: {plain(versions)}, {plain(str(numerics.get('isa')))}."]
    else:
        lines += ["versions and the instruction set are the same."]
    return "\n".join([*lines, '"""'])


def _constants(job: Job, page: Page) -> None:
    spec = job.spec
    lines = [f"SEED = {spec.seed or 0}", f"EPOCHS = {spec.epochs}"]
    lines += [f"BATCH_SIZE = {spec.batch_size}"] if spec.batch_size != "full" else []
    lines += [f"MAX_STEPS = {spec.max_steps}"] if spec.max_steps is not None else []
    page.add(*lines)
    page.use("torch")
    settings: list[str] = []
    if spec.execution.threads is not None:
        settings += [f"torch.set_num_threads({spec.execution.threads})  # another number adds in another order"]
    if spec.deterministic:
        settings += ["torch.use_deterministic_algorithms(True)"]
        if job.is_on_gpu:
            page.use("os")
            settings = ['os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")', *settings]
    if job.is_on_gpu:
        settings += ['device = torch.device("cuda" if torch.cuda.is_available() else "cpu")']
    page.add(*settings)
    if spec.shuffle or job.is_augmented:
        page.use("hashlib", "blake2b")
        page.add(*DERIVE.splitlines())
