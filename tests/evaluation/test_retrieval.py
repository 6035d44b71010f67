"""Retrieval scores against values worked out by hand, and the reading of evaluation shards."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
import webdataset as wds
from PIL import Image
from torch import Tensor

from hypclip.errors import DataError
from hypclip.evaluation.retrieval import read_pairs, retrieval
from tests.support.data import write_pairs
from tests.support.models import tiny_encoder


class GivenSimilarity:
    """A model whose similarities are known: it returns the matrix it was made with."""

    def __init__(self, matrix: list[list[float]]):
        self.matrix = torch.tensor(matrix)

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.shape[0] == self.matrix.shape[0]
        return self.matrix


def scores(matrix: list[list[float]]) -> dict[str, float]:
    rows = torch.zeros(len(matrix), 1)
    return dict(retrieval.__wrapped__(GivenSimilarity(matrix), rows, rows))  # type: ignore[attr-defined]


def test_ranks_by_hand() -> None:
    # image 0 finds its text first; image 1 second; image 2 third. Columns: text 0 first, text 1 first, text 2 third.
    found = scores([[0.9, 0.1, 0.5], [0.7, 0.6, 0.4], [0.8, 0.3, 0.2]])
    assert found["image_to_text_r1"] == pytest.approx(1 / 3)
    assert found["text_to_image_r1"] == pytest.approx(2 / 3)
    assert found["image_to_text_r5"] == found["text_to_image_r5"] == found["image_to_text_r10"] == 1


def test_the_own_partner_far_down_counts_from_its_rank_on() -> None:
    size = 12
    matrix = [[1.0 if j < i else 0.0 for j in range(size)] for i in range(size)]
    for i in range(size):
        matrix[i][i] = 0.5  # exactly i texts are nearer to image i
    found = scores(matrix)
    assert found["image_to_text_r1"] == pytest.approx(1 / 12)
    assert found["image_to_text_r5"] == pytest.approx(5 / 12)
    assert found["image_to_text_r10"] == pytest.approx(10 / 12)


def test_equal_captions_do_not_push_each_other_down() -> None:
    assert scores([[0.5, 0.5], [0.5, 0.5]])["image_to_text_r1"] == 1


def write(path: Path, samples: list[dict[str, bytes]]) -> str:
    with wds.TarWriter(str(path)) as writer:
        for i, sample in enumerate(samples):
            writer.write({"__key__": f"{i:03d}", **sample})
    return str(path)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def test_pairs_are_read_in_order_and_bad_samples_passed_over(tmp_path: Path) -> None:
    good = [{"png": picture(), "json": json.dumps({"caption": f"caption {i}"}).encode()} for i in range(4)]
    bad = {"png": b"not a picture", "json": good[0]["json"]}
    shard = write(tmp_path / "a.tar", [good[0], bad, *good[1:]])
    assert [r.caption for r in read_pairs([shard], 3).records] == ["caption 0", "caption 1", "caption 2"]


def test_what_was_passed_over_is_told(tmp_path: Path) -> None:
    good = {"png": picture(), "txt": b"one"}
    shard = write(tmp_path / "a.tar", [good, {"png": picture(), "cls": b"3"}, good])
    (bad,) = read_pairs([shard], 10).bad
    assert bad == f"no caption: 001 of {shard}: found cls, png; expected txt, or json with 'caption'"
    with pytest.raises(
        DataError, match=r"hold 1, and 1 bad samples: no caption: 001 of .*found cls, png; expected txt"
    ):
        read_pairs([write(tmp_path / "b.tar", [good, {"png": picture(), "cls": b"3"}])], 10)


def with_owners(matrix: list[list[float]], picture_of: list[int]) -> dict[str, float]:
    rows = torch.zeros(len(matrix), 1)
    columns = torch.zeros(len(picture_of), 1)
    found = retrieval.__wrapped__(GivenSimilarity(matrix), rows, columns, torch.tensor(picture_of))  # type: ignore[attr-defined]
    return dict(found)


def test_several_captions_of_an_image_count_as_the_field_counts_them() -> None:
    """Any of an image's captions is a find; each caption looks for its image. Worked out by hand."""
    found = with_owners(
        # captions of image 0: 0, 1, 4; of image 1: 2, 3
        [[0.9, 0.1, 0.8, 0.2, 0.3], [0.5, 0.7, 0.4, 0.6, 0.95]],
        [0, 0, 1, 1, 0],
    )
    assert found["image_to_text_r1"] == pytest.approx(1 / 2)  # image 1 finds a caption of the other, twice, first
    assert found["image_to_text_r5"] == 1
    assert found["text_to_image_r1"] == pytest.approx(2 / 5)  # captions 0 and 3
    assert found["text_to_image_r5"] == 1


def test_one_caption_each_is_the_same_with_and_without_owners() -> None:
    matrix = [[0.9, 0.1, 0.5], [0.7, 0.6, 0.4], [0.8, 0.3, 0.2]]
    assert with_owners(matrix, [0, 1, 2]) == scores(matrix)


def test_an_image_whose_captions_are_no_numbers_is_not_found_among_few() -> None:
    assert with_owners([[float("nan")] * 2, [0.1, 0.2]], [0, 1])["image_to_text_r10"] == 0.5


def test_too_few_pairs_and_a_damaged_shard_are_refused(tmp_path: Path) -> None:
    shard = write(tmp_path / "a.tar", [{"png": picture(), "txt": b"one"}])
    with pytest.raises(DataError, match="at least two images"):
        read_pairs([shard], 10)
    (tmp_path / "b.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(DataError, match=r"cannot read .*b\.tar"):
        read_pairs([str(tmp_path / "b.tar")], 10)


@pytest.mark.parametrize("where", ["all", "own"])
def test_what_is_not_a_number_is_never_found(where: str) -> None:
    """A model that has come to nothing once scored 1.0, since nothing is greater than NaN."""
    matrix = torch.full((12, 12), float("nan")) if where == "all" else torch.zeros(12, 12).fill_diagonal_(float("nan"))
    assert set(scores(matrix.tolist()).values()) == {0.0}


def test_equal_captions_are_equally_similar_to_the_bit() -> None:
    """Else one of two equal captions pushes the other down by rounding."""
    model = tiny_encoder()
    captions = ["a red square", "a blue square", "a red square"] * 40
    texts = model.embed_text(captions)
    generator = torch.Generator().manual_seed(0)
    images = model.embed_image(
        [Image.new("RGB", (32, 32), tuple(torch.randint(256, (3,), generator=generator).tolist())) for _ in captions]
    )
    similarity = model.similarity(images, texts)
    same = torch.tensor([[a == b for a in captions] for b in captions])
    for caption in range(3):
        columns = similarity[:, same[caption]]
        assert torch.equal(columns, columns[:, :1].expand_as(columns))
    found = dict(retrieval(model, torch.cat([texts[:2]]), texts[:2]))
    assert found["image_to_text_r1"] == found["text_to_image_r1"] == 1.0


def test_pairs_come_from_one_shard_after_the_other(tmp_path: Path) -> None:
    shards = write_pairs(tmp_path, [3, 4])
    assert [r.caption for r in read_pairs(shards, 5).records] == ["0000", "0001", "0002", "0003", "0004"]
    with pytest.raises(DataError, match="No such file"):
        read_pairs([shards[0], str(tmp_path / "missing.tar")], 10)
