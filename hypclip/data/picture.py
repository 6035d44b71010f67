"""Pictures of any mode, as a person sees them."""

from __future__ import annotations

from PIL import Image, ImageOps


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a person sees it, in RGB: turned by its EXIF tag, first frame, transparency on white.

    CMYK, palette, grey and 16-bit pictures are converted.
    """
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, (0, 0), image)
        return ground
    return image.convert("RGB")
