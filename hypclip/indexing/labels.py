"""Metadata that say what a point is.

Of the quickstart's emoji they say enough for a page to label and filter points: `kind` is "family", "kind", "name",
"caption", "drawing" or "scene"; `text` is the phrase itself; `family` and `kind_of` are the most general and the
nearest phrase above it.
"""

from __future__ import annotations

from typing import Any

from hypclip.data.quickstart.scenes import article
from hypclip.taxonomy import Taxonomy, emoji_edges
from hypclip.taxonomy import load as load_taxonomy

_LEVELS = ("family", "kind")


class Labels:
    """Writer of the metadata of points.

    Args:
        source: of the taxonomy that goes with the points; None for none.
    """

    def __init__(self, source: str | None):
        self.taxonomy = None if source is None else load_taxonomy(source)
        # Of names that no model was taught too: here they are said, and not asked for.
        self._emoji = Taxonomy([*emoji_edges(), *emoji_edges(held_out=True)]) if source == "emoji" else None

    @property
    def scene(self) -> str | None:
        """The kind of images with captions; None where it is not told."""
        return None if self._emoji is None else "scene"

    def concept(self, phrase: str) -> dict[str, Any]:
        """Return the metadata of a phrase of the taxonomy."""
        assert self.taxonomy is not None
        level = self.taxonomy.level(phrase)
        return {"phrase": phrase, "level": level, **self._more(phrase, _LEVELS[min(level, 1)], phrase)}

    def name(self, text: str, name: str) -> dict[str, Any]:
        """Return the metadata of a text that is one of the names of a class, whose first is `name`."""
        return {"class": name, **self._more(name, "name", text)}

    def image(self, name: str) -> dict[str, Any]:
        """Return the metadata of an image of a class."""
        return {"class": name, **self._more(name, "drawing")}

    def _more(self, phrase: str, kind: str, text: str | None = None) -> dict[str, Any]:
        if self._emoji is None:
            return {}
        known = next((each for each in (phrase, article(phrase)) if each in self._emoji), phrase)
        above = self._emoji.ancestors(known)
        labels = {"kind": kind, "text": text, "family": above[-1] if above else None}
        labels["kind_of"] = above[0] if above else None
        return {label: value for label, value in labels.items() if value is not None}
