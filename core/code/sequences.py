"""Uploaded sequences in a script: JSONL, a line each, of ids or of vectors."""

from core.code.job import Job
from core.code.layout import Page
from core.code.splitting import some
from core.code.uploads import labels, read, upload

SEQUENCES = '''def read_sequences(path, sha256, length=None):
    """Return KIND, each sequence from the beginning of its row, and their targets."""
    text = checked(path, sha256).decode("utf-8-sig")
    lines = [json.loads(line) for line in text.split("\\n") if line.strip()]
    rows = [ROW for line in lines]
    steps = length or max(len(row) for row in rows)
    x = np.zeros((len(rows), steps, *rows[0].shape[1:]), rows[0].dtype)
    for place, row in zip(x, rows, strict=True):
        place[: len(row[:steps])] = row[:steps]
    y = np.array([line["target"] for line in lines])
    return x, yTARGET'''
KINDS = {
    "ids": ("int64 [N, T]", 'np.array(line["ids"], np.int64)'),
    "vectors": ("float32 [N, T, F]", 'np.array(line["vectors"], np.float64).astype(np.float32)'),
}


def sequences(job: Job, page: Page) -> None:
    """Write what reads JSONL files."""
    page.use("json")
    profile = upload(job, "train").profile
    target = profile["target"]
    is_labelled = "classes" in target
    kind, row = KINDS[profile["holds"]]
    text = SEQUENCES.replace("KIND", kind).replace("ROW", row)
    page.add(*text.replace("TARGET", "" if is_labelled else f".astype(np.{target['dtype']})").splitlines())
    lines = ["# Data: sequences that were uploaded"]
    for name in ("train", *job.own_sets):
        end = "" if name == "train" else f"_{name}"
        call = read(job, "read_sequences", name, f"x{end}, y{end} = ")
        length = job.source(name).arguments.get("length")
        lines += call if length is None else [*call[:-1], f"    length={length},", call[-1]]
        lines += [*(labels(end) if is_labelled else ()), *some(job, end)]
    page.add(*lines)
