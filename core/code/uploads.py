"""Uploaded data sets in a script: read from the very file that was uploaded, as its digest shows."""

from typing import Any

from core.code.job import Job, Upload, refuse
from core.code.layout import Page, Raw, literal, quoted, written
from core.code.splitting import some
from core.spec.job import Columns
from core.spec.pointer import join

ARGUMENTS = {"train": "data", "val": "val-data", "test": "test-data"}
FLOAT32_INTEGERS = 1 << 24
"""Beyond this not every integer is a float32."""
TARGETS = ("target", "label", "class")
CHECKED = '''def checked(path, sha256):
    """Return the bytes of a file, if they are those that the job was trained on."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit(f"{path} is not the file that was uploaded: its SHA-256 is not {sha256}")
    return content'''
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
        places = {word: at for at, word in enumerate(sorted(set(cells) - {None}))}
        cells = [None if cell is None else places[cell] for cell in cells]""",
    "boolean": """    if kind == "boolean":
        cells = [None if cell is None else cell.lower() == "true" for cell in cells]""",
    "category": """    if kind == "category":  # numbers that stand for categories, numbered in rising order
        places = {n: at for at, n in enumerate(sorted({float(c) for c in cells if c is not None}))}
        cells = [None if cell is None else places[float(cell)] for cell in cells]""",
}
NPZ = '''def read_arrays(path, sha256):
    """Return inputs and target of an NPZ file."""
    arrays = np.load(io.BytesIO(checked(path, sha256)))
    named = ("x", "X", "inputs", "images", "data", "features")
    x = next(arrays[name] for name in named if name in arrays)
    named = ("y", "Y", "target", "targets", "labels", "label")
    y = next(arrays[name] for name in named if name in arrays)'''
IDX = '''def read_idx(content):
    """Return the array of an IDX file: type, number of dimensions, their sizes, the numbers."""
    content = gzip.decompress(content) if content[:2] == b"\\x1f\\x8b" else content
    kind = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[content[2]]
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    array = np.frombuffer(content, kind, offset=4 + 4 * content[3]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))


def read_arrays(path, sha256):
    """Return images and labels of a zip of two IDX files."""
    with zipfile.ZipFile(io.BytesIO(checked(path, sha256))) as archive:
        names = [name for name in archive.namelist() if not is_junk(name)]
        y, x = sorted((read_idx(archive.read(name)) for name in names), key=lambda one: one.ndim)'''
JUNK = '''def is_junk(name):
    """Tell whether an entry of a zip is a folder, or something that a file manager left."""
    path = PurePosixPath(name)
    is_left = path.parts[0] in JUNK_FOLDERS or path.name.lower() in JUNK_FILES
    return name.endswith("/") or path.name.startswith(".") or is_left'''
IMAGES = '''def read_images(path, sha256):
    """Return images uint8 [N, C, H, W] and the names of their classes: `<class>/<image>` in a zip."""
    images, labels = [], []
    with zipfile.ZipFile(io.BytesIO(checked(path, sha256))) as archive, TemporaryDirectory() as folder:
        for name in sorted(name for name in archive.namelist() if not is_junk(name)):
            image = PIXELS
            images.append(np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1))
            labels.append(PurePosixPath(name).parent.name)
    return np.stack(images), np.array(labels)'''


def is_upload(job: Job) -> bool:
    """Whether the data was uploaded."""
    return job.spec.data.train.type == "dataset"


def upload(job: Job, name: str) -> Upload:
    """Return what is known of the upload at `data.<name>`.

    Raises:
        CodeRefused: nothing is: it was deleted.
    """
    source = job.source(name).arguments
    found = job.uploads.get(f"{source.get('id')}@{source.get('version')}")
    if found is None:
        detail = f"The data set {source.get('id')} that the job was trained on is not there any more."
        raise refuse(join("/data", name, "id"), "dataset_missing", detail, "Upload the file again and submit the job.")
    return found


def load(job: Job, page: Page) -> None:
    """Write what reads the files that are named on the command line."""
    formats = {upload(job, name).format for name in ("train", *job.own_sets)}
    if len(formats) > 1:
        raise refuse("/data", "mixed_sources", "Uploads of different formats stand together.", "Take one format.")
    (kind,) = formats
    if kind == "parquet":
        detail = "Parquet needs pyarrow, which a script of torch, torchvision, scikit-learn and numpy does not have."
        raise refuse("/data/train", "parquet", detail, "Upload the table as CSV or NPZ, and train on that.")
    _check_plain(job, kind)
    page.use("argparse")
    page.use("hashlib")
    page.use("io")
    page.use("pathlib", "Path")
    lines = ["parser = argparse.ArgumentParser()"]
    for name in ("train", *job.own_sets):
        given = f'help="the file that was uploaded for {name}"'
        lines += [f'parser.add_argument("--{ARGUMENTS[name]}", required=True, {given})']
    page.add(*lines, "args = parser.parse_args()")
    page.add(*CHECKED.splitlines())
    {"csv": _csv, "npz": _npz, "idx": _npz, "images": _images}[kind](job, page)


def _check_plain(job: Job, kind: str) -> None:
    """Refuse sequences, and tables that are cut into windows: a script would train on something else."""
    if kind == "jsonl":
        detail = "Sequences of ids or vectors (jsonl) are not written out."
        raise refuse("/data/train", "jsonl", detail, "Upload them padded as NPZ, and train on that.")
    for name in ("train", *job.own_sets):
        if job.source(name).arguments.get("window") is not None:
            detail = "The windows of a series are not written out."
            raise refuse(join("/data", name, "window"), "window", detail, "Upload the windows as NPZ, train on that.")


def _read(job: Job, reader: str, name: str, prefix: str) -> list[str]:
    argument = ARGUMENTS[name].replace("-", "_")
    return [f"{prefix}{reader}(", f"    args.{argument},", f"    {quoted(upload(job, name).sha256)},", ")"]


# Tables


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


def _targets(job: Job) -> tuple[str, ...]:
    wanted = job.spec.data.columns.target if job.spec.data.columns else None
    return target_names(job) if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)


def feature_names(job: Job) -> list[str] | None:
    """Return the names of a table's feature columns, None where only the data knows them."""
    if not columns(job):
        return None
    roles = job.spec.data.columns or Columns()
    aside = {*_targets(job), roles.group_by, roles.order_by}
    return [name for name in columns(job) if name not in aside] if roles.features is None else list(roles.features)


def categorical(job: Job) -> set[str]:
    """Return the feature columns that hold categories."""
    named = set(job.spec.data.columns.categorical) if job.spec.data.columns else set[str]()
    known = columns(job)
    if not known:
        return named
    features = feature_names(job) or []
    return {name for name in features if name in named or known[name]["dtype"] == "text"}


def _csv(job: Job, page: Page) -> None:
    page.use("csv")
    page.use("math")
    _check_header(job)
    is_named = any(name != f"column_{at}" for at, name in enumerate(columns(job), 1))
    page.add(*written("MISSING = ", MISSING))
    page.add(*TABLE.replace("HEADER", HEADER if is_named else NO_HEADER).splitlines())
    kinds = _kinds(job)
    used = set(kinds.values())
    page.add(
        "def column(cells, kind=None):",
        '    """Return the cells of a column as numbers, NaN where there is none."""',
        *(line for name, text in KINDS.items() if name in used for line in text.splitlines()),
        "    return np.array([math.nan if cell is None else float(cell) for cell in cells])",
    )
    others = {name: kind for name, kind in kinds.items() if kind}
    lines = written("kinds = ", {name: Raw(quoted(kind)) for name, kind in others.items()}) if others else []
    lines += written("features = ", list(feature_names(job) or []))
    for name in ("train", *job.own_sets):
        lines += _table(job, name, kinds)
    page.add("# Data: a table that was uploaded", *lines)


def _check_header(job: Job) -> None:
    """Refuse a file whose first row is taken for something else than its profile says."""
    for name in ("train", *job.own_sets):
        header = job.source(name).arguments.get("header")
        is_named = any(one != f"column_{at}" for at, one in enumerate(columns(job, name), 1))
        if header is not None and header != is_named:
            detail = "The first row of the table is read in another way than when it was uploaded."
            raise refuse(join("/data", name, "header"), "header", detail, "Upload a file whose first row holds names.")
    if job.own_sets and (categorical(job) or any(columns(job)[name]["dtype"] == "text" for name in _targets(job))):
        detail = "Words in a table with a validation or test set of its own are not written out."
        raise refuse("/data/train", "words_of_two_sets", detail, "Take the other set from train by a fraction.")


def _kinds(job: Job) -> dict[str, str]:
    """Return how each column that is used is read: `text`, `boolean`, `category`, or empty for numbers."""
    roles = job.spec.data.columns or Columns()
    coded, known = categorical(job), columns(job)
    kinds: dict[str, str] = {}
    for name in (*(feature_names(job) or ()), *_targets(job), roles.group_by, roles.order_by):
        if name is not None:
            dtype = known[name]["dtype"]
            is_number = dtype in ("integer", "number", "empty")
            kinds[name] = ("category" if name in coded else "") if is_number else dtype
    return kinds


def _table(job: Job, name: str, kinds: dict[str, str]) -> list[str]:
    end = "" if name == "train" else f"_{name}"
    known, targets = columns(job, name), _targets(job)
    roles = job.spec.data.columns or Columns()

    def column(one: str, quoted_name: str) -> str:
        return f"column(table[{quoted_name}]" + (f", {quoted(kinds[one])})" if kinds[one] else ")")

    wide = any(
        max(abs(known[one].get("min") or 0), abs(known[one].get("max") or 0)) > FLOAT32_INTEGERS
        for one in feature_names(job) or ()
    )
    kind = ", kinds.get(name)" if any(kinds[one] for one in feature_names(job) or ()) else ""
    lines = _read(job, "read_table", name, "table = ")
    lines += [f"x{end} = np.stack([column(table[name]{kind}) for name in features], axis=1)"]
    lines += [] if wide and job.spec.data.preprocess else [f"x{end} = x{end}.astype(np.float32)"]
    if len(targets) > 1:
        lines += [f"targets = {literal(targets)}"]
        lines += [f"y{end} = np.stack([column(table[name]) for name in targets], axis=1).astype(np.float32)"]
    else:
        dtype = "int64" if columns(job)[targets[0]]["dtype"] != "number" else "float32"
        lines += [f"y{end} = {column(targets[0], quoted(targets[0]))}.astype(np.{dtype})"]
    asides: dict[str, str | None] = {} if end else {"groups": roles.group_by, "along": roles.order_by}
    lines += [f"{one} = {column(found, quoted(found))}" for one, found in asides.items() if found is not None]
    lines += some(job, end, [one for one, found in asides.items() if found is not None])
    if not end and roles.group_by is not None:
        lines += ["groups = np.unique(groups, return_inverse=True)[1]  # equal values stay together"]
    return lines


# Arrays and images


def _npz(job: Job, page: Page) -> None:
    profile = upload(job, "train").profile
    is_idx = upload(job, "train").format == "idx"
    if is_idx:
        page.use("gzip")
        _junk(page)
    target = profile.get("target") or {}
    made = (IDX if is_idx else NPZ).splitlines()
    made += {"image": _pixels(), "table": ["    x = x.astype(np.float32)"]}.get(
        str(profile.get("kind")), [f"    x = x.astype(np.{profile.get('dtype', 'float32')})"]
    )
    made += ["    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y"]
    is_labelled = "classes" in target
    if not is_labelled:
        made += [f"    y = y.astype(np.{target.get('dtype', 'float32')})"]
    page.add(*made, "    return x, y")
    lines = ["# Data: arrays that were uploaded"]
    for name in ("train", *job.own_sets):
        end = "" if name == "train" else f"_{name}"
        lines += _read(job, "read_arrays", name, f"x{end}, y{end} = ")
        lines += _labels(end) if is_labelled else []
        lines += some(job, end)
    page.add(*lines)


def _pixels() -> list[str]:
    return [
        "    if x.ndim == 3:",
        "        x = x[:, None]",
        "    elif x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):  # channels come first",
        "        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))",
    ]


def _labels(end: str) -> list[str]:
    if end:
        return [f"y{end} = np.searchsorted(labels, y{end})"]
    return ["labels, y = np.unique(y, return_inverse=True)  # classes as 0, 1, ..."]


def _junk(page: Page) -> None:
    page.use("pathlib", "PurePosixPath")
    page.use("zipfile")
    folders, files = junk()
    page.add(f"JUNK_FOLDERS = {literal(folders)}", f"JUNK_FILES = {literal(files)}")
    page.add(*JUNK.splitlines())


def junk() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return folders and files in an archive that are not looked at."""
    from core.datasets.archives import JUNK_FILES, JUNK_FOLDERS

    return tuple(sorted(JUNK_FOLDERS)), tuple(sorted(JUNK_FILES))


def _images(job: Job, page: Page) -> None:
    page.use("tempfile", "TemporaryDirectory")
    page.use("torchvision.datasets.folder", "pil_loader")
    _junk(page)
    pixels = "pil_loader(archive.extract(name, folder))"
    is_grey = upload(job, "train").profile.get("channels") == 1
    page.add(*IMAGES.replace("PIXELS", f'{pixels}.convert("L")' if is_grey else pixels).splitlines())
    lines = ["# Data: images that were uploaded"]
    for name in ("train", *job.own_sets):
        end = "" if name == "train" else f"_{name}"
        lines += [*_read(job, "read_images", name, f"x{end}, y{end} = "), *_labels(end), *some(job, end)]
    page.add(*lines)
