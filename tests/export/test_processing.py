"""hypclip.export.processing: what CLIP's examples in transformers do, to the values of the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer, pipeline

from hypclip import HypCLIP
from hypclip.client.rgb import from_array, to_rgb
from hypclip.errors import InputError
from hypclip.export.huggingface import HypCLIPForHub, export_huggingface
from hypclip.export.processing import HypCLIPImageProcessor, HypCLIPProcessor, HypCLIPTokenizer
from tests.support.models import TOWERS, tiny_model

TEXTS = [
    "a dog",
    "",
    "two cats, sleeping &amp; dreaming",
    "a <end_of_text> b",
    "Cafe\u0301 \u00e9t\u00e9 日本",
    "dog " * 90,
]
CONTEXT = 32


def noise(mode: str = "RGB", size: tuple[int, int] = (50, 40)) -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator).numpy()
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def model() -> HypCLIP:
    towers = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "context_length": CONTEXT}}
    torch.manual_seed(0)
    return tiny_model(towers=towers, curv_init=0.7).eval()


@pytest.fixture(scope="module")
def folder(model: HypCLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    export_huggingface(model, tmp_path_factory.mktemp("export") / "hub")
    return tmp_path_factory.getbasetemp() / "export0" / "hub"


@pytest.fixture(scope="module")
def hub(folder: Path) -> HypCLIPForHub:
    return AutoModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def processor(folder: Path) -> HypCLIPProcessor:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> HypCLIPTokenizer:
    return AutoTokenizer.from_pretrained(folder)


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "length"),
    [
        ({"padding": True}, CONTEXT),
        ({"padding": True, "truncation": True}, CONTEXT),
        ({"padding": "longest", "truncation": True, "max_length": 77}, CONTEXT),
        ({"padding": "max_length", "truncation": True, "max_length": 77}, CONTEXT),
        ({"padding": "max_length", "truncation": True}, CONTEXT),
        ({"padding": "max_length", "max_length": CONTEXT}, CONTEXT),
        ({"text_kwargs": {"padding": "max_length"}}, CONTEXT),
        ({"common_kwargs": {"return_tensors": "pt"}}, CONTEXT),
        ({}, CONTEXT),
    ],
    ids=str,
)
@torch.no_grad()
def test_the_arguments_of_the_examples_give_the_embeddings_of_the_model(
    model: HypCLIP, hub: HypCLIPForHub, processor: HypCLIPProcessor, arguments: dict, length: int
) -> None:
    inputs = processor(text=TEXTS, images=[noise()], return_tensors="pt", **arguments)
    assert inputs["input_ids"].shape == (len(TEXTS), length)
    assert inputs["input_ids"].dtype == torch.int64
    output = hub(**inputs)
    text, image = model.embed_text(TEXTS), model.embed_image([noise()])
    torch.testing.assert_close(output.text_embeds, text, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.image_embeds, image, rtol=1e-5, atol=1e-6)
    logits = model.similarity(image, text) * model.logit_scale
    torch.testing.assert_close(output.logits_per_image, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.logits_per_image.softmax(dim=1), logits.softmax(dim=1), rtol=1e-3, atol=1e-5)


def test_short_texts_are_padded_to_the_longest_or_as_told(processor: HypCLIPProcessor) -> None:
    assert processor(text=["a dog", "two big dogs"])["input_ids"].tolist() == [
        [49406, 320, 1929, 49407, 0],
        [49406, 1237, 1205, 3255, 49407],
    ]
    assert processor(text="a dog", padding="max_length", max_length=6)["input_ids"].tolist() == [
        [49406, 320, 1929, 49407, 0, 0]
    ]
    assert processor(text="a dog", padding="max_length")["input_ids"].shape == (1, CONTEXT)


def test_padding_on_the_left_is_refused(folder: Path, processor: HypCLIPProcessor) -> None:
    """Tokens would have the places of others, and the points would be wrong without a word."""
    left = AutoTokenizer.from_pretrained(folder, padding_side="left")
    for call in (
        lambda: processor(text=["a dog", "two big dogs"], padding_side="left"),
        lambda: left(["a dog", "two big dogs"], padding=True),
    ):
        with pytest.raises(InputError, match="padding_side must be 'right', got 'left'"):
            call()
    assert left("a dog")["input_ids"] == [49406, 320, 1929, 49407]


def test_a_text_that_is_cut_keeps_its_end(model: HypCLIP, processor: HypCLIPProcessor) -> None:
    assert processor(text=["a big dog"], truncation=True, max_length=4)["input_ids"].tolist() == [
        [49406, 320, 1205, 49407]
    ]
    cut = processor(text=["dog " * 90])["input_ids"]
    assert torch.equal(cut, model.tokenizer(["dog " * 90]))
    assert cut[0, -1] == 49407


def test_the_tokenizer_gives_what_those_of_transformers_give(model: HypCLIP, tokenizer: HypCLIPTokenizer) -> None:
    assert type(tokenizer) is HypCLIPTokenizer
    assert tokenizer(["a dog", "two big dogs"])["input_ids"] == [
        [49406, 320, 1929, 49407],
        [49406, 1237, 1205, 3255, 49407],
    ]
    padded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert list(padded) == ["input_ids"]
    assert torch.equal(padded["input_ids"], model.tokenizer(TEXTS))
    assert tokenizer("a dog")["input_ids"] == tokenizer.encode("a dog") == [49406, 320, 1929, 49407]
    assert tokenizer.tokenize("a dog") == ["a</w>", "dog</w>"]
    masked = tokenizer(["a dog", "two big dogs"], padding=True, return_attention_mask=True, return_tensors="pt")
    assert masked["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1] * 5]
    assert (tokenizer.model_max_length, tokenizer.pad_token_id, tokenizer.eos_token_id) == (CONTEXT, 0, 49407)
    assert len(tokenizer) == tokenizer.vocab_size == 49408
    later = tokenizer.pad([tokenizer("a dog"), tokenizer("two big dogs")], return_tensors="pt")
    assert torch.equal(later["input_ids"], model.tokenizer(["a dog", "two big dogs"]))


def test_ids_become_text_again(processor: HypCLIPProcessor, tokenizer: HypCLIPTokenizer) -> None:
    rows = processor(text=["A Dog!", "日本 é"])["input_ids"]
    assert processor.batch_decode(rows, skip_special_tokens=True) == ["a dog !", "日本 é"]
    padding = "!" * int((rows[0] == 0).sum())  # the token of id 0, which fills rows
    assert tokenizer.decode(rows[0]) == f"<start_of_text>a dog ! <end_of_text>{padding}"


@torch.no_grad()
def test_a_mask_may_come_along(model: HypCLIP, hub: HypCLIPForHub, processor: HypCLIPProcessor) -> None:
    inputs = processor(text=["a dog", "two big dogs"], padding="max_length", return_attention_mask=True)
    assert list(inputs) == ["input_ids", "attention_mask"]
    features = hub.get_text_features(**inputs)
    torch.testing.assert_close(features, model.embed_text(["a dog", "two big dogs"]), rtol=1e-5, atol=1e-6)
    assert hub(**inputs, pixel_values=torch.zeros(1, 3, 32, 32)).logits_per_image.shape == (1, 2)


def test_rows_beyond_the_context_are_refused_by_name(hub: HypCLIPForHub, tokenizer: HypCLIPTokenizer) -> None:
    rows = tokenizer(["dog " * 90], truncation=False, return_tensors="pt")
    with pytest.raises(InputError, match=f"rows of {rows['input_ids'].shape[1]} tokens, and the context is {CONTEXT}"):
        hub.get_text_features(**rows)


def test_a_tower_that_looks_at_its_padding_always_gets_full_rows() -> None:
    text_cfg = {"context_length": 9, "width": 32, "heads": 2, "layers": 1, "no_causal_mask": True, "pool_type": "last"}
    model = tiny_model(towers={**TOWERS, "text_cfg": text_cfg}).eval()
    tokenizer = HypCLIPTokenizer(text_cfg)
    for arguments in ({"padding": True}, {"padding": "max_length", "max_length": 5}, {"padding": "longest"}):
        rows = tokenizer(["a dog", "x"], return_tensors="pt", **arguments)["input_ids"]
        assert torch.equal(rows, model.tokenizer(["a dog", "x"]))


# Images ---------------------------------------------------------------------------------------------------------------


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize(
    "given",
    [
        noise(),
        [noise()],
        (noise(),),
        as_array(noise()),
        as_array(noise())[None],
        as_array(noise()).transpose(2, 0, 1),
        as_array(noise()) / 255,
        torch.from_numpy(as_array(noise()).copy()).permute(2, 0, 1),
        [torch.from_numpy(as_array(noise()).copy()).permute(2, 0, 1) / 255],
        np.concatenate([as_array(noise()), np.full((40, 50, 1), 255, np.uint8)], 2),
        np.array([None, noise()], object)[1:],
    ],
    ids=["one", "list", "tuple", "array", "batch", "first", "numbers", "tensor", "tensors", "alpha", "column"],
)
def test_pictures_of_every_form_have_the_pixels_of_the_model(
    model: HypCLIP, processor: HypCLIPProcessor, given: object
) -> None:
    expected = model.transform(noise())[None]
    assert torch.equal(processor(images=given)["pixel_values"], expected)
    assert np.array_equal(processor(images=given, return_tensors="np")["pixel_values"], expected.numpy())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_modes_are_those_of_the_model(model: HypCLIP, processor: HypCLIPProcessor, mode: str) -> None:
    picture = noise(mode)
    expected = model.transform(to_rgb(picture))[None]
    assert torch.equal(processor(images=picture)["pixel_values"], expected)
    if mode == "L":
        for array in (as_array(picture), as_array(picture)[..., None], as_array(picture)[None]):
            assert torch.equal(processor(images=array)["pixel_values"], expected)


def test_the_image_processor_by_itself(model: HypCLIP, folder: Path) -> None:
    images = AutoImageProcessor.from_pretrained(folder)
    assert type(images) is HypCLIPImageProcessor
    assert torch.equal(images(noise(), return_tensors="pt")["pixel_values"], model.transform(noise())[None])
    assert torch.equal(images.preprocess([noise()], return_tensors="pt").pixel_values, model.transform(noise())[None])
    assert (images.size, images.crop_size) == ({"shortest_edge": 32}, {"height": 32, "width": 32})


def test_a_generator_of_pictures(processor: HypCLIPProcessor) -> None:
    def pictures() -> Iterator[Image.Image]:
        yield noise()
        yield noise("L")

    assert processor(images=pictures())["pixel_values"].shape == (2, 3, 32, 32)


def test_the_order_of_text_and_images_does_not_matter(processor: HypCLIPProcessor) -> None:
    wanted = processor(text=["a dog"], images=[noise()])
    for got in (processor([noise()], ["a dog"]), processor(["a dog"], [noise()]), processor(noise(), "a dog")):
        assert torch.equal(got["input_ids"], wanted["input_ids"])
        assert torch.equal(got["pixel_values"], wanted["pixel_values"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((6, 5, 2), np.uint8), r"got \(6, 5, 2\)"),
        (np.full((4, 5, 3), 200.0), "uint8"),
        (np.full((4, 5, 3), np.nan), "uint8"),
        (np.zeros((4, 5, 3), np.int64), "not int64"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        ([None], "got NoneType"),
        (3, "got int"),
        ("a.png", "got str: open files first"),
        (b"png", "got bytes"),
    ],
)
def test_what_is_no_picture_is_refused(processor: HypCLIPProcessor, images: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        processor(images=images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_resize": False}, "takes no other do_resize"),
        ({"images_kwargs": {"size": 64}}, "takes no other size"),
        ({"images_kwargs": {"sise": True}}, "takes no other sise"),
        ({"max_len": 5}, "knows no argument 'max_len'"),
    ],
)
def test_another_transform_and_unknown_arguments_are_refused_by_name(
    processor: HypCLIPProcessor, arguments: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        processor(text="a", images=noise(), **arguments)


def test_what_the_transform_does_anyway_may_be_asked_for(model: HypCLIP, processor: HypCLIPProcessor) -> None:
    asked = {"do_resize": True, "do_center_crop": True, "do_convert_rgb": True, "size": {"shortest_edge": 32}}
    pixels = processor(text="a", images=noise(), padding=True, **asked)["pixel_values"]
    assert torch.equal(pixels, model.transform(noise())[None])


@pytest.mark.parametrize("kind", ["U", object])
def test_texts_in_an_array(processor: HypCLIPProcessor, kind: object) -> None:
    """They were taken for pixels."""
    assert processor(text=np.array(["a dog", "a cat"], kind))["input_ids"].tolist() == [
        [49406, 320, 1929, 49407],
        [49406, 320, 2368, 49407],
    ]


@pytest.mark.parametrize("kind", [np.uint16, bool])
def test_grey_arrays_of_other_numbers_are_those_of_the_library(
    model: HypCLIP, processor: HypCLIPProcessor, kind: type
) -> None:
    grey = (np.arange(40 * 50).reshape(40, 50) * 33 % 65536).astype(kind)
    expected = model.transform(from_array(grey))[None]
    assert torch.equal(processor(images=grey)["pixel_values"], expected)
    assert torch.equal(processor(images=grey[..., None])["pixel_values"], expected)


@pytest.mark.parametrize("texts", [[1], ["a", None], [["a"]]])
def test_what_is_no_text_is_refused(processor: HypCLIPProcessor, texts: list) -> None:
    with pytest.raises(InputError, match="text must be str objects"):
        processor(text=texts)


def test_no_text_at_all_gives_no_rows(hub: HypCLIPForHub, processor: HypCLIPProcessor) -> None:
    assert processor(text=[])["input_ids"].shape[0] == 0


# The rest of transformers ---------------------------------------------------------------------------------------------


def test_the_zero_shot_pipeline(model: HypCLIP, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformers = logging.getLogger("transformers")
    transformers.addHandler(caplog.handler)
    try:
        classify = pipeline("zero-shot-image-classification", model=str(folder))
        found = classify(noise(), candidate_labels=["dog", "cat", "word " * 90])
    finally:
        transformers.removeHandler(caplog.handler)
    assert "not supported" not in caplog.text
    prompts = ["This is a photo of dog.", "This is a photo of cat.", f"This is a photo of {'word ' * 90}."]
    logits = model.similarity(model.embed_image([noise()]), model.embed_text(prompts)) * model.logit_scale.detach()
    wanted = dict(zip(["dog", "cat", "word " * 90], logits.softmax(1)[0].tolist(), strict=True))
    assert {each["label"]: each["score"] for each in found} == pytest.approx(wanted, rel=1e-3)
    assert [each["label"] for each in found] == sorted(wanted, key=wanted.__getitem__, reverse=True)
    both = classify([noise(), noise("L")], candidate_labels=["dog", "cat"], hypothesis_template="{}", batch_size=2)
    assert [len(each) for each in both] == [2, 2]


def test_what_is_saved_again_is_loaded_again(folder: Path, tmp_path: Path, processor: HypCLIPProcessor) -> None:
    wanted = processor(text=TEXTS, images=[noise()])
    processor.save_pretrained(tmp_path / "all")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "apart")
    AutoImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "apart")
    again = AutoProcessor.from_pretrained(tmp_path / "all")(text=TEXTS, images=[noise()])
    for name in ("input_ids", "pixel_values"):
        assert torch.equal(again[name], wanted[name])
    tokenizer, images = HypCLIPTokenizer.from_pretrained(tmp_path / "apart"), tmp_path / "apart"
    assert torch.equal(tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"], wanted["input_ids"])
    pixels = HypCLIPImageProcessor.from_pretrained(images)(noise(), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, wanted["pixel_values"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_after_loading_leaves_the_space_exact(
    folder: Path, hub: HypCLIPForHub, processor: HypCLIPProcessor, dtype: torch.dtype
) -> None:
    half = AutoModel.from_pretrained(folder).to(dtype)
    assert next(half.hypclip.image_tower.parameters()).dtype == dtype
    assert half.hypclip.log_curv.dtype == torch.float32
    assert half.hypclip.log_curv.equal(hub.hypclip.log_curv)
    inputs = processor(text=TEXTS, images=[noise()]).to(dtype)
    got, wanted = half(**inputs), hub(**processor(text=TEXTS, images=[noise()]))
    assert got.logits_per_image.dtype == torch.float32
    for name in ("text_embeds", "image_embeds"):
        assert 0 < (got[name] - wanted[name]).norm() < 0.05 * wanted[name].norm()
    assert half.half().float().dtype == torch.float32


def test_a_picture_of_another_size_is_refused_by_name(hub: HypCLIPForHub) -> None:
    with pytest.raises(InputError, match="32 by 32 pixels, got"):
        hub.get_image_features(torch.zeros(1, 3, 48, 48))
