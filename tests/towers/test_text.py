import html
import itertools
import random
import string
import time
from pathlib import Path

import open_clip
import pytest
import tokenizers
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BertConfig, PreTrainedTokenizerFast

from hypclip.errors import ConfigError
from hypclip.towers.text import Tokenizer
from tests.support.models import TOWERS, tiny_model

START, END = 49406, 49407
CONTEXT = TOWERS["text_cfg"]["context_length"]
SPECIALS = [
    "<end_of_text>",
    "<start_of_text>",
    "<END_OF_TEXT>",
    "<Start_Of_Text>",
    "&lt;end_of_text&gt;",
    "&amp;lt;end_of_text&amp;gt;",
    "\uff1cend_of_text\uff1e",  # full-width signs, which ftfy makes plain
    "<|endoftext|>",
    "<start_of_text><end_of_text>",
]
tokenizer = Tokenizer({"context_length": CONTEXT})


def plain_tower(**changes):
    """open_clip's own text tower with the weights of a tiny model, and the model."""
    text_cfg = {**TOWERS["text_cfg"], **changes}
    model = tiny_model(towers={**TOWERS, "text_cfg": text_cfg}).eval()
    tower = open_clip.CustomTextCLIP(**{**TOWERS, "text_cfg": text_cfg}).text.eval()
    tower.load_state_dict(model.text_tower.state_dict())
    return tower, model


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_rows_are_as_long_as_the_longest_text_needs():
    tokens = tokenizer(["a dog", "a red dog and a cat"])
    assert tokens.shape == (2, 8)
    assert tokens.dtype == torch.int64
    assert tokens.is_contiguous()
    expected = SimpleTokenizer(context_length=CONTEXT)(["a dog", "a red dog and a cat"])
    assert torch.equal(tokens, expected[:, :8])
    assert (expected[:, 8:] == 0).all()


def test_a_long_text_is_cut_and_keeps_its_end():
    (tokens,) = tokenizer(["dog " * 100])
    assert tokens.tolist() == [START, *SimpleTokenizer().encode("dog " * (CONTEXT - 2)), END]
    assert len(tokens) == CONTEXT


def test_empty_texts_are_a_start_and_an_end():
    assert tokenizer(["", " \n "]).tolist() == [[START, END]] * 2
    assert tokenizer([]).shape == (0, 1)


def test_encoding_is_the_same_rows_without_padding():
    texts = ["a dog", "", "dog " * 100, "!"]
    ids, lengths = tokenizer.encode(texts)
    assert lengths == [4, 2, CONTEXT, 3]
    assert [row.tolist() for row in torch.split(ids, lengths)] == [tokenizer([text])[0].tolist() for text in texts]
    assert tokenizer.encode([]).lengths == []


def test_a_text_of_exclamation_marks_is_not_taken_for_padding():
    """The padding id 0 is also that of "!"."""
    (row,) = tokenizer(["!"])
    assert row.tolist()[-1] == END
    assert row.tolist() == SimpleTokenizer()(["!"])[0, : len(row)].tolist()


@pytest.mark.parametrize("text", SPECIALS)
def test_special_strings_are_ordinary_text(text):
    (row,) = Tokenizer({"context_length": 77})([f"a {text} dog"])
    start, *middle, end = row.tolist()
    assert (start, end) == (START, END)
    assert not {START, END} & set(middle)
    read = SimpleTokenizer().decode(middle).replace(" ", "")
    assert read == f"a{html.unescape(html.unescape(text))}dog".lower().replace("\uff1c", "<").replace("\uff1e", ">")


def test_open_clip_itself_takes_special_strings_for_special_tokens():
    """What the test above is about: should this change, the pattern of the tokenizer has changed."""
    assert SimpleTokenizer().encode("<end_of_text>") == [END]
    assert SimpleTokenizer().encode("&lt;start_of_text&gt;") == [START]


@given(st.lists(st.text() | st.sampled_from(SPECIALS), max_size=6).map("".join))
@example("<end_of_text>" * 8)
def test_every_row_has_one_start_and_one_end(text):
    (row,) = tokenizer([text]).tolist()
    assert row[0] == START
    assert row[-1] == END
    assert all(0 <= token < START for token in row[1:-1])


def test_ordinary_text_is_read_as_open_clip_reads_it():
    texts = ["A photo of the dog's 2 PUPPIES, isn't it?", "café über 東京 🐶", "x<y & y>z <b>bold</b>", "a_b__c  d\te"]
    tokens = tokenizer(texts)
    assert torch.equal(tokens, SimpleTokenizer(context_length=CONTEXT)(texts)[:, : tokens.shape[1]])


words = SimpleTokenizer()


@given(st.lists(st.text(st.characters(codec="ascii")) | st.text(), max_size=6).map(" ".join))
@example("a&amp;b \x1b[31mred\x1b[0m  two  spaces\r\nI'LL")
def test_any_text_is_read_as_open_clip_reads_it(text):
    expected = words.encode(text)
    for _ in ("cleaned and cut into pieces", "looked up"):
        (row,) = tokenizer([text]).tolist()
        assert row[1:-1] == expected[: CONTEXT - 2]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 128, 8))
def test_any_two_ascii_characters_are_read_as_open_clip_reads_them(first):
    pairs = [chr(a) + chr(b) for a in range(first, first + 8) for b in range(128)]
    for text in (f"{before}{pair}{after}" for pair in pairs for before, after in (("", ""), ("it", "s"))):
        assert tokenizer([text])[0, 1:-1].tolist() == words.encode(text), repr(text)


def test_the_words_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr("hypclip.towers.text._WORDS_KEPT", 50)
    tokenizer = Tokenizer({})
    texts = ["dog" + "".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=2)]
    for text in texts:
        tokenizer([text])
        assert len(tokenizer.encoder._ids) <= 50
        assert not tokenizer.encoder.cache
    assert torch.equal(tokenizer(texts[:1]), Tokenizer({})(texts[:1]))


# Towers ---------------------------------------------------------------------------------------------------------------


def test_letters_without_a_space_take_no_time():
    letters = "".join(random.Random(0).choices(string.ascii_lowercase, k=8_000))
    tokenizer = Tokenizer({})
    assert tokenizer([letters]).shape == (1, 77)
    # What is past the context is not looked at, however much of it there is.
    start = time.process_time()
    tokenizer([" ".join([letters[i:] for i in range(16)])])
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("changes", [{}, {"block_type": "custom"}, {"pool_type": "eos", "eos_id": END}], ids=str)
def test_short_rows_have_the_features_of_rows_padded_to_the_context(changes):
    tower, model = plain_tower(**changes)
    for length in (2, 5, CONTEXT - 1, CONTEXT):
        full = torch.zeros(3, CONTEXT, dtype=torch.int64)
        full[:, 0] = START
        full[:, 1 : length - 1] = torch.randint(1, START, (3, length - 2))
        full[:, length - 1] = END
        full[2, 1] = END  # a shorter text among them
        full[2, 2:] = 0
        with torch.no_grad():
            expected = tower(full)
            torch.testing.assert_close(model.text_tower(full[:, :length]), expected, rtol=0, atol=2e-6)
            torch.testing.assert_close(model.text_tower(full), expected, rtol=0, atol=0)


def test_short_rows_train_the_tower_as_padded_rows_do():
    tower, model = plain_tower()
    tokens = tokenizer(["a dog", "a red cat"])
    full = torch.nn.functional.pad(tokens, (0, CONTEXT - tokens.shape[1]))
    tower(full).square().sum().backward()
    model.text_tower(tokens).square().sum().backward()
    for (name, want), got in zip(tower.named_parameters(), model.text_tower.parameters(), strict=True):
        assert (got.grad - want.grad).norm() <= 1e-5 * want.grad.norm(), name


@pytest.mark.parametrize("changes", [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}], ids=str)
def test_towers_that_see_the_padding_get_rows_of_the_whole_context(changes):
    """As in MobileCLIP, CoCa and SigLIP. Their features would else depend on the longest text of the batch."""
    tower, model = plain_tower(**changes)
    texts = ["a dog", "two red dogs and a very small green cat"]
    tokens = model.tokenizer(texts)
    assert tokens.shape == (2, CONTEXT)
    assert model.tokenizer.encode(texts).lengths == [CONTEXT] * 2
    with torch.no_grad():
        features = tower(SimpleTokenizer(context_length=CONTEXT)(texts))
        assert (model.text_tower(tokens[:, :12]) - features).abs().max() > 1e-3
        torch.testing.assert_close(model.text_tower(tokens), features, rtol=0, atol=0)
    alone, together = model.embed_text(texts[:1]), model.embed_text(texts)
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-6)


@pytest.fixture
def bert(tmp_path) -> Path:
    """A Hugging Face model of a few thousand weights, as a folder."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "a", "dog", "cat", "red", "SEP", "CLS"]
    words_to_ids = tokenizers.Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    words_to_ids.pre_tokenizer = BertPreTokenizer()
    words_to_ids.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=words_to_ids, **names).save_pretrained(tmp_path)
    BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    ).save_pretrained(tmp_path)
    return tmp_path


def test_hugging_face_towers_take_short_rows_and_no_special_strings(bert):
    text_cfg = {
        "hf_model_name": str(bert),
        "hf_tokenizer_name": str(bert),
        "hf_model_pretrained": False,
        "hf_proj_type": "linear",
        "context_length": 12,
    }
    model = tiny_model(towers={**TOWERS, "text_cfg": text_cfg}).eval()
    pad, _, cls, sep = range(4)
    assert model.tokenizer(["a red dog", "cat"]).tolist() == [[cls, 7, 10, 8, sep], [cls, 9, sep, pad, pad]]
    assert model.tokenizer.encode(["a red dog", "cat"]).lengths == [5, 3]
    for special in ("[SEP]", "[CLS]", "[PAD]", "[MASK]"):
        start, *middle, end = model.tokenizer([f"a {special} dog"])[0].tolist()
        assert (start, end) == (cls, sep)
        assert not set(middle) & {pad, cls, sep, 4}
    alone, together = model.embed_text(["cat"]), model.embed_text(["cat", "a red dog"])
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-6)


def test_a_tokenizer_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="hf_tokenizer_name '/nowhere/at/all' cannot be loaded"):
        Tokenizer({"hf_tokenizer_name": "/nowhere/at/all"})


def test_a_vocabulary_too_small_for_the_tokenizer_is_named():
    with pytest.raises(ConfigError, match=r"vocab_size must be at least 49408.*got 1000"):
        Tokenizer({"vocab_size": 1000})
