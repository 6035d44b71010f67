"""Image and text encoders on open_clip, with its tokenizers and image transforms."""
