"""Zero-shot classification: pictures against the names of classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from hypclip.data.picture import to_rgb
from hypclip.errors import DataError
from hypclip.files import read_text
from hypclip.model import HypCLIP

DEFAULT_TEMPLATES = ("a {}",)
"""The form of a noun phrase, which is how training names what is in a box."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class LabelledImages:
    """Files with the class of each, and the names of every class."""

    files: list[Path]
    labels: list[int]
    keys: list[str]
    names: list[list[str]]

    @property
    def without_pictures(self) -> list[str]:
        """Keys of classes that only serve as wrong answers."""
        seen = set(self.labels)
        return [key for i, key in enumerate(self.keys) if i not in seen]


def read_labelled_images(root: Path, classes: Path) -> LabelledImages:
    """Read ROOT/<class key>/*.png|jpg|jpeg|webp and a JSON file {"<class key>": "name" | ["name", "synonym"]}.

    A class of the JSON file without a folder takes part as a wrong answer.

    Raises:
        DataError: the JSON file is not of that form, no picture at all, a folder that is empty or names no class.
    """
    names = _read_classes(classes)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    if not folders:
        raise DataError(f"{root} holds no class folders: expected {root}/<class key>/*.png")
    keys = list(names)
    files, labels = [], []
    for folder in folders:
        if folder.name not in names:
            raise DataError(f"{folder} names no class of {classes}: add the key {folder.name!r} or remove the folder")
        inside = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise DataError(f"class {folder.name!r} has no picture: {folder} holds no {', '.join(IMAGE_SUFFIXES)} file")
        files += inside
        labels += [keys.index(folder.name)] * len(inside)
    return LabelledImages(files, labels, keys, list(names.values()))


def _read_classes(path: Path) -> dict[str, list[str]]:
    try:
        data = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read classes from {path}: {error}") from error
    if not isinstance(data, dict) or not data:
        raise DataError(f'{path} must hold {{"<class key>": "name" or ["name", ...]}} with at least one class')
    result = {}
    for key, value in data.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
            raise DataError(f"{path}: class {key!r} must have a name or a list of names, got {value!r}")
        result[key] = names
    return result


def read_templates(path: Path) -> list[str]:
    """Read prompt templates, one a line, each with one {} for the name.

    Raises:
        DataError: unreadable, empty, or a line without exactly one {}.
    """
    try:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read templates from {path}: {error}") from error
    if not lines:
        raise DataError(f"{path} holds no template")
    return check_templates(lines)


def check_templates(templates: Sequence[str]) -> list[str]:
    """Return the templates when each holds exactly one {} and no other brace.

    Raises:
        DataError: one does not, or there is none.
    """
    if not templates:
        raise DataError("there must be at least one template, such as {}")
    for template in templates:
        if template.count("{}") != 1 or any(brace in template.replace("{}", "") for brace in "{}"):
            raise DataError(f"a template needs exactly one {{}} for the name, got {template!r}")
    return list(templates)


def embed_classes(
    model: HypCLIP, names: Sequence[Sequence[str]], templates: Sequence[str] = DEFAULT_TEMPLATES
) -> Float[Tensor, "classes d"]:
    """Embed each class as the mean, in the tangent space, of all its names in all templates."""
    prompts = [[t.format(name) for name in synonyms for t in templates] for synonyms in names]
    flat = model.embed_text([p for group in prompts for p in group])
    curv = model.curv.detach().cpu()
    rows = torch.split(flat, [len(group) for group in prompts])
    return torch.stack([model.metric.mean(group, curv) for group in rows])


def embed_files(model: HypCLIP, files: Sequence[Path], batch_size: int = 256) -> Float[Tensor, "n d"]:
    """Embed picture files.

    Raises:
        DataError: a file cannot be read; the message names it.
    """
    rows = []
    for start in range(0, len(files), batch_size):
        images = []
        for file in files[start : start + batch_size]:
            try:
                with Image.open(file) as image:
                    images.append(to_rgb(image))
            except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
                raise DataError(f"cannot read picture {file}: {error}") from error
        rows.append(model.embed_image(images))
    return torch.cat(rows)


def rank_classes(
    model: HypCLIP, images: Float[Tensor, "n d"], classes: Float[Tensor, "classes d"], k: int = 5
) -> Int[Tensor, "n k"]:
    """Return the indices of the k most similar classes of each image, best first."""
    k = min(k, len(classes))
    return torch.cat([model.similarity(chunk, classes).topk(k, dim=1).indices for chunk in torch.split(images, 1024)])


def accuracy(ranked: Int[Tensor, "n k"], labels: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Yield n, top1, top5 (fractions of pictures) and mean_per_class (top-1 averaged over classes with pictures)."""
    truth = torch.tensor(labels)
    hit = ranked == truth.unsqueeze(1)
    yield "n", len(labels)
    yield "top1", hit[:, 0].double().mean().item()
    yield "top5", hit[:, :5].any(1).double().mean().item()
    counts = torch.bincount(truth)
    right = torch.bincount(truth, weights=hit[:, 0].double())
    yield "mean_per_class", (right[counts > 0] / counts[counts > 0]).mean().item()


def zero_shot(
    model: HypCLIP, data: LabelledImages, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> tuple[Mapping[str, int | float], list[str]]:
    """Classify every picture; return the scores and the predicted class key of each."""
    classes = embed_classes(model, data.names, templates)
    ranked = rank_classes(model, embed_files(model, data.files), classes)
    return dict(accuracy(ranked, data.labels)), [data.keys[i] for i in ranked[:, 0].tolist()]
