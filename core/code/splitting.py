"""The script's split: the algorithm of `core.datasets.splitting`, as far as the job uses it."""

from collections.abc import Sequence

from core.code.job import SETS, Job
from core.code.layout import Page, literal
from core.spec.job import DataSplit

SUBSET_SEED = "20_240_117"
STREAM = "0x73706C6974"
STRATIFIED = '''def take(queue, fraction):
    """Take a part of the queue that has every class's share; return it and what is left.

    Shares are rounded by largest remainder, and every class keeps at least one sample to train on.
    """
    size = max(1, int(fraction * len(x) + 0.5))
    _, inverse, counts = np.unique(y[queue], return_inverse=True, return_counts=True)
    quota = counts * (size / len(queue))
    number = np.minimum(np.floor(quota).astype(np.int64), counts - 1)
    while number.sum() < size:
        number[np.argmax(np.where(number < counts - 1, quota - number, -np.inf))] += 1
    places = [np.flatnonzero(inverse == label)[:n] for label, n in enumerate(number)]
    chosen = np.sort(np.concatenate(places))
    return np.sort(queue[chosen]), np.delete(queue, chosen)'''
GROUPED = '''def take(queue, fraction):
    """Take whole groups from the front of the queue; return them and what is left."""
    size = min(max(1, int(fraction * len(x) + 0.5)), len(queue))
    while size < len(queue) and groups[queue[size]] == groups[queue[size - 1]]:
        size += 1
    return np.sort(queue[:size]), queue[size:]'''
WINDOWED = '''def take(queue, fraction):
    """Take windows from the front of the queue; return them and those without a row of theirs."""
    size = max(1, int(fraction * len(x) + 0.5))
    taken, left = np.sort(queue[:size]), queue[size:]
    is_taken = np.zeros(spans.max() + 1, dtype=bool)
    for first, last in spans[taken]:
        is_taken[first : last + 1] = True
    before = np.concatenate([[0], np.cumsum(is_taken)])  # rows that are taken, up to each row
    return taken, left[before[spans[left, 1] + 1] == before[spans[left, 0]]]'''
PLAIN = '''def take(queue, fraction):
    """Take a part from the front of the queue; return it and what is left."""
    size = max(1, int(fraction * len(x) + 0.5))
    return np.sort(queue[:size]), queue[size:]'''


def some(job: Job, end: str, more: Sequence[str] = ()) -> list[str]:
    """Write what takes `max_samples` of a set: of `x`, `y`, and of `more` that has a value for each sample."""
    count = job.spec.data.max_samples
    if count is None:
        return []
    bits = f"np.random.PCG64({SUBSET_SEED}).random_raw(len(x{end}))"
    names = [f"x{end}", f"y{end}", *more]
    return [
        "# max_samples: chosen at random, and always the same ones",
        f'some = np.sort(np.argsort({bits}, kind="stable")[:{count}])',
        f"{', '.join(names)} = {', '.join(f'{name}[some]' for name in names)}",
    ]


def split(job: Job, page: Page) -> bool:
    """Write the split into `train`, `val` and `test`, rising indices of `x`; return whether there is one."""
    data = job.spec.data
    parts = {name: part for name in reversed(SETS) if isinstance(part := getattr(data, name), DataSplit)}
    if not parts:
        return False
    columns = data.columns
    is_grouped = columns is not None and columns.group_by is not None
    if job.is_windowed:
        page.add(*WINDOWED.splitlines())
    elif any(part.stratify for part in parts.values()):
        page.add(*STRATIFIED.splitlines())
    else:
        page.add(*(GROUPED if is_grouped else PLAIN).splitlines())
    if columns is not None and columns.order_by is not None:
        page.add("# The split: the largest values are tested on, those before them validated on",
                 'queue = np.argsort(along, kind="stable")[::-1]', *_taken(parts))  # fmt: skip
        return True
    bits = f"np.random.PCG64([{STREAM}, SEED])"
    if is_grouped:
        lines = [
            "draws = " + bits + ".random_raw(groups.max() + 1)",
            'queue = np.argsort(draws[groups], kind="stable")',
        ]
    else:
        lines = [f'queue = np.argsort({bits}.random_raw(len(x)), kind="stable")']
    page.add(
        "# The split: raw bits of a generator, as they are the same in every version of NumPy", *lines, *_taken(parts)
    )
    return True


def _taken(parts: dict[str, DataSplit]) -> list[str]:
    lines = [f"{name}, queue = take(queue, {literal(part.fraction)})" for name, part in parts.items()]
    return [*lines, "train = np.sort(queue)"]
