"""Uploaded tables in a script: CSV read by the standard library, columns by their roles, series cut into windows."""

from typing import Any

from core.code.job import Job, refuse
from core.code.layout import Call, Page, Raw, literal, quoted, written
from core.code.splitting import some
from core.code.uploads import read, upload
from core.spec.job import Columns
from core.spec.pointer import join

FLOAT32_INTEGERS = 1 << 24
"""Beyond this not every integer is a float32."""
TARGETS = ("target", "label", "class")
TABLE = '''def read_table(path, sha256):
    """Return a CSV file's cells by column, None where there is no value."""
    text = checked(path, sha256).decode("utf-8-sig").lstrip("\\r\\n")
    delimiter = max(",;\\t|", key=text.partition("\\n")[0].count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    HEADER
    cells = [[None if c in MISSING or not c.strip() else c.strip() for c in row] for row in rows]
    return dict(zip(names, zip(*cells, strict=True), strict=True))'''
HEADER = 'names = [cell.strip() or f"column_{at}" for at, cell in enumerate(rows.pop(0), 1)]'
NO_HEADER = 'names = [f"column_{at}" for at in range(1, len(rows[0]) + 1)]  # the file names none'
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "?")
KINDS = {
    "text": """    if kind == "text":  # words are numbered in the order of the alphabet
        places = {word: at for at, word in enumerate(sorted(set(KNOWN) - {None}))}
        cells = [None if cell is None else places[cell] for cell in cells]""",
    "boolean": """    if kind == "boolean":
        cells = [None if cell is None else cell.lower() == "true" for cell in cells]""",
    "category": """    if kind == "category":  # numbers that stand for categories, numbered in rising order
        places = {n: at for at, n in enumerate(sorted({float(c) for c in KNOWN if c is not None}))}
        cells = [None if cell is None else places[float(cell)] for cell in cells]""",
}
BY_WORDS = ("text", "category")
"""Kinds whose numbers depend on what else stands in the column."""
CUT = '''def cut(x, y, along, length, stride, horizon):
    """Cut a series into windows of rows that follow each other; a target stands after each.

    Returns x[N, T, F], y, the target's place in time, and the first and last row of each window.
    """
    rows = np.argsort(along, kind="stable")
    starts = np.arange(0, len(rows) - length - horizon + 1, stride)
    ends = starts + length + horizon - 1
    last, inside = rows[ends], rows[starts[:, None] + np.arange(length)]
    return x[inside], y[last], along[last], np.stack([starts, ends], axis=1)'''
CUT_SERIES = '''def cut(x, y, along, series, length, stride, horizon):
    """Cut every series into windows of rows that follow each other; a target stands after each.

    Returns x[N, T, F], y, the target's place in time, and the first and last row of each window.
    """
    rows = np.lexsort((along, series))
    edges = [*np.flatnonzero(np.diff(series[rows], prepend=-1)), len(rows)]
    starts = [
        np.arange(first, end - length - horizon + 1, stride) for first, end in pairwise(edges)
    ]
    starts = np.concatenate(starts)
    ends = starts + length + horizon - 1
    last, inside = rows[ends], rows[starts[:, None] + np.arange(length)]
    return x[inside], y[last], along[last], np.stack([starts, ends], axis=1)'''


def columns(job: Job, name: str = "train") -> dict[str, dict[str, Any]]:
    """Return what is known of a table's columns by name; none of any other upload."""
    source = job.source(name)
    if source.type != "dataset":
        return {}
    return {column["name"]: column for column in upload(job, name).profile.get("columns", ())}


def target_names(job: Job) -> tuple[str, ...]:
    """Return the names of the target columns, where the spec names none."""
    found = [name for name in columns(job) if name.lower() in TARGETS]
    return (found[-1],) if found else ("target",)


def feature_names(job: Job) -> list[str] | None:
    """Return the names of a table's feature columns, None where only the data knows them."""
    if not columns(job):
        return None
    roles = _roles(job)
    aside = {*_targets(job), roles.group_by, roles.order_by}
    return [name for name in columns(job) if name not in aside] if roles.features is None else list(roles.features)


def categorical(job: Job) -> set[str]:
    """Return the feature columns that hold categories."""
    named = set(_roles(job).categorical)
    known = columns(job)
    if not known:
        return named
    features = feature_names(job) or []
    return {name for name in features if name in named or known[name]["dtype"] == "text"}


def table(job: Job, page: Page) -> None:
    """Write what reads CSV files, and gives their columns their roles."""
    page.use("csv")
    page.use("io")
    page.use("math")
    _check_header(job)
    is_named = any(name != f"column_{at}" for at, name in enumerate(columns(job), 1))
    page.add(*written("MISSING = ", MISSING))
    page.add(*TABLE.replace("HEADER", HEADER if is_named else NO_HEADER).splitlines())
    kinds = kinds_of(job)
    page.add(*_column(job, set(kinds.values())))
    if job.is_windowed:
        if _roles(job).group_by is not None:
            page.use("itertools", "pairwise")
        page.add(*(CUT if _roles(job).group_by is None else CUT_SERIES).splitlines())
    others = {name: Raw(quoted(kind)) for name, kind in kinds.items() if kind}
    lines = written("kinds = ", others) if others else []
    lines += written("features = ", list(feature_names(job) or []))
    for name in ("train", *job.own_sets):
        lines += [*_arrays(job, name, kinds), *_windows(job, name)]
    page.add("# Data: a table that was uploaded", *lines)


def kinds_of(job: Job) -> dict[str, str]:
    """Return how each column that is used is read: `text`, `boolean`, `category`, or empty for numbers."""
    roles, coded, known = _roles(job), categorical(job), columns(job)
    kinds: dict[str, str] = {}
    for name in (*(feature_names(job) or ()), *_targets(job), roles.group_by, roles.order_by):
        if name is not None:
            dtype = known[name]["dtype"]
            is_number = dtype in ("integer", "number", "empty")
            kinds[name] = ("category" if name in coded else "") if is_number else dtype
    return kinds


def _roles(job: Job) -> Columns:
    return job.spec.data.columns or Columns()


def _targets(job: Job) -> tuple[str, ...]:
    wanted = _roles(job).target
    return target_names(job) if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)


def _check_header(job: Job) -> None:
    """Refuse a file whose first row is taken for something else than its profile says."""
    for name in ("train", *job.own_sets):
        header = job.source(name).arguments.get("header")
        is_named = any(one != f"column_{at}" for at, one in enumerate(columns(job, name), 1))
        if header is not None and header != is_named:
            detail = "The first row of the table is read in another way than when it was uploaded."
            raise refuse(join("/data", name, "header"), "header", detail, "Upload a file whose first row holds names.")


def _column(job: Job, used: set[str]) -> list[str]:
    """Return the function that turns a column's cells into numbers."""
    known, more, words = "cells", "", ""
    if _share_words(job, used):
        known, more, words = "known", ", known=None", "; `known` has all words"
    return [
        f"def column(cells, kind=None{more}):",
        f'    """Return the cells of a column as numbers, NaN where there is none{words}."""',
        *(["    known = known or cells"] if more else []),
        *(line.replace("KNOWN", known) for name, text in KINDS.items() if name in used for line in text.splitlines()),
        "    return np.array([math.nan if cell is None else float(cell) for cell in cells])",
    ]


def _share_words(job: Job, used: set[str]) -> bool:
    """Whether sets of their own number their words as the training set does."""
    return bool(job.own_sets) and bool(used & {*BY_WORDS})


def _arrays(job: Job, name: str, kinds: dict[str, str]) -> list[str]:
    """Return the lines that read one table, its arrays in the order of the file's rows."""
    end = "" if name == "train" else f"_{name}"
    targets, features = _targets(job), feature_names(job) or []
    shared = end and _share_words(job, set(kinds.values()))

    def column(of: str, kind: str, *, is_named: bool = False) -> str:
        known = f", table[{of}]" if shared and (not is_named or kind.strip('"') in BY_WORDS) else ""
        return f"column(table{end}[{of}]{f', {kind}' if kind else ''}{known})"

    def named(one: str) -> str:
        return column(quoted(one), quoted(kinds[one]) if kinds[one] else "", is_named=True)

    each = column(
        "name",
        "kinds.get(name)" if any(kinds[one] for one in features) else "",
        is_named=not any(kinds[one] in BY_WORDS for one in features),
    )
    lines = read(job, "read_table", name, f"table{end} = ")
    lines += written(f"x{end} = ", Call("np.stack", (Raw(f"[{each} for name in features]"),), {"axis": 1}))
    lines += [] if _is_wide(job, name) and job.spec.data.preprocess else [f"x{end} = x{end}.astype(np.float32)"]
    if len(targets) > 1:
        lines += [f"targets = {literal(targets)}"]
        lines += [f"y{end} = np.stack([column(table{end}[name]) for name in targets], axis=1).astype(np.float32)"]
    else:
        dtype = "int64" if columns(job)[targets[0]]["dtype"] != "number" else "float32"
        lines += [f"y{end} = {named(targets[0])}.astype(np.{dtype})"]
    return lines + [f"{one}{end} = {named(found)}" for one, found in _asides(job, name).items()]


def _is_wide(job: Job, name: str) -> bool:
    """Whether a feature has numbers that are no float32."""
    known = [columns(job, name)[one] for one in feature_names(job) or ()]
    return any(max(abs(one.get("min") or 0), abs(one.get("max") or 0)) > FLOAT32_INTEGERS for one in known)


def _asides(job: Job, name: str) -> dict[str, str]:
    """Return the columns by which rows are kept together and ordered, where that decides anything."""
    roles = _roles(job)
    asides = {"groups": roles.group_by, "along": roles.order_by}
    is_used = name == "train" or job.is_windowed
    return {one: found for one, found in asides.items() if found is not None and is_used}


def _windows(job: Job, name: str) -> list[str]:
    """Return the lines that cut a table into windows, and those that choose some of the samples."""
    end = "" if name == "train" else f"_{name}"
    asides = list(_asides(job, name))
    numbered = f"groups{end} = np.unique(groups{end}, return_inverse=True)[1]  # equal values "
    window = job.source(name).arguments.get("window")
    if window is None:
        lines = some(job, end, asides)
        return lines + ([f"{numbered}stay together"] if "groups" in asides else [])
    taken = {"length": window["length"], "stride": window.get("stride", 1), "horizon": window.get("horizon", 1)}
    given = [f"x{end}", f"y{end}", f"along{end}", *([f"groups{end}"] if "groups" in asides else [])]
    words = ", ".join(f"{key}={value}" for key, value in taken.items())
    made = [f"x{end}", f"y{end}", *(["along", "spans"] if not end else ["_", "_"])]
    return [
        *([f"{numbered}are one series"] if "groups" in asides else []),
        f"{', '.join(made)} = cut({', '.join(given)}, {words})",
        *some(job, end, made[2:] if not end else ()),
    ]
