"""Pictures of taxonomies in hyperbolic space: a Poincaré disk, centred on any phrase, as SVG or PNG."""

from hypclip.taxonomy.drawing.draw import disk_picture
from hypclip.taxonomy.drawing.picture import Picture

__all__ = ["Picture", "disk_picture"]
