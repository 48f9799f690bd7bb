"""Uploaded arrays and images in a script: NPZ, IDX, folders of images in a zip."""

from core.code.job import Job
from core.code.layout import Page, literal
from core.code.splitting import some
from core.code.uploads import labels, read, upload

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
    """Return images uint8 [N, C, H, W] and the names of their classes: `<class>/<image>`."""
    images, labels = [], []
    content = io.BytesIO(checked(path, sha256))
    with zipfile.ZipFile(content) as archive, TemporaryDirectory() as folder:
        for name in sorted(name for name in archive.namelist() if not is_junk(name)):
            image = PIXELS
            pixels = np.asarray(image).reshape(image.height, image.width, -1)
            images.append(pixels.transpose(2, 0, 1))
            labels.append(PurePosixPath(name).parent.name)
    return np.stack(images), np.array(labels)'''


def arrays(job: Job, page: Page) -> None:
    """Write what reads NPZ or IDX files."""
    page.use("io")
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
        lines += read(job, "read_arrays", name, f"x{end}, y{end} = ")
        lines += labels(end) if is_labelled else []
        lines += some(job, end)
    page.add(*lines)


def _pixels() -> list[str]:
    return [
        "    if x.ndim == 3:",
        "        x = x[:, None]",
        "    elif x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):  # channels come first",
        "        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))",
    ]


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


def images(job: Job, page: Page) -> None:
    """Write what reads zips of images."""
    page.use("io")
    page.use("tempfile", "TemporaryDirectory")
    page.use("torchvision.datasets.folder", "pil_loader")
    _junk(page)
    pixels = "pil_loader(archive.extract(name, folder))"
    is_grey = upload(job, "train").profile.get("channels") == 1
    page.add(*IMAGES.replace("PIXELS", f'{pixels}.convert("L")' if is_grey else pixels).splitlines())
    lines = ["# Data: images that were uploaded"]
    for name in ("train", *job.own_sets):
        end = "" if name == "train" else f"_{name}"
        lines += [*read(job, "read_images", name, f"x{end}, y{end} = "), *labels(end), *some(job, end)]
    page.add(*lines)
