"""The published checkpoints of CLIP (the baseline trained with them), MERU, HyCoCLIP, PHyCLIP and UNCHA, as ours."""

from hypclip.convert.keys import Kind
from hypclip.convert.published import Published, convert, load_published

__all__ = ["Kind", "Published", "convert", "load_published"]
