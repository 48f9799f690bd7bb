"""The script's data: each kind of source loaded in the fewest plain lines, and the part of it that is used."""

from core.code import arrays, sequences, tables, uploads
from core.code.job import Job, arguments_of, refuse
from core.code.layout import Call, Page, literal, written
from core.code.splitting import some
from core.spec.job import Columns, Component

LABELLED = ("digits", "iris", "wine", "breast_cancer", "moons", "circles", "blobs", "classification",
            "gaussian_quantiles", "hastie_10_2", "MNIST", "FashionMNIST", "CIFAR10")  # fmt: skip
"""Sources whose target are labels."""


def load(job: Job, page: Page) -> None:
    """Write what loads every set: `x, y`, and `x_val, y_val` or `x_test, y_test` where these have sources."""
    page.use("numpy as np")
    families = {_family(job.source(name)) for name in ("train", *job.own_sets)}
    if "dataset" in families and len(families) > 1:
        detail = "An upload and a set of another kind stand together."
        raise refuse("/data", "mixed_sources", detail, "Take an upload for each set, or for none.")
    if families == {"dataset"}:
        _uploads(job, page)
        return
    if "torchvision" in families:
        _torchvision_function(job, page)
    for name in ("train", *job.own_sets):
        end = "" if name == "train" else f"_{name}"
        lines = _source(job.source(name), page, end)
        page.add(f"# {_title(name, job)}", *lines, *some(job, end), *_selected(job, name, end))


def _uploads(job: Job, page: Page) -> None:
    kind = uploads.file_format(job)
    uploads.arguments(job, page)
    write = {
        "csv": tables.table,
        "jsonl": sequences.sequences,
        "npz": arrays.arrays,
        "idx": arrays.arrays,
        "images": arrays.images,
    }
    write[kind](job, page)


def _family(source: Component) -> str:
    return source.type.partition(".")[0]


def _title(name: str, job: Job) -> str:
    words = {"train": "Data", "val": "The validation set", "test": "The test set"}[name]
    return f"{words}: {job.source(name).type}"


def _source(source: Component, page: Page, end: str) -> list[str]:
    name = source.type.partition(".")[2]
    family = _family(source)
    if family == "sklearn":
        return _bundled(source, name, page, end)
    if family == "synthetic":
        return _synthetic(source, name, page, end)
    return [f"x{end}, y{end} = load({name}, train={source.arguments.get('train', True)!r})"]


def _bundled(source: Component, name: str, page: Page, end: str) -> list[str]:
    page.use("sklearn.datasets", f"load_{name}")
    lines = [f"bunch = load_{name}()"]
    if source.arguments.get("as") == "image":
        pixels = "np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]"
        lines += ["# brightness 0 to 255, shape [N, 1, 8, 8]", f"x{end} = {pixels}"]
    else:
        lines += [f"x{end} = bunch.data.astype(np.float32)"]
    return [*lines, f"y{end} = bunch.target" + ("" if name in LABELLED else ".astype(np.float32)")]


def _synthetic(source: Component, name: str, page: Page, end: str) -> list[str]:
    page.use("sklearn.datasets", f"make_{name}")
    own = arguments_of("data_sources", source, without=("samples", "seed"))
    given = {
        "n_samples": source.arguments.get("samples", 100),
        **own,
        "random_state": source.arguments.get("seed") or 0,
    }
    lines = [*written(f"x{end}, y{end} = ", Call(f"make_{name}", (), given)), f"x{end} = x{end}.astype(np.float32)"]
    if name not in LABELLED:
        return [*lines, f"y{end} = y{end}.astype(np.float32)"]
    if end:
        return [*lines, f"y{end} = np.searchsorted(labels, y{end})"]
    return [*lines, "labels, y = np.unique(y, return_inverse=True)  # classes as 0, 1, ..."]


def _torchvision_function(job: Job, page: Page) -> None:
    names = {job.source(name).type.partition(".")[2] for name in ("train", *job.own_sets)}
    page.use("argparse")
    page.use("torchvision.datasets", *names)
    page.add(
        "parser = argparse.ArgumentParser()",
        'parser.add_argument("--datasets", default="datasets", help="folder of torchvision\'s data sets")',
        "args = parser.parse_args()",
    )
    images = ["return data.data.numpy()[:, None], data.targets.numpy()"]
    if names == {"CIFAR10"}:
        images = ["images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))",
                  "return images, np.array(data.targets)"]  # fmt: skip
    elif "CIFAR10" in names:
        raise refuse("/data", "mixed_sources", "Sets of different shapes stand together.", "Take one kind of set.")
    page.add(
        "def load(kind, train):",
        '    """Return images as uint8 [N, C, H, W] and labels as int64 [N]; fetch them where they are not there."""',
        "    data = kind(args.datasets, train=train, download=True)",
        *(f"    {line}" for line in images),
    )


def _selected(job: Job, name: str, end: str) -> list[str]:
    """Give the columns of a table that was loaded as it is their roles."""
    columns = job.spec.data.columns
    if columns is None:
        return []
    source = job.source(name)
    if source.type.startswith("sklearn"):
        lines = ["names = [str(name) for name in bunch.feature_names]"]
    else:
        lines = [f'names = [f"x{{column}}" for column in range(x{end}.shape[1])]']
    if not end:
        lines += _asides(columns)
    lines += _features(columns, end)
    return [*lines, *_categories(columns, end, is_shared=bool(job.own_sets)), *_targets(source, columns, end)]


def _asides(columns: Columns) -> list[str]:
    lines: list[str] = []
    if columns.group_by is not None:
        column = f"x[:, names.index({literal(columns.group_by)})]"
        lines.append(f"groups = np.unique({column}, return_inverse=True)[1]  # equal numbers stay together")
    if columns.order_by is not None:
        lines.append(f"along = x[:, names.index({literal(columns.order_by)})]  # the split follows this column")
    return lines


def _features(columns: Columns, end: str) -> list[str]:
    if columns.features is not None:
        chosen = written("features = ", list(columns.features))
    elif columns.group_by is not None or columns.order_by is not None:
        aside = tuple(name for name in (columns.group_by, columns.order_by) if name is not None)
        chosen = [f"features = [name for name in names if name not in {literal(aside)}]"]
    else:
        return ["features = names"] if columns.categorical else []
    return [*chosen, f"x{end} = x{end}[:, [names.index(name) for name in features]]"]


def _categories(columns: Columns, end: str, *, is_shared: bool) -> list[str]:
    known = [name for name in columns.categorical if columns.features is None or name in columns.features]
    if not known:
        return []
    if end:
        return [
            "for name, known in categories.items():",
            "    at = features.index(name)",
            f"    x{end}[:, at] = np.searchsorted(known, x{end}[:, at])",
        ]
    return [
        *(["categories = {}"] if is_shared else []),
        f"for name in {literal(tuple(known))}:  # categories are numbered in rising order",
        "    at = features.index(name)",
        *(
            ["    categories[name], x[:, at] = np.unique(x[:, at], return_inverse=True)"]
            if is_shared
            else ["    x[:, at] = np.unique(x[:, at], return_inverse=True)[1]"]
        ),
    ]


def _targets(source: Component, columns: Columns, end: str) -> list[str]:
    wanted = columns.target
    if wanted is None or source.type != "sklearn.linnerud":
        return []
    if isinstance(wanted, str):
        return [f"y{end} = y{end}[:, bunch.target_names.index({literal(wanted)})]"]
    if len(wanted) == 1:
        return [f"y{end} = y{end}[:, bunch.target_names.index({literal(wanted[0])})]"]
    if len(wanted) == 3:
        return []
    return [*written("targets = ", list(wanted)),
            f"y{end} = y{end}[:, [bunch.target_names.index(name) for name in targets]]"]  # fmt: skip
