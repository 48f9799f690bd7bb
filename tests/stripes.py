"""Images that can be learned at once, for tests that upload some."""

import io
import random
import zipfile

from PIL import Image


def striped(images: int, *, within: str = "") -> bytes:
    """Return a zip of two class folders below `within`: upright and lying stripes, PNG of 8 by 8 grey pixels each."""
    draw = random.Random(6)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        if within:
            archive.writestr("__MACOSX/upright/._0.png", b"")  # what a Mac leaves in an archive
        for number in range(images):
            is_upright = number % 2 == 0
            image = Image.new("L", (8, 8))
            at = draw.randrange(8)
            for place in range(8):
                image.putpixel((at, place) if is_upright else (place, at), 200 + draw.randrange(50))
            content = io.BytesIO()
            image.save(content, "PNG")
            archive.writestr(f"{within}{'upright' if is_upright else 'lying'}/{number}.png", content.getvalue())
    return packed.getvalue()
