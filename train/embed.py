"""Embed pictures and texts into a collection of an index, ready to serve. Killed, it goes on when called again.

python train/embed.py --checkpoint runs/quickstart/checkpoint --index runs/quickstart/index \
    --shards runs/quickstart/data/validation --images ROOT --classes classes.json
accelerate launch --multi_gpu --num_processes 8 train/embed.py --checkpoint DIR --shards 'a/{000..999}.tar' \
    --qdrant http://localhost:6333 --work DIR
python train/embed.py --from-parquet DIR --index runs/x/index

Each sample of a shard becomes two points, KEY/image and KEY/text; each picture ROOT/<class key>/... one point, named by
its way from ROOT; each name of classes.json one text point. Every process writes the points of a shard to a Parquet
file once it is through, and passes over shards whose file is there; in the end the first process puts all of them into
the collection. A shard that changed (path, size or time; of a URL, the address) is embedded again. Processes on several
machines need a --work or --parquet folder that all of them see. There the file of a changed shard is replaced; that of
a shard which is no longer asked for stays, and so do all files when something could not be read.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from tqdm import tqdm

import hypclip
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, DataError, HypclipError, InputError
from hypclip.evaluation.zero_shot import read_labelled_images
from hypclip.model import HypCLIP
from hypclip.search import parquet
from hypclip.search.embedding import (
    Tally,
    Unit,
    embed_unit,
    first_samples,
    picture_units,
    remove_earlier,
    shard_unit,
    space_of,
    text_unit,
)
from hypclip.search.local import LocalStore
from hypclip.search.store import Space, VectorStore
from hypclip.training import distributed

_WAIT = timedelta(days=30)
"""How long a process waits for the slowest one; accelerate would give up after 10 to 30 minutes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--index", type=Path, help="folder of the index, created when missing")
    target.add_argument("--qdrant", metavar="URL", help="address of a Qdrant in place of an index; needs --work")
    target.add_argument("--parquet", type=Path, metavar="DIR", help="write Parquet files there, and stop")
    parser.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="a model directory")
    parser.add_argument("--shards", nargs="+", help="shards whose pictures and captions to embed")
    parser.add_argument("--samples", type=int, help="only the first so many samples of the shards, bad ones included")
    parser.add_argument("--images", type=Path, help="folder with one folder of pictures a class; needs --classes")
    parser.add_argument("--classes", type=Path, help="JSON, class key to its name or names")
    parser.add_argument(
        "--from-parquet", type=Path, nargs="+", metavar="PATH",
        help="embed nothing, import these files and folders of files; --checkpoint for files that name no model",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, help="folder of the Parquet files until they are imported (INDEX/parts)")
    parser.add_argument("--batch-size", type=int, default=128, help="samples a forward pass (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="threads a process that decode pictures (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        _check(arguments)
        accelerator = Accelerator(
            # Unless told, accelerate takes each of several processes without a GPU for the only one.
            cpu=not torch.accelerator.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_WAIT)],
        )
        if not arguments.from_parquet:
            return _embed(arguments, accelerator)
        if accelerator.is_main_process:
            _import(arguments, _files(arguments.from_parquet))
    except (HypclipError, OSError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def _check(arguments: argparse.Namespace) -> None:
    embedding = arguments.shards or arguments.images or arguments.classes
    if arguments.from_parquet and (embedding or arguments.parquet or arguments.work):
        raise ConfigError("--from-parquet imports and does nothing else: leave out what to embed, --parquet and --work")
    if not arguments.from_parquet:
        if (arguments.images is None) != (arguments.classes is None):
            raise ConfigError("--images and --classes belong together")
        if not embedding:
            raise ConfigError("nothing to embed: give --shards, --images with --classes, or both")
        if arguments.checkpoint is None:
            raise ConfigError("give the model to embed with: --checkpoint DIR")
        if arguments.qdrant and not arguments.work:
            raise ConfigError("--qdrant needs --work DIR, a folder for the embeddings until they are imported")
        if arguments.parquet and arguments.work:
            raise ConfigError("--parquet DIR is the folder of the files: leave out --work")
    for name in ("samples", "batch_size", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


# Embed ----------------------------------------------------------------------------------------------------------------


def _embed(arguments: argparse.Namespace, accelerator: Accelerator) -> int:
    """Embed what is missing, in every process; import in the first. Return the exit code."""
    model = hypclip.load(arguments.checkpoint, accelerator.device)
    space = space_of(model)
    units = _units(arguments, model)
    folder: Path = arguments.parquet or arguments.work or arguments.index / "parts"
    first = accelerator.is_main_process
    missing: list[int] = []
    if first:
        if arguments.qdrant or (arguments.index and arguments.index.exists()):
            # Better now than after hours of work.
            with contextlib.closing(_open(arguments)) as store:
                for collection in store.collections():
                    if collection.name == arguments.collection:
                        collection.check_space(space)
        missing = [i for i, unit in enumerate(units) if not _is_done(folder / unit.part, space)]
        if len(missing) < len(units):
            tqdm.write(f"{len(units) - len(missing)} of {len(units)} files are in {folder} already", file=sys.stderr)
    # The first process has looked: by now others may have written some.
    missing = distributed.gather_plain(missing)[0]

    tally, failed = Tally(), []
    own = missing[accelerator.process_index :: accelerator.num_processes]
    for i in tqdm(own, unit="file", disable=not first):
        counts = Tally()
        points = embed_unit(model, units[i], counts, arguments.batch_size, arguments.threads)
        try:
            remove_earlier(folder, units[i])
            parquet.write_points(folder / units[i].part, space, points)
        except (DataError, InputError) as error:
            tqdm.write(f"error: {units[i].name}: {error}", file=sys.stderr)
            failed.append(units[i].name)
            continue
        if counts.skipped:
            tqdm.write(f"warning: {units[i].name}: {counts}", file=sys.stderr)
        tally += counts

    results = distributed.gather_plain((tally, failed))
    if not first:
        return 0  # else the launcher would end the first process, which goes on
    for other, _ in results[1:]:
        tally += other
    failed = [name for _, names in results for name in names]
    if tally.skipped:
        tqdm.write(f"warning: {tally}", file=sys.stderr)
    parts = [folder / unit.part for unit in units if unit.name not in failed]
    count = sum(map(parquet.count_points, parts))
    if count and arguments.parquet:
        print(f"{count} points in {len(parts)} files of {folder}")
    elif count:
        _import(arguments, parts)
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
    if arguments.shards:
        shards: list[tuple[str, int | None]] = [(shard, None) for shard in find_shards(arguments.shards)]
        if arguments.samples:
            names = [shard for shard, _ in shards]
            counting = distributed.rank() == 0
            shards = distributed.gather_plain(first_samples(names, arguments.samples) if counting else [])[0]
        units += [shard_unit(shard, limit, model.transform) for shard, limit in shards]
    if arguments.images:
        data = read_labelled_images(arguments.images, arguments.classes)
        for line in data.warnings():
            if distributed.rank() == 0:
                tqdm.write(f"warning: {line}", file=sys.stderr)
        named = [(key, name) for key, names in zip(data.keys, data.names, strict=True) for name in dict.fromkeys(names)]
        units += picture_units(
            data.root, data.files, [{"class": data.names[i][0]} for i in data.labels], model.transform
        )
        texts = [(f"{key}/{name}", name) for key, name in named]
        units.append(text_unit(arguments.classes.stem, texts, [{"class": name} for _, name in named]))
    return units


def _is_done(part: Path, space: Space) -> bool:
    """Tell whether a file is there and whole; refuse that of another model."""
    if not part.is_file():
        return False
    try:
        found = parquet.read_space(part)
    except DataError as error:
        tqdm.write(f"warning: {error}; embedding it again", file=sys.stderr)
        return False
    if not found.same_as(space):
        raise ConfigError(
            f"{part} holds points of {found}, this is {space}: remove {part.parent}, or use another folder"
        )
    return True


# Import ---------------------------------------------------------------------------------------------------------------


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"there is no .parquet file in {path}")
        files += [file for file in inside if file not in files]
    return files


def _import(arguments: argparse.Namespace, files: Sequence[Path]) -> None:
    """Put the points of files into the collection; those of the same ids are replaced."""
    given = space_of(hypclip.load(arguments.checkpoint)) if arguments.from_parquet and arguments.checkpoint else None
    spaces = [parquet.read_space(file, given) for file in files]
    for file, space in zip(files, spaces, strict=True):
        if not space.same_as(spaces[0]):
            raise DataError(f"{file} holds points of {space}, and {files[0]} of {spaces[0]}: import them separately")
    parquet.check_ids(files)
    with contextlib.closing(_open(arguments)) as store:
        store.create_collection(arguments.collection, spaces[0])
        blocks = itertools.chain.from_iterable(parquet.read_points(file, space=given) for file in files)
        for points in parquet.merged(blocks):
            store.upsert(arguments.collection, points)
        count = store.describe(arguments.collection).count
    print(f"{count} points in collection {arguments.collection!r} of {arguments.qdrant or arguments.index}")


def _open(arguments: argparse.Namespace) -> VectorStore:
    if arguments.qdrant:
        from hypclip.search.qdrant import QdrantStore

        return QdrantStore.connect(arguments.qdrant)
    return LocalStore(arguments.index, create=True)


if __name__ == "__main__":
    sys.exit(main())
