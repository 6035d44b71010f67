"""The published checkpoints of CLIP (the baseline trained with them), MERU, HyCoCLIP, PHyCLIP and UNCHA, as ours."""

from hypclip.pretrained.published.conversion import Published, convert, load_published
from hypclip.pretrained.published.keys import Kind

__all__ = ["Kind", "Published", "convert", "load_published"]
