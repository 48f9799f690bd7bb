"""Uploaded data sets in a script: read from the very file that was uploaded, as its digest shows."""

from core.code.job import Job, Upload, refuse
from core.code.layout import Page, quoted
from core.spec.pointer import join

ARGUMENTS = {"train": "data", "val": "val-data", "test": "test-data"}
CHECKED = '''def checked(path, sha256):
    """Return the bytes of a file, if they are those that the job was trained on."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit(f"{path} is not the file that was uploaded: its SHA-256 is not {sha256}")
    return content'''


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


def file_format(job: Job) -> str:
    """Return the format of all files.

    Raises:
        CodeRefused: there are several, or it is none that a script can read.
    """
    formats = {upload(job, name).format for name in ("train", *job.own_sets)}
    if len(formats) > 1:
        raise refuse("/data", "mixed_sources", "Uploads of different formats stand together.", "Take one format.")
    (kind,) = formats
    if kind == "parquet":
        detail = "Parquet needs pyarrow, which a script of torch, torchvision, scikit-learn and numpy does not have."
        raise refuse("/data/train", "parquet", detail, "Upload the table as CSV or NPZ, and train on that.")
    return kind


def arguments(job: Job, page: Page) -> None:
    """Write what takes the files from the command line and checks them."""
    page.use("argparse")
    page.use("hashlib")
    page.use("pathlib", "Path")
    lines = ["parser = argparse.ArgumentParser()"]
    for name in ("train", *job.own_sets):
        given = f'help="the file that was uploaded for {name}"'
        lines += [f'parser.add_argument("--{ARGUMENTS[name]}", required=True, {given})']
    page.add(*lines, "args = parser.parse_args()")
    page.add(*CHECKED.splitlines())


def read(job: Job, reader: str, name: str, prefix: str) -> list[str]:
    """Return the call of a function that reads the file of a set."""
    argument = ARGUMENTS[name].replace("-", "_")
    return [f"{prefix}{reader}(", f"    args.{argument},", f"    {quoted(upload(job, name).sha256)},", ")"]


def labels(end: str) -> list[str]:
    """Return the line that numbers the classes of a set; those of any other set as they are in train's."""
    if end:
        return [f"y{end} = np.searchsorted(labels, y{end})"]
    return ["labels, y = np.unique(y, return_inverse=True)  # classes as 0, 1, ..."]
