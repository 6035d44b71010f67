"""Write the quickstart data: training and validation shards with a manifest, and held-out drawings for zero-shot."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import webdataset as wds
from PIL import Image

from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, concepts, taxonomy, tiles
from hypclip.data.quickstart.scenes import SIDE, Split, compose
from hypclip.errors import DataError

JPEG_QUALITY = 90


def write_shards(
    root: Path,
    split: Split,
    count: int,
    *,
    seed: int = 0,
    styles: Sequence[str] = TRAIN_STYLES,
    shard_size: int = 1_000,
    workers: int = 1,
) -> dict[str, Any]:
    """Write `count` scenes as raw GRIT shards under `root`/`split` and a manifest beside them.

    The bytes depend on (seed, split, count, styles, shard_size) alone, not on `workers`. Shards that an earlier, larger
    run left in the folder are removed, since training reads all that a folder holds.

    Args:
        root: folder, created when missing.
        split: which stream of scenes.
        count: scenes in all.
        seed: see `scenes.compose`.
        styles: the artwork to draw with.
        shard_size: scenes a shard; the last may hold fewer.
        workers: processes to draw with.

    Returns:
        The manifest: {"split", "seed", "side", "styles", "samples", "shards": [{"name", "samples", "sha256"}]}.

    Raises:
        DataError: count or shard_size is not positive, or the styles cannot be drawn with (see `scenes.compose`).
    """
    if count < 1 or shard_size < 1:
        raise DataError(f"count and shard_size must be at least 1, got {count} and {shard_size}")
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    jobs = [
        (folder / f"{number:05d}.tar", seed, split, tuple(styles), first, min(first + shard_size, count))
        for number, first in enumerate(range(0, count, shard_size))
    ]
    if workers > 1 and len(jobs) > 1:
        with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
            shards = pool.starmap(_write_shard, jobs, chunksize=1)
    else:
        shards = [_write_shard(*job) for job in jobs]
    for stale in set(folder.glob("[0-9][0-9][0-9][0-9][0-9].tar")) - {job[0] for job in jobs}:
        stale.unlink()
    manifest = {
        "split": split,
        "seed": seed,
        "side": SIDE,
        "styles": list(styles),
        "samples": count,
        "shards": shards,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def shards_are_written(
    folder: Path, split: Split, count: int, *, seed: int = 0, styles: Sequence[str] = TRAIN_STYLES
) -> bool:
    """Tell whether a folder holds the shards that `write_shards` would write, whole; other files there do no harm."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        settings = [manifest[name] for name in ("split", "seed", "side", "styles", "samples")]
        return settings == [split, seed, SIDE, list(styles), count] and all(
            hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest() == shard["sha256"]
            for shard in manifest["shards"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_shard(path: Path, seed: int, split: Split, styles: tuple[str, ...], first: int, last: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    with wds.TarWriter(buffer, encoder=False, mode=0o644, mtime=0, user="hypclip", group="hypclip") as writer:
        for index in range(first, last):
            scene = compose(seed, split, index, styles)
            image = io.BytesIO()
            scene.image.save(image, "JPEG", quality=JPEG_QUALITY)
            record = {
                "key": f"{index:08d}",
                "caption": scene.caption,
                "width": scene.image.width,
                "height": scene.image.height,
                "noun_chunks": scene.noun_chunks,
                "ref_exps": scene.ref_exps,
            }
            text = json.dumps(record).encode()
            writer.write({"__key__": f"{index:08d}", "jpg": image.getvalue(), "json": text})
    content = buffer.getvalue()
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return {"name": path.name, "samples": last - first, "sha256": hashlib.sha256(content).hexdigest()}


def write_zero_shot(
    root: Path, styles: tuple[str, ...] = HELD_OUT_STYLES, side: int = 64, leave_out_every: int | None = None
) -> int:
    """Write single drawings on a plain white ground, with their names and hierarchy, for `train/zero_shot.py`.

    Layout: `root`/images/<code>/<style>.png, `root`/classes.json, `root`/taxonomy.json.

    Args:
        root: the folder.
        styles: the artwork.
        side: of a drawing, in pixels.
        leave_out_every: of every so manieth concept, the first on, there is no drawing; its name stays.

    Returns:
        How many images were written.
    """
    written = 0
    for style in styles:
        for concept, tile in zip(concepts(), tiles(style), strict=True):
            if tile is None or (leave_out_every and concept.index % leave_out_every == 0):
                continue
            path = root / "images" / concept.code / f"{style}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ground = Image.new("RGB", tile.size, "white")
            ground.paste(tile, (0, 0), tile)
            ground.resize((side, side), Image.Resampling.BICUBIC).save(path)
            written += 1
    for name, text in _labels().items():
        (root / name).write_text(text, encoding="utf-8")
    return written


def zero_shot_is_written(root: Path, styles: tuple[str, ...] = HELD_OUT_STYLES) -> bool:
    """Tell whether a folder holds the names, the hierarchy and every image that `write_zero_shot` would write."""
    try:
        labels = all((root / name).read_text(encoding="utf-8") == text for name, text in _labels().items())
    except (OSError, ValueError):
        return False
    return labels and all(
        (root / "images" / concept.code / f"{style}.png").is_file()
        for style in styles
        for concept in concepts()
        if style in concept.styles
    )


def _labels() -> dict[str, str]:
    names = {c.code: c.name for c in concepts()}
    return {
        "classes.json": json.dumps(names, indent=1, ensure_ascii=False),
        "taxonomy.json": json.dumps(taxonomy(), indent=0),
    }
