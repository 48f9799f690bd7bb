"""A zip of class folders: `<class>/<image>`, as `torchvision.datasets.ImageFolder` reads it.

All images must have the same size. They become uint8 [N, C, H, W] with one channel where all are grey, else three;
an alpha channel is dropped. Samples stand in the order of their names, classes too.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from core.datasets.archives import Archive, open_archive
from core.datasets.formats import Limits, UnreadableError
from core.datasets.mapping import create_mapped
from core.datasets.samples import Array, Samples

PIL_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""No vector formats and nothing that starts other programs."""
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B")


@dataclass(frozen=True)
class ImageFolder:
    """What a checked zip of images holds."""

    names: list[str]
    labels: list[str]
    width: int
    height: int
    channels: int

    @property
    def classes(self) -> list[str]:
        """Class names, sorted: label order."""
        return sorted(set(self.labels))

    def profile(self) -> dict[str, Any]:
        """Return what people want to know first."""
        counts = Counter(self.labels)
        return {
            "kind": "image",
            "samples": len(self.names),
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "dtype": "uint8",
            "classes": {name: counts[name] for name in self.classes},
        }


def check(path: Path, limits: Limits) -> ImageFolder:
    """Decode every image once and return what they have in common.

    Raises:
        UnreadableError: names the first file that is no image, damaged, too large, of another size, or in no class.
    """
    with open_archive(path, limits) as archive:
        names = archive.names
        labels = _labels(names)
        grey = True
        common: tuple[int, int] | None = None
        for name in names:
            pixels, is_grey = _decode(archive, name, limits)
            size = (pixels.shape[1], pixels.shape[0])
            common = common or size
            if size != common:
                detail = f"{name!r} is {size[0]}x{size[1]} pixels and {names[0]!r} is {common[0]}x{common[1]}"
                raise UnreadableError("image_sizes_differ", detail, "bring all images to one size before the upload")
            grey = grey and is_grey
            _check_total(len(names), size, limits)
    width, height = common or (0, 0)
    return ImageFolder(names, labels, width, height, 1 if grey else 3)


def listing(path: Path, limits: Limits) -> tuple[list[str], list[str]]:
    """Return names and classes of the images without decoding them.

    Raises:
        UnreadableError: as `check`, as far as names go.
    """
    with open_archive(path, limits) as archive:
        return archive.names, _labels(archive.names)


def decode(path: Path, limits: Limits, scratch: Path) -> Samples:
    """Decode a zip of images into `scratch`."""
    folder = check(path, limits)
    shape = (len(folder.names), folder.channels, folder.height, folder.width)
    inputs = create_mapped(scratch / "inputs.npy", dtype=np.uint8, shape=shape)
    with open_archive(path, limits) as archive:
        for index, name in enumerate(folder.names):
            pixels, _ = _decode(archive, name, limits)
            inputs[index] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    position = {name: label for label, name in enumerate(folder.classes)}
    target = np.asarray([position[label] for label in folder.labels], dtype=np.int64)
    return Samples(inputs, target, [], ["target"], folder.classes, "image")


def _labels(names: list[str]) -> list[str]:
    """The folder of each image, below what all have in common."""
    folders = [str(PurePosixPath(name).parent) for name in names]
    if len(set(folders)) == 1:
        detail = f"all images lie in one folder, {folders[0]!r}; the folders' names are the classes"
        raise UnreadableError("one_class", detail, "put the images of each class into a folder of its own")
    top = os.path.commonpath([folder for folder in folders if folder != "."]) if "." not in folders else ""
    labels = [str(PurePosixPath(folder).relative_to(top)) if top else folder for folder in folders]
    for name, label in zip(names, labels, strict=True):
        if label == "." or "/" in label:
            detail = f"{name!r} is not directly in a class folder beside the others"
            raise UnreadableError("not_class_folders", detail, "lay the zip out as <class>/<image>, nothing above it")
    return labels


def _decode(archive: Archive, name: str, limits: Limits) -> tuple[Array, bool]:
    """Pixels [H, W] or [H, W, 3] of one image, and whether it is grey."""
    from PIL import Image, UnidentifiedImageError

    with archive.open(name) as stream:
        try:
            with Image.open(stream, formats=PIL_FORMATS) as image:
                _check_pixels(name, image.size, limits)
                is_grey = image.mode in GREY_MODES
                return _pixels(image, is_grey=is_grey), is_grey
        except UnidentifiedImageError as error:
            detail = f"{name!r} in the zip is no image ({', '.join(PIL_FORMATS)})"
            raise UnreadableError("not_an_image", detail, "leave it out of the zip, or mend it") from error
        except Image.DecompressionBombError as error:
            raise UnreadableError("image_too_large", f"{name!r}: {error}") from error
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
            raise UnreadableError("not_an_image", f"the image {name!r} is damaged: {error}") from error


def _check_pixels(name: str, size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        detail = f"{name!r} announces {size[0]}x{size[1]} pixels; {limits.max_pixels} are allowed"
        raise UnreadableError("image_too_large", detail, "store smaller images")


def _check_total(count: int, size: tuple[int, int], limits: Limits) -> None:
    if count * size[0] * size[1] * 3 > 3 * limits.max_unpacked_bytes:
        detail = f"{count} images of {size[0]}x{size[1]} pixels decode to more than {limits.max_unpacked_bytes} bytes"
        raise UnreadableError("unpacks_too_large", detail, "store smaller images, or fewer")


def _pixels(image: Any, *, is_grey: bool) -> Array:
    if image.mode.startswith("I;16"):
        return (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
    return np.asarray(image.convert("L" if is_grey else "RGB"), dtype=np.uint8)
