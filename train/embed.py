"""Embed images and texts into a collection of an index, ready to serve. Killed, it goes on when called again.

python train/embed.py --checkpoint runs/quickstart/checkpoint --index runs/quickstart/index \
    --shards runs/quickstart/data/validation --images ROOT --classes classes.json
accelerate launch --config_file configs/accelerate/gpu_8.yaml train/embed.py --checkpoint DIR \
    --shards 'a/{000..999}.tar' --qdrant http://localhost:6333 --work DIR
python train/embed.py --from-parquet DIR --index runs/x/index

Each sample of a shard becomes two points, KEY/image and KEY/text, and of several captions KEY/text/2 and so on; each
image ROOT/<class key>/... one point, named by its way from ROOT; each name of classes.json one text point; and each
phrase of a --taxonomy that stands above another one text point, concept/PHRASE. What is kept of images to show them,
thumbnails and where below a --media-root their files are, goes to thumbnails.sqlite3 in the index; where the points go
to a Qdrant it goes to --work, the folder that the server then takes as HYPCLIP_INDEX.

Every process writes the points of a shard to a Parquet file once it is through, and passes over shards whose file is
there; in the end the first process puts all of them into the collection. A shard that changed (path, size or time; of a
URL, the address) is embedded again. Processes on several machines need a --work or --parquet folder that all of them
see. There the file of a changed shard is replaced; in --parquet it gets a dated name, and is no .parquet any more. That
of a shard which is not asked for stays, and so do all files when something could not be read.

Points are refused whose ids other data has in the collection already, unless --prefix or --replace says what to do. The
same data may be embedded again, and what has changed of it takes the place of what it was; of a Qdrant, which does not
keep where points came from, the second needs --replace.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from tqdm import tqdm

import hypclip
from hypclip import distributed
from hypclip.console import escape_unprintable
from hypclip.data.record import Reading
from hypclip.data.shards import find_shards
from hypclip.data.tally import Tally
from hypclip.errors import ConfigError, DataError, HypclipError, InputError
from hypclip.evaluation.zero_shot import read_labelled_images
from hypclip.files import expand_home, set_aside, user_path
from hypclip.indexing import parquet
from hypclip.indexing.labels import Labels
from hypclip.indexing.shown import Reader, Shown
from hypclip.indexing.sources import Sources, check_free
from hypclip.indexing.units import (
    Unit,
    earlier_parts,
    embed_unit,
    first_samples,
    image_units,
    shard_unit,
    space_of,
    text_unit,
)
from hypclip.model import HypCLIP
from hypclip.search import LocalStore, Points, Space, VectorStore
from hypclip.search.local.sqlite import FILE
from hypclip.search.thumbnails import FILE as THUMBNAILS
from hypclip.search.thumbnails import SIDE, ThumbnailFile, sweep
from hypclip.training.runtime.launch import check_launch

_WAIT = timedelta(days=30)
"""How long a process waits for the slowest one; accelerate would give up after 10 to 30 minutes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--index", type=user_path, help="folder of the index, created when missing")
    target.add_argument("--qdrant", metavar="URL", help="address of a Qdrant in place of an index; needs --work")
    target.add_argument("--parquet", type=user_path, metavar="DIR", help="write Parquet files there, and stop")
    parser.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    parser.add_argument("--checkpoint", type=user_path, help="a model directory")
    parser.add_argument("--shards", type=expand_home, nargs="+", help="shards whose images and captions to embed")
    parser.add_argument("--samples", type=int, help="only the first so many samples of the shards, bad ones included")
    parser.add_argument("--caption-field", default="caption", help="of a sample's .json (%(default)s)")
    parser.add_argument("--keep-damaged", action="store_true", help="use what can be read of a damaged shard")
    parser.add_argument("--images", type=user_path, help="folder with one folder of images a class; needs --classes")
    parser.add_argument("--classes", type=user_path, help="JSON, class key to its name or names")
    parser.add_argument(
        "--taxonomy",
        type=expand_home,
        help="its name or file, as hypclip.taxonomy.load takes it: the phrases above others are points",
    )
    parser.add_argument(
        "--from-parquet", type=user_path, nargs="+", metavar="PATH",
        help="embed nothing, import these files and folders of files; --checkpoint for files that name no model",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=user_path, help="folder of the Parquet files until they are imported (INDEX/parts)"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before the id of every point")
    parser.add_argument(
        "--replace", action="store_true",
        help="take the place of other data's points of the same ids; move an index of another model to a dated name",
    )  # fmt: skip
    parser.add_argument(
        "--thumbnails", type=int, default=SIDE, metavar="PIXELS",
        help="longest side of the thumbnails that the server shows; 0 makes none (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--media-root", type=user_path, metavar="DIR",
        help="note where in this folder the images are, so that a server of this HYPCLIP_MEDIA_ROOT shows them in full",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=128, help="samples per forward pass (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="threads a process that decode images (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        _check(arguments)
        check_launch(os.environ, training=False)
        accelerator = Accelerator(
            # Unless told, accelerate takes each of several processes without a GPU for the only one.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no",  # embeddings are in float32
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_WAIT)],
        )
        if not arguments.from_parquet:
            return _embed(arguments, accelerator)
        if accelerator.is_main_process:
            _import_files(arguments)
    except (HypclipError, OSError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def _check(arguments: argparse.Namespace) -> None:
    embedding = arguments.shards or arguments.images or arguments.classes or arguments.taxonomy
    if arguments.from_parquet and (embedding or arguments.parquet or arguments.work):
        raise ConfigError("--from-parquet imports and does nothing else: leave out what to embed, --parquet and --work")
    if not arguments.from_parquet:
        if (arguments.images is None) != (arguments.classes is None):
            raise ConfigError("--images and --classes belong together")
        if not embedding:
            raise ConfigError("nothing to embed: give --shards, --images with --classes, or --taxonomy")
        if arguments.checkpoint is None:
            raise ConfigError("give the model to embed with: --checkpoint DIR")
        if arguments.qdrant and not arguments.work:
            raise ConfigError("--qdrant needs --work DIR, a folder for the embeddings until they are imported")
        if arguments.parquet and arguments.work:
            raise ConfigError("--parquet DIR is the folder of the files: leave out --work")
        if arguments.parquet and arguments.prefix:
            raise ConfigError("--prefix is for the import of the files: give it with --from-parquet")
    if not 0 <= arguments.thumbnails <= 1024:
        raise ConfigError(f"--thumbnails must be 0 to 1,024 pixels, got {arguments.thumbnails}")
    for name in ("samples", "batch_size", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


# Embed ----------------------------------------------------------------------------------------------------------------


def _embed(arguments: argparse.Namespace, accelerator: Accelerator) -> int:
    """Embed the missing units, in every process; import in the first. Return the exit code."""
    model = hypclip.load(arguments.checkpoint, accelerator.device)
    space = space_of(model)
    units = _units(arguments, model)
    folder: Path = arguments.parquet or arguments.work or arguments.index / "parts"
    first = accelerator.is_main_process
    missing: list[int] = []
    if first:
        _make_way(arguments, space)  # better now than after hours of work
        if arguments.replace:
            _set_parts_aside(folder, units, space)
        missing = [i for i, unit in enumerate(units) if not _is_done(folder / unit.part, space)]
        if len(missing) < len(units):
            tqdm.write(f"{len(units) - len(missing)} of {len(units)} files are in {folder} already", file=sys.stderr)
    # The first process has looked: by now others may have written some.
    missing = distributed.gather_plain(missing)[0]

    tally, failed, moved = Tally(), [], []
    own = missing[accelerator.process_index :: accelerator.num_processes]
    for i in tqdm(own, unit="file", disable=not first):
        counts = Tally()
        images: dict[str, Shown] = {}
        part = folder / units[i].part
        try:
            points = embed_unit(model, units[i], counts, arguments.batch_size, arguments.threads, images)
            parquet.write_points(part, space, points, units[i].source, images)
            for earlier in earlier_parts(folder, units[i]):
                if arguments.parquet:
                    moved.append(set_aside(earlier))
                else:
                    earlier.unlink(missing_ok=True)
        except (DataError, InputError) as error:
            tqdm.write(f"error: {units[i].name}: {error}", file=sys.stderr)
            failed.append(units[i].name)
            continue
        if counts.skipped:
            _warn(f"{units[i].name}: {counts}")
        for shard, why in counts.damaged.items():
            _warn(f"a damaged shard, of which a part is lost: {shard}: {why}")
        tally += counts

    results = distributed.gather_plain((tally, failed, moved))
    if not first:
        return 0  # else the launcher would end the first process, which goes on
    for other, _, _ in results[1:]:
        tally += other
    failed = [name for _, names, _ in results for name in names]
    if moved := [file for _, _, files in results for file in files]:
        print(f"{len(moved)} files of the same data as it was, or of other options, have dated names now: {moved[0]}")
    if tally.skipped:
        _warn(str(tally))
    parts = [folder / unit.part for unit in units if unit.name not in failed]
    count = sum(map(parquet.count_points, parts))
    if count and arguments.parquet:
        print(f"{count} points in {len(parts)} files of {folder}")
    elif count:
        _import(arguments, parts, space)
    if failed:
        named = ", ".join(failed[:10]) + ", …" * (len(failed) > 10)
        raise DataError(f"could not embed {len(failed)} of {len(units)}: {named}; mend and call again, "
                        f"the others are kept in {folder}")  # fmt: skip
    if not count:
        raise DataError(f"there is nothing usable among {tally.read} samples")
    parquet.sweep(parts)
    if not arguments.parquet:
        for part in parts:
            part.unlink()
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    return 0


def _units(arguments: argparse.Namespace, model: HypCLIP) -> list[Unit]:
    units: list[Unit] = []
    labels = Labels(arguments.taxonomy)
    if arguments.shards:
        shards: list[tuple[str, int | None]] = [(shard, None) for shard in find_shards(arguments.shards, "--shards")]
        if arguments.samples:
            names = [shard for shard, _ in shards]
            counting = distributed.rank() == 0
            shards = distributed.gather_plain(first_samples(names, arguments.samples) if counting else [])[0]
        reading, keep = Reading(arguments.caption_field), arguments.keep_damaged
        units += [
            shard_unit(
                shard,
                limit,
                model.transform,
                reading,
                keep,
                side=arguments.thumbnails,
                kind=labels.scene,
                media_root=arguments.media_root,
            )
            for shard, limit in shards
        ]
    if arguments.images:
        data = read_labelled_images(arguments.images, arguments.classes)
        for line in data.warnings():
            if distributed.rank() == 0:
                tqdm.write(f"warning: {line}", file=sys.stderr)
        named = [(key, name) for key, names in zip(data.keys, data.names, strict=True) for name in dict.fromkeys(names)]
        units += image_units(
            data.root,
            data.files,
            [labels.image(data.names[i][0]) for i in data.labels],
            model.transform,
            side=arguments.thumbnails,
            media_root=arguments.media_root,
        )
        texts = [(f"{key}/{name}", name) for key, name in named]
        classes: Path = arguments.classes
        first = {key: names[0] for key, names in zip(data.keys, data.names, strict=True)}
        about = [labels.name(name, first[key]) for key, name in named]
        units.append(text_unit(classes.stem, str(classes.absolute()), texts, about))
    if taxonomy := labels.taxonomy:
        about = [labels.concept(phrase) for phrase in taxonomy.general]
        file = Path(arguments.taxonomy)
        texts = [(f"concept/{phrase}", phrase) for phrase in taxonomy.general]
        source = str(file.absolute()) if file.is_file() else arguments.taxonomy
        units.append(text_unit(file.stem, source, texts, about))
    return units


def _is_done(part: Path, space: Space) -> bool:
    """Tell whether a file is there and whole; refuse that of another model."""
    if not part.is_file():
        return False
    try:
        found = parquet.read_space(part)
    except DataError as error:
        _warn(f"{error}; embedding it again")
        return False
    if not found.same_as(space):
        raise ConfigError(
            f"{part} holds points of {found.beside(space)}, this is {space.beside(found)}: use another folder, or add "
            f"--replace, which moves {part.parent} to a dated name beside it"
        )
    return True


# Import ---------------------------------------------------------------------------------------------------------------


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            shown = [file for file in sorted(path.rglob("*.parquet")) if not _is_hidden(file.relative_to(path))]
            inside = [file for file in shown if file.parent == path]
            if below := [file for file in shown if file not in inside]:
                raise DataError(
                    f"{path} has .parquet files in folders in it, such as {below[0]}: give those folders too, each by "
                    "its name, or name the files"
                )
            if not inside:
                raise DataError(f"there is no .parquet file in {path}")
        files += [file for file in inside if file not in files]
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _import_files(arguments: argparse.Namespace) -> None:
    files = _files(arguments.from_parquet)
    given = space_of(hypclip.load(arguments.checkpoint)) if arguments.checkpoint else None
    spaces = [parquet.read_space(file, given) for file in files]
    for file, space in zip(files, spaces, strict=True):
        if not space.same_as(spaces[0]):
            raise DataError(
                f"{file} holds points of {space.beside(spaces[0])}, and {files[0]} of {spaces[0].beside(space)}: "
                "import them separately"
            )
    _make_way(arguments, spaces[0])
    _import(arguments, files, spaces[0])


def _import(arguments: argparse.Namespace, files: Sequence[Path], space: Space) -> None:
    """Put the points of files into the collection; whatever may be wrong with them is found before the first is."""
    parquet.check_ids(files)
    with contextlib.ExitStack() as opened:
        store: VectorStore | None = None
        if arguments.qdrant or (arguments.index / FILE).is_file():
            store = opened.enter_context(contextlib.closing(_open(arguments)))
        sources = opened.enter_context(Sources(arguments.index))
        blocks = (block for file in files for block in _blocks(arguments, file, space, _warn))
        check_free(store, sources, arguments.collection, blocks, replace=arguments.replace)
        if store is None:
            store = opened.enter_context(contextlib.closing(_open(arguments)))
        store.create_collection(arguments.collection, space)
        folder = arguments.index or arguments.work or files[0].parent
        kept = opened.enter_context(contextlib.closing(ThumbnailFile(folder / THUMBNAILS)))
        for file in files:
            images = Reader(file, arguments.prefix)
            for source, points in _blocks(arguments, file, space, lambda _: None):  # warned of already
                kept.put(arguments.collection, *images.take(points.ids))
                store.upsert(arguments.collection, points)
                sources.note(arguments.collection, points, source)
        if arguments.index:  # which nobody else writes to meanwhile
            sweep(kept, store, 0.0)
        count = store.describe(arguments.collection).count
    print(f"{count} points in collection {arguments.collection!r} of {arguments.qdrant or arguments.index}")


def _blocks(
    arguments: argparse.Namespace, file: Path, space: Space, warn: Callable[[str], Any]
) -> Iterator[tuple[str, Points]]:
    """Yield the points of a file as they are to be in the collection, with the data that they came from."""
    source, prefix = parquet.read_source(file), arguments.prefix
    for points in parquet.merged(parquet.read_points(file, space=space, warn=warn)):
        yield source, replace(points, ids=[prefix + point_id for point_id in points.ids])


def _make_way(arguments: argparse.Namespace, space: Space) -> None:
    """Refuse a collection of another model, or move its index aside where that is asked for."""
    if not arguments.qdrant and not (arguments.index and (arguments.index / FILE).is_file()):
        return
    with contextlib.closing(_open(arguments)) as store:
        there = {collection.name: collection for collection in store.collections()}
    found = there.get(arguments.collection)
    if found is None or found.space.same_as(space):
        return
    if not (arguments.replace and arguments.index):
        found.check_space(space)
    if others := sorted(there.keys() - {arguments.collection}):
        raise ConfigError(
            f"{arguments.index} holds other collections too ({', '.join(others)}), which --replace would move with "
            f"{arguments.collection!r} of another model: give another --index or --collection"
        )
    print(f"the index of another model that was in {arguments.index} is now {set_aside(arguments.index)}")


def _set_parts_aside(folder: Path, units: Sequence[Unit], space: Space) -> None:
    """Move a folder aside that holds a part of another model."""
    for unit in units:
        with contextlib.suppress(DataError):  # damaged, or not there
            if not parquet.read_space(folder / unit.part).same_as(space):
                print(f"the points of another model that were in {folder} are now in {set_aside(folder)}")
                return


def _warn(message: str) -> None:
    tqdm.write(f"warning: {message}", file=sys.stderr)


def _open(arguments: argparse.Namespace) -> VectorStore:
    if arguments.qdrant:
        from hypclip.search import QdrantStore

        return QdrantStore.connect(arguments.qdrant)
    return LocalStore(arguments.index, create=True)


if __name__ == "__main__":
    sys.exit(main())
