"""The text side: open_clip's text towers, made to accept short rows, and its tokenizers, made safe for user text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import regex
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from hypclip.errors import ConfigError
from hypclip.towers.tokens import TokenRows

_LONGEST_WORD = 256
"""Bytes of a word that are looked at, which nothing but noise has more of."""
_WORDS_KEPT = 100_000
"""Words whose ids are kept, at most."""


class Tokenizer:
    """Turn strings into token ids: `encode` without padding, a call with as much as the longest text needs.

    Only a tower that looks at the padding, such as one without a causal mask, gets texts filled up to the context
    length, by both: its features would change with the other texts of a batch.

    `shortens` says whether texts are shorter than the context, `pad_id` what fills rows, `encoder` splits a text.

    Text is data: strings such as `<end_of_text>` are read as ordinary characters, never as special tokens, whether they
    are written out or as HTML entities.
    """

    def __init__(self, text_cfg: dict[str, Any]):
        self.context_length: int = text_cfg.get("context_length", 77)
        self.shortens = _ignores_padding(text_cfg)
        self.encoder: SimpleTokenizer | HFTokenizer
        if name := text_cfg.get("hf_tokenizer_name"):
            kwargs = dict(text_cfg.get("tokenizer_kwargs") or {})
            try:
                self.encoder = HFTokenizer(name, context_length=self.context_length, **kwargs)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"model.towers: text_cfg.hf_tokenizer_name {name!r} cannot be loaded: {error}"
                ) from error
            self.encoder.tokenizer.split_special_tokens = True
            self.pad_id = int(self.encoder.tokenizer.pad_token_id or 0)
        else:
            self.encoder = _Encoder(context_length=self.context_length)
            if text_cfg.get("vocab_size", self.encoder.vocab_size) < self.encoder.vocab_size:
                raise ConfigError(
                    f"model.towers: text_cfg.vocab_size must be at least {self.encoder.vocab_size}, the size of "
                    f"CLIP's vocabulary, got {text_cfg['vocab_size']}"
                )
            # Its pattern begins with the special strings, each followed by |; without them they split like other text.
            specials = "".join(f"{self.encoder.decoder[i]}|" for i in self.encoder.all_special_ids)
            self.encoder.pat = regex.compile(self.encoder.pat.pattern.removeprefix(specials), regex.IGNORECASE)
            self.pad_id = 0

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Return token ids without padding; texts longer than the context are cut and keep their end-of-text token."""
        if self.shortens and isinstance(self.encoder, _Encoder):
            rows = [self.encoder.row(text) for text in texts]
            return TokenRows(torch.tensor([i for row in rows for i in row], dtype=torch.int64), [len(r) for r in rows])
        tokens: Tensor = self.encoder(list(texts))
        if not self.shortens:
            return TokenRows(tokens.flatten(), [tokens.shape[1]] * len(texts))
        places = torch.arange(1, tokens.shape[1] + 1)
        lengths = ((tokens != self.pad_id) * places).amax(1).clamp(min=1)
        return TokenRows(tokens[places <= lengths.unsqueeze(1)], lengths.tolist())

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (N, L), L ≤ context_length, as `encode` but padded to the longest."""
        return self.encode(texts).padded(self.pad_id)


class _Encoder(SimpleTokenizer):  # type: ignore[misc]
    """open_clip's tokenizer, which stops when the context is full, and looks a word up that it has seen.

    Its time grows with the square of a word's length, whatever is cut off afterwards: some thousand letters without a
    space took it seconds.
    """

    def __init__(self, context_length: int):
        super().__init__(context_length=context_length)
        self._ids: dict[str, list[int]] = {}

    def row(self, text: str) -> list[int]:
        """Return the ids of a text between start and end, no more than the context has room for."""
        ids = [self.sot_token_id, *self.encode(text)[: self.context_length - 2], self.eot_token_id]
        return ids[-self.context_length :]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, no more of them than are looked at."""
        ids: list[int] = []
        # What cleaning mends, in encodings, HTML, control characters and line ends, such a text has none of.
        plain = text.isascii() and text.isprintable() and "&" not in text
        for match in self.pat.finditer(text.lower() if plain else self.clean_fn(text)):
            word = match.group()
            found = self._ids.get(word)
            ids += self._encode_word(word) if found is None else found
            if len(ids) >= self.context_length:
                break
        return ids

    def _encode_word(self, word: str) -> list[int]:
        letters = "".join(self.byte_encoder[byte] for byte in word.encode()[:_LONGEST_WORD])
        ids = [self.encoder[piece] for piece in self.bpe(letters).split(" ")]
        self.cache.clear()  # of the class above, which has no bound
        if len(self._ids) >= _WORDS_KEPT:
            self._ids.clear()
        if len(letters) < _LONGEST_WORD:
            self._ids[word] = ids
        return ids


def _ignores_padding(text_cfg: dict[str, Any]) -> bool:
    """Return whether a tower's features do not depend on the padding after a text.

    A causal mask keeps it out of the positions before it, Hugging Face towers mask it. CoCa's appended token and
    pooling at the last position see it in any case.
    """
    if text_cfg.get("hf_model_name"):
        return True
    masked = not text_cfg.get("no_causal_mask") and not text_cfg.get("embed_cls")
    return masked and text_cfg.get("pool_type", "argmax") != "last"


def accept_short_rows(tower: nn.Module) -> nn.Module:
    """Let an open_clip TextTransformer take rows shorter than its context.

    open_clip 3.3.0 adds its context_length × context_length causal mask to the attention whatever the length of the
    tokens. A pre-hook slices it to the length that came. Towers that take any length pass through unchanged.
    """
    if isinstance(tower, open_clip.transformer.TextTransformer):
        tower.transformer.register_forward_pre_hook(_slice_causal_mask, with_kwargs=True)
    return tower


def _slice_causal_mask(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask: Tensor | None = kwargs.get("attn_mask")
    length = args[0].shape[1]
    if mask is not None and mask.dim() == 2 and mask.shape[0] > length:
        kwargs = {**kwargs, "attn_mask": mask[:length, :length]}
    return args, kwargs
