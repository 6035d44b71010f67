"""Zero-shot classification: images against the names of classes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from open_clip.tokenizer import get_clean_fn
from PIL import Image
from torch import Tensor

from hypclip.client.rgb import to_rgb
from hypclip.errors import DataError
from hypclip.evaluation.folders import count_by_suffix, find_files, is_hidden, name_files, same_form
from hypclip.files import read_text
from hypclip.model import HypCLIP

DEFAULT_TEMPLATES = ("a {}",)
"""The form of a noun phrase, which is how training names what is in a box."""
_NAMED = 3
"""How many classes, names or files a message names."""


@dataclass(frozen=True)
class LabelledImages:
    """Files with the class of each, and the names of every class.

    Args:
        root: the folder of the class folders.
        files: images.
        labels: the place of each one's class in `keys`.
        keys: of the classes.
        names: one or more a class.
        passed_over: files that are no image, and why, or may be of another class, one line per kind.
    """

    root: Path
    files: list[Path]
    labels: list[int]
    keys: list[str]
    names: list[list[str]]
    passed_over: list[str] = field(default_factory=list)

    @property
    def without_images(self) -> list[str]:
        """Keys of classes that only serve as wrong answers."""
        seen = set(self.labels)
        return [key for i, key in enumerate(self.keys) if i not in seen]

    @property
    def shared_names(self) -> dict[str, list[str]]:
        """Names that several classes have, as the model reads them, with the keys of these classes."""
        found: dict[str, dict[str, None]] = {}
        for key, names in zip(self.keys, self.names, strict=True):
            for name in names:
                found.setdefault(_as_read(name), {})[key] = None
        return {name: list(keys) for name, keys in found.items() if len(keys) > 1}

    @property
    def classes_of_shared_names(self) -> int:
        """Number of classes that share a name with another."""
        return len({key for keys in self.shared_names.values() for key in keys})

    def warnings(self) -> list[str]:
        """Return warnings to read before the scores, one per line."""
        lines = list(self.passed_over)
        shared = list(self.shared_names.items())
        read = {key: {_as_read(name) for name in names} for key, names in zip(self.keys, self.names, strict=True)}
        for name, keys in shared[:_NAMED]:
            listed = ", ".join(map(repr, keys[:_NAMED])) + ", …" * (len(keys) > _NAMED)
            same = len({frozenset(read[key]) for key in keys}) < len(keys)
            effect = (
                "those without another name are the same to the model, and all but one can never be predicted"
                if same
                else "their other names alone tell them apart"
            )
            lines.append(
                f"{len(keys)} classes share the name {name!r} ({listed}): {effect}; give each a name of its own, such "
                f"as '{name} (animal)'"
            )
        if len(shared) > _NAMED:
            lines.append(f"{len(shared) - _NAMED} more names are shared; {self.classes_of_shared_names} classes in all")
        return lines


def read_labelled_images(root: Path, classes: Path) -> LabelledImages:
    """Read ROOT/<class key>/* and a JSON file {"<class key>": "name" | ["name", "synonym"]}.

    Images are files of all formats that Pillow reads, also in folders of the class folders. Hidden files and folders,
    and those that systems leave, are passed over; all else is counted in `passed_over`. A class of the JSON file
    without a folder takes part as a wrong answer.

    Raises:
        DataError: the JSON file is not of that form, no image at all, a folder that is empty or names no class.
    """
    names = _read_classes(classes)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p))
    if not folders:
        raise DataError(f"{root} holds no class folders: expected {root}/<class key>/*.png")
    keys = list(names)
    files, labels = [], []
    others: list[Path] = []
    broken: list[Path] = []
    beside: list[Path] = []
    nested: list[Path] = []
    for folder in folders:
        if same_form(folder.name) not in names:
            raise DataError(f"{folder} names no class of {classes}: {_advice(folder, names)}")
        found = find_files(folder)
        if not found.images:
            rest = [*found.others, *found.broken]
            seen = f"only {count_by_suffix(rest, root)}" if rest else "no file"
            raise DataError(
                f"class {folder.name!r} has no image: {folder} holds {seen}; expected .jpg, .png or another format "
                "that Pillow reads, or no such folder"
            )
        inside = {parent for file in found.images for parent in file.parents if folder in parent.parents}
        nested += [one for one in sorted(inside) if same_form(one.name) in names.keys() - {same_form(folder.name)}]
        files += found.images
        labels += [keys.index(same_form(folder.name))] * len(found.images)
        others += found.others
        broken += found.broken
    for path in sorted(root.iterdir()):
        if not path.is_dir() and not is_hidden(path) and path.suffix.lower() != ".json":
            (beside if path.exists() else broken).append(path)
    passed_over = []
    for some, why, named in (
        (others, "that Pillow does not read", count_by_suffix(others, root)),
        (beside, "in no class folder", count_by_suffix(beside, root)),
        (broken, "that lead nowhere", name_files(broken, root)),
    ):
        if some:
            count = f"{len(some)} file{'s' * (len(some) > 1)}"
            passed_over.append(f"passed over {count} of {root} {why}: {named}")
    if nested:
        passed_over.append(
            f"folders in class folders have names of other classes, and what is in them counts as the outer one: "
            f"{name_files(nested, root)}; where that is not meant, move them to {root}"
        )
    return LabelledImages(root, files, labels, keys, list(names.values()), passed_over)


def _advice(folder: Path, names: Mapping[str, Sequence[str]]) -> str:
    """Advise on a folder that names no class."""
    called = same_form(folder.name)
    if key := next((key for key, own in names.items() if _as_read(called) in map(_as_read, [key, *own])), None):
        return f"folders are named by the keys of classes, and this may be {key!r}: rename it"
    if any(same_form(inside.name) in names for inside in folder.iterdir() if inside.is_dir()):
        return f"it holds class folders itself; --images may be meant to be {folder}"
    return f"add the key {called!r} or remove the folder"


def _as_read(name: str) -> str:
    """Return a name as CLIP's tokenizer reads it: case and spaces make no difference, nor do HTML entities."""
    cleaned: str = get_clean_fn("lower")(name)
    return cleaned


def _read_classes(path: Path) -> dict[str, list[str]]:
    try:
        data = json.loads(read_text(path), object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read classes from {path}: {error}") from error
    if not isinstance(data, dict) or not data:
        raise DataError(f'{path} must hold {{"<class key>": "name" or ["name", ...]}} with at least one class')
    result: dict[str, list[str]] = {}
    for key, value in data.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
            raise DataError(f"{path}: class {key!r} must have a name or a list of names, got {value!r}")
        if result.setdefault(same_form(key), names) is not names:
            raise DataError(f"{path}: class {key!r} comes twice, in two spellings of the same Unicode text")
    return result


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of JSON, of which Python would keep only the last of equal keys."""
    counted = Counter(key for key, _ in pairs)
    if twice := [key for key, count in counted.items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} comes {counted[twice[0]]} times")
    return dict(pairs)


def read_templates(path: Path) -> list[str]:
    """Read prompt templates, one per line, each with one {} for the name.

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
    """Embed image files.

    Raises:
        DataError: files cannot be read; the message counts them and names the first.
    """
    rows = []
    bad: list[str] = []
    for start in range(0, len(files), batch_size):
        images = []
        for file in files[start : start + batch_size]:
            try:
                with Image.open(file) as image:
                    images.append(to_rgb(image))
            except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
                bad.append(f"{file}: {error}")
        if not bad:  # else only the others that cannot be read are looked for
            rows.append(model.embed_image(images))
    if bad:
        shown = "; ".join(bad[:_NAMED]) + "; …" * (len(bad) > _NAMED)
        raise DataError(f"cannot read {len(bad)} of {len(files)} images: {shown}: mend or remove them")
    return torch.cat(rows)


def rank_classes(
    model: HypCLIP, images: Float[Tensor, "n d"], classes: Float[Tensor, "classes d"], k: int = 5
) -> Int[Tensor, "n k"]:
    """Return the indices of the k most similar classes of each image, best first."""
    k = min(k, len(classes))
    return torch.cat([model.similarity(chunk, classes).topk(k, dim=1).indices for chunk in torch.split(images, 1024)])


def accuracy(ranked: Int[Tensor, "n k"], labels: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Yield n, top1, top5 (fractions of images) and mean_per_class (top-1 averaged over classes with images)."""
    truth = torch.tensor(labels)
    hit = ranked == truth.unsqueeze(1)
    yield "n", len(labels)
    yield "top1", hit[:, 0].double().mean().item()
    yield "top5", hit[:, :5].any(1).double().mean().item()
    counts = torch.bincount(truth)
    right = torch.bincount(truth, weights=hit[:, 0].double())
    yield "mean_per_class", (right[counts > 0] / counts[counts > 0]).mean().item()


def zero_shot(
    model: HypCLIP,
    data: LabelledImages,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    images: Float[Tensor, "n d"] | None = None,
) -> tuple[Mapping[str, int | float], list[str]]:
    """Classify every image; return the scores and the predicted class key of each.

    Where classes have names that are another's too, `shared_names` among the scores says how many of them there are.

    Args:
        model: the model.
        data: the images and the classes.
        templates: prompts, with {} for the name.
        images: embeddings of the files, where they have been made already.
    """
    classes = embed_classes(model, data.names, templates)
    ranked = rank_classes(model, embed_files(model, data.files) if images is None else images, classes)
    scores = dict(accuracy(ranked, data.labels))
    if shared := data.classes_of_shared_names:
        scores["shared_names"] = shared
    return scores, [data.keys[i] for i in ranked[:, 0].tolist()]
