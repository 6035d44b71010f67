"""Pictures of any mode, as a person sees them."""

from __future__ import annotations

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation. ImageOps.exif_transpose also rewrites the tags, which fails where it cannot."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a person sees it, in RGB: turned by its EXIF tag, first frame, transparency on white.

    CMYK, palette, grey and 16-bit pictures are converted.
    """
    image.seek(0)
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
        # The tag would turn it again the next time.
        image.info = {name: value for name, value in image.info.items() if name == "transparency"}
    if image.mode.startswith("I;16") or image.mode == "I":
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, (0, 0), image)
        return ground
    return image.convert("RGB")
