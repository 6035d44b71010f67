"""The service behind the routes: it embeds items, and stores, searches and classifies points."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hypclip.geometry.entailment import Cone, Entailment
from hypclip.search import (
    Browser,
    Modality,
    OrderBy,
    Page,
    Points,
    Route,
    Side,
    Space,
    Traversal,
    UnknownCollection,
    VectorStore,
    Where,
    traverse,
)
from hypclip.search.hierarchy import relations
from hypclip.search.layout.kept import About
from hypclip.search.thumbnails import Thumbnail, ThumbnailStore, make_thumbnail
from hypclip.search.types import check_space
from serve.classify import Taxonomy, probabilities, prompts, taxonomy
from serve.errors import InvalidImage, InvalidRequest, LimitExceeded, NoModel
from serve.explore import Explorer
from serve.given import check_count, finite, given_points
from serve.inference.batching import Input
from serve.inference.engine import Engine
from serve.inputs.data_uri import is_image, refuse_image
from serve.inputs.fetch import Fetcher
from serve.inputs.images import decode, is_url, open_images
from serve.inputs.originals import read_original
from serve.schemas.items import EmbeddingItem, IdItem, ImageItem, Item, RootItem, TextItem, Upload
from serve.schemas.points import EmbeddingPoint, Point
from serve.schemas.search import Rule
from serve.settings import Settings
from serve.telemetry.metrics import Metrics
from serve.telemetry.timing import recorded

T = TypeVar("T")


class Embedded(NamedTuple):
    """Points of items, float32, the modality of each, and the number of tokens of those that are texts.

    `thumbnails` has those of images by the index of the item, where they were asked for. All points are of one `space`.
    """

    points: Float[Tensor, "n d"]
    modality: list[Modality]
    tokens: int
    thumbnails: Mapping[int, Thumbnail]
    space: Space


@dataclass(frozen=True)
class Service:
    """One engine, or none, and one store behind the limits of the settings.

    `since` is when the engine was loaded, in Unix time. Without an engine each collection is asked in its own space.

    `image_threads` decode and resize: as many as there are cores, so that only so many images are in memory as pixels,
    and Pillow lets go of the interpreter lock meanwhile. Without `thumbnails` none are made; with them one request
    writes at a time, or the point of one could meet the thumbnail of another.
    """

    settings: Settings
    engine: Engine | None
    store: VectorStore
    metrics: Metrics
    fetcher: Fetcher
    image_threads: Executor
    explorer: Explorer
    thumbnails: ThumbnailStore | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)
    since: int = field(default_factory=lambda: int(time.time()))

    def with_engine(self, engine: Engine) -> Service:
        """Return the same service with another model."""
        return replace(self, engine=engine, since=int(time.time()))

    async def aclose(self) -> None:
        """Close the engine."""
        if self.engine is not None:
            await self.engine.aclose()

    @property
    def model(self) -> Engine:
        """The engine.

        Raises:
            NoModel: there is none.
        """
        if self.engine is None:
            raise NoModel("this")
        return self.engine

    @property
    def seconds_since_heartbeat(self) -> float:
        """Seconds since the last sign of life of the model; 0 where there is none that could die."""
        return 0.0 if self.engine is None else self.engine.seconds_since_heartbeat

    def check_room(self) -> None:
        """Raise Overloaded if any input would be refused."""
        if self.engine is not None:
            self.engine.check_room()

    async def space(self, collection: str) -> Space:
        """Return the space of a request's points: that of the engine, or else of the collection.

        Raises:
            UnknownCollection: there is neither.
        """
        engine = self.engine
        if engine is None:
            return await self.ask("space", partial(self.store.space, collection))
        return Space(engine.model_id, engine.curv, engine.dim, engine.revision, engine.entailment)

    async def entailment(
        self, rule: Rule | None, aperture_scale: float, collection: str, *, reflexive: bool = False
    ) -> Entailment:
        """Return the rule that a request asks for: its own, or that of the model or else of the collection.

        Args:
            rule: of the request.
            aperture_scale: factor on the width of cones.
            collection: of the request.
            reflexive: whether a point entails its own place.

        Raises:
            InvalidRequest: a half-space is to be scaled.
        """
        chosen = (await self.space(collection)).entailment if rule is None else rule.entailment()
        if isinstance(chosen, Cone):
            return replace(chosen, eta=aperture_scale * chosen.eta, strict=not reflexive)
        if aperture_scale != 1:
            raise InvalidRequest(
                f"aperture_scale: {aperture_scale:g} is for cones, and {'the model' if rule is None else 'the rule'} "
                f"entails by planes, which have no width: leave it at 1, and to be stricter give a rule with a larger "
                f'threshold, such as {{"form": "plane", "threshold": {chosen.threshold + 0.1:g}}}'
            )
        return replace(chosen, strict=not reflexive)

    async def ask(self, op: str, call: Callable[[], T]) -> T:
        """Run a call of the store off the event loop, and time it."""
        start = time.perf_counter()
        try:
            with recorded("index"):
                return await asyncio.to_thread(call)
        finally:
            self.metrics.index_seconds.labels(op).observe(time.perf_counter() - start)

    async def browse(self, op: str, name: str, read: Callable[[Browser], T]) -> T:
        """Read of a collection, whatever model it is of."""
        return await self.ask(op, lambda: read(self.store.browse(name)))

    async def check_collection(self, name: str) -> None:
        """Check that the engine's points, if there is one, can be compared with those of a collection.

        Raises:
            UnknownCollection: there is none of this name.
            ModelMismatch: it is of another model.
        """
        check_space(name, await self.ask("space", partial(self.store.space, name)), await self.space(name))

    async def embed(
        self,
        items: Sequence[Item | Point | Upload],
        collection: str,
        *,
        is_checked: bool = False,
        thumbnail_side: int = 0,
    ) -> Embedded:
        """Turn items into float32 points.

        Args:
            items: validated requests.
            collection: where items given by id are.
            is_checked: whether `check_collection` was called for it already.
            thumbnail_side: longest side of the thumbnails to make of images; 0 makes none.

        Raises:
            LimitExceeded, InvalidImage, InputError, UnknownCollection, UnknownPoint, ModelMismatch, NoModel.
        """
        texts: dict[int, str] = {}
        images: dict[int, str | bytes] = {}
        given: dict[int, list[float]] = {}
        stored: dict[int, str] = {}
        modality: list[Modality] = ["text"] * len(items)
        tokens = 0
        thumbnails: dict[int, Thumbnail] = {}
        for i, item in enumerate(items):
            match item:
                case str() if is_image(item):
                    images[i], modality[i] = item, "image"
                case str():
                    texts[i] = item
                case TextItem():
                    texts[i] = refuse_image(item.text)
                case ImageItem():
                    images[i], modality[i] = item.image, "image"
                case Upload():
                    images[i], modality[i] = item.data, "image"
                case EmbeddingItem():
                    given[i] = item.embedding
                    modality[i] = item.modality if isinstance(item, EmbeddingPoint) else "embedding"
                case RootItem():
                    modality[i] = "embedding"
                case IdItem():
                    stored[i] = item.id
        if self.engine is None and (texts or images):
            raise NoModel("to embed a text" if texts else "to embed an image")
        space = await self.space(collection)
        points = torch.zeros(len(items), space.dim)
        # What is cheap to refuse comes first, what costs a forward pass last.
        self._check_texts(texts.values())
        if given:
            points[list(given)] = given_points(given, space)
        if stored:
            if not is_checked:
                await self.check_collection(collection)
            row_of = {point_id: row for row, point_id in enumerate(dict.fromkeys(stored.values()))}
            found = await self.ask("get", partial(self.store.get, collection, list(row_of)))
            for i, point_id in stored.items():
                row = row_of[point_id]
                points[i], modality[i] = found.vectors[row], found.modality[row]
        if images:
            prepared = await self._prepared(list(images.values()), thumbnail_side)
            thumbnails = {i: made for i, (_, made) in zip(images, prepared, strict=True) if made is not None}
            points[list(images)] = finite(await self.model.embed_image([image for image, _ in prepared]))
        if texts:
            embedded = await self.model.embed_text(list(texts.values()))
            points[list(texts)], tokens = finite(embedded.points), embedded.tokens
        return Embedded(points, modality, tokens, thumbnails, space)

    async def embed_inputs(self, inputs: Sequence[Item | Upload], collection: str) -> Embedded:
        """Turn the inputs of a request into points; as `embed`, for no more of them than the settings allow."""
        check_count("the number of inputs", inputs, self.settings.max_inputs, "max_inputs")
        return await self.embed(inputs, collection)

    async def retrieve(
        self,
        query: Item,
        k: int,
        offset: int,
        collection: str,
        where: Where,
        *,
        max_distance: float | None = None,
        exact: bool | None = None,
    ) -> Page:
        """Return a page of the stored points nearest to the query, of those at most a distance away if there is one."""
        self.check_page(k, offset)
        point = (await self._located([query], collection))[0]
        if max_distance is not None:
            search = partial(self.store.within, collection, point, max_distance, where, k=k, offset=offset)
            return await self.ask("within", search)
        nearest = partial(self.store.knn, collection, point[None], k, where, offset=offset, exact=exact)
        return (await self.ask("knn", nearest))[0]

    async def cone(
        self,
        of: Item,
        side: Side,
        k: int,
        offset: int,
        collection: str,
        where: Where,
        *,
        rule: Entailment,
        order_by: OrderBy,
    ) -> Page:
        """Return a page of the ancestors or descendants of an item."""
        self.check_page(k, offset)
        point = (await self._located([of], collection))[0]
        search = partial(self.store.cone, collection, point, side, rule, where, order_by=order_by, k=k, offset=offset)
        return await self.ask("cone", search)

    async def common_ancestors(
        self, of: Sequence[Item], k: int, offset: int, collection: str, where: Where, rule: Entailment
    ) -> Page:
        """Return a page of the common ancestors of items."""
        self.check_page(k, offset)
        check_count("the number of inputs", of, self.settings.max_inputs, "max_inputs")
        points = await self._located(of, collection)
        search = partial(relations.common_ancestors, self.store, collection, points, rule, where, k=k, offset=offset)
        return await self.ask("common_ancestors", search)

    async def traverse(
        self,
        source: Item,
        target: Item | None,
        steps: int | None,
        collection: str,
        where: Where,
        rule: Entailment | None,
    ) -> Traversal:
        """Traverse from an item to another or to the root, among the points that entail it unless `rule` is absent."""
        points = await self._located([source] if target is None else [source, target], collection)
        space = await self.space(collection)
        route = Route(points[0], space.curv, None if target is None else points[1], steps)
        return await self.ask("traverse", partial(traverse, self.store, collection, route, rule, where))

    async def mean(
        self, items: Sequence[Item], weights: Sequence[float] | None, collection: str
    ) -> tuple[Float[Tensor, " d"], Space]:
        """Return the weighted mean of items, in float64, and the space that it lies in."""
        embedded = await self.embed_inputs(items, collection)
        return relations.mean(embedded.points, embedded.space.curv, weights), embedded.space

    async def order(self, first: Item, second: Item, collection: str, rule: Entailment) -> relations.Ordering:
        """Tell which of two items is the more general."""
        embedded = await self.embed([first, second], collection)
        return relations.order(embedded.points[0], embedded.points[1], embedded.space.curv, rule)

    async def map_version(self, name: str) -> str:
        """Return what names the map of a collection as it is now."""
        return await self.ask("map_version", partial(self.explorer.version, name))

    async def map(self, name: str) -> tuple[str, bytes]:
        """Return the map of a collection, also of one of another model: its version, and its columns."""
        return await self.ask("map", partial(self.explorer.map, name))

    async def renew_map(self, name: str) -> About:
        """Lay a collection out anew, and return what is known of the layout."""
        return await self.ask("renew_map", partial(self.explorer.renew, name))

    async def focus(self, name: str, of: Item, target: Item | None, rule: Entailment) -> bytes:
        """Return all points of a collection as seen from an item, in columns."""
        await self.check_collection(name)
        items = [of] if target is None else [of, target]
        points, modality, *_ = await self.embed(items, name, is_checked=True)
        about = {"modality": modality[0], **({"id": of.id} if isinstance(of, IdItem) else {})}
        aim = None if target is None else points[1]
        return await self.ask("focus", partial(self.explorer.focus, name, points[0], rule, aim, about))

    async def classify(
        self, inputs: Sequence[Item], collection: str, labels: Sequence[str], templates: Sequence[str]
    ) -> tuple[Float[Tensor, "n labels"], list[Modality]]:
        """Return the probabilities of the labels for each input, and what each input was made from."""
        engine, limit = self.model, self.settings.max_labels
        if len(labels) * len(templates) > limit:
            raise LimitExceeded(
                "the number of labels times templates", len(labels) * len(templates), limit, "max_labels"
            )
        if any(map(is_image, labels)):
            raise InvalidImage("a label is an image; labels are texts, and images go into inputs")
        texts = prompts(labels, templates)
        self._check_texts(texts)
        given = await self.embed_inputs(inputs, collection)
        embedded = finite((await engine.embed_text(texts)).points)
        scores = await asyncio.to_thread(
            probabilities, given.points, embedded, len(labels), engine.curv, engine.logit_scale, "lorentz"
        )
        return scores, given.modality

    async def taxonomy(self, edges: Sequence[tuple[str, str]]) -> Taxonomy:
        """Build the taxonomy of a request, no larger than the settings allow."""
        check_count("the number of taxonomy edges", edges, self.settings.max_taxonomy_edges, "max_taxonomy_edges")
        return await asyncio.to_thread(taxonomy, edges)

    async def put(self, name: str, points: Sequence[Point]) -> int:
        """Write points, creating the collection if need be, and return how many it has; on disk when this returns."""
        check_count("the number of points", points, self.settings.max_points, "max_points")
        for point in points:
            size = len(json.dumps(point.metadata, ensure_ascii=False).encode())
            if size > self.settings.max_metadata_bytes:
                what = f"the size in bytes of the metadata of point {point.id!r}"
                raise LimitExceeded(what, size, self.settings.max_metadata_bytes, "max_metadata_bytes")
        # Before the forward pass, for a quick refusal; `create_collection` has the last word.
        try:
            await self.check_collection(name)
        except UnknownCollection as error:
            if self.engine is None:
                raise NoModel("to make a collection") from error
        side = self.settings.thumbnails if self.thumbnails is not None else 0
        embedded = await self.embed(points, name, thumbnail_side=side)
        columns = Points([p.id for p in points], embedded.points, embedded.modality, [p.metadata for p in points])
        embedded.space.check_points(embedded.points)
        await self.ask("create", partial(self.store.create_collection, name, embedded.space))
        made = {point.id: embedded.thumbnails.get(i) for i, point in enumerate(points)}
        await self.ask("upsert", partial(self._write, name, columns, made))
        return await self.ask("count", partial(self.store.count, name))

    async def delete(self, name: str, ids: Sequence[str]) -> tuple[int, int]:
        """Remove points; return how many there were, and how many the collection now has."""
        check_count("the number of ids", ids, self.settings.max_points, "max_points")
        deleted = await self.ask("delete", partial(self._delete, name, ids))
        return deleted, await self.ask("count", partial(self.store.count, name))

    async def thumbnails_of(self, name: str, ids: Sequence[str]) -> dict[str, Thumbnail]:
        """Return the thumbnails of those points that there are and that have one, in the order asked for."""
        kept = self.thumbnails
        there = await self.browse("lookup", name, lambda browser: browser.known(ids))
        if kept is None or not self.settings.thumbnails:
            return {}
        found = await self.ask("thumbnails", lambda: kept.get(name, [i for i in ids if i in there]))
        return {point_id: found[point_id] for point_id in ids if point_id in found}

    async def original_of(self, name: str, point_id: str) -> bytes | None:
        """Return the original of a point as WebP; None where there is no point, no original, or no media root."""
        kept, root = self.thumbnails, self.settings.media_root
        there = await self.browse("lookup", name, lambda browser: browser.known([point_id]))
        if kept is None or root is None or not there:
            return None
        places = await self.ask("thumbnails", lambda: kept.originals(name, [point_id]))
        if point_id not in places:
            return None
        read = partial(read_original, root, places[point_id], self.settings)
        return await asyncio.get_running_loop().run_in_executor(self.image_threads, read)

    async def with_thumbnail(self, name: str, ids: Sequence[str]) -> set[str]:
        """Return which of some points have a thumbnail."""
        kept = self.thumbnails
        if kept is None or not self.settings.thumbnails:
            return set()
        return await self.ask("thumbnails", lambda: kept.known(name, ids))

    def _write(self, name: str, points: Points, thumbnails: Mapping[str, Thumbnail | None]) -> None:
        """Write points, and before them their thumbnails."""
        if self.thumbnails is None:
            self.store.upsert(name, points)
            return
        with self.writing:
            self.thumbnails.put(name, thumbnails)
            try:
                self.store.upsert(name, points)
            except BaseException:
                # Whatever is there now must not be shown as what it would have become.
                self.thumbnails.delete(name, points.ids)
                raise

    def _delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points, and after them their thumbnails."""
        if self.thumbnails is None:
            return self.store.delete(name, ids)
        with self.writing:
            count = self.store.delete(name, ids)
            self.thumbnails.delete(name, ids)
        return count

    async def _prepared(
        self, values: Sequence[str | bytes], thumbnail_side: int
    ) -> list[tuple[Input, Thumbnail | None]]:
        """Decode and resize images, and fetch those given by URL where that is allowed."""
        with self.metrics.preprocessing("image"), recorded("pre"):
            files = [
                await self.fetcher.fetch(value) if isinstance(value, str) and is_url(value) else value
                for value in values
            ]
            run = partial(asyncio.get_running_loop().run_in_executor, self.image_threads)
            opened = await run(open_images, files, self.settings)
            tasks = [run(self._image, image, thumbnail_side) for image in opened]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    def _image(self, image: Image.Image, thumbnail_side: int) -> tuple[Input, Thumbnail | None]:
        decoded = decode(image)
        thumbnail = make_thumbnail(decoded, thumbnail_side) if thumbnail_side else None
        return self.model.prepare(decoded), thumbnail

    async def _located(self, items: Sequence[Item], collection: str) -> Float[Tensor, "n d"]:
        """Return the points of items to search a collection with, which is refused first if it is of another model."""
        await self.check_collection(collection)
        return (await self.embed(items, collection, is_checked=True)).points

    def check_page(self, k: int, offset: int) -> None:
        """Refuse a page that is longer, or ends later, than the settings allow."""
        if k > self.settings.max_k:
            raise LimitExceeded("k", k, self.settings.max_k, "max_k")
        if offset + k > self.settings.max_depth:
            raise LimitExceeded("offset + k", offset + k, self.settings.max_depth, "max_depth")

    def _check_texts(self, texts: Iterable[str]) -> None:
        limit = self.settings.max_text_chars
        longest = max(map(len, texts), default=0)
        if longest > limit:
            raise LimitExceeded("the number of characters of a text", longest, limit, "max_text_chars")
