"""Every call, written once for both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, SupportsFloat, TypeVar, Unpack

import httpx2

from .asking import Returning, collection_path, several, to_json
from .browsing import Browsing
from .items import Cone, Item, Rule, Where
from .maps import Drawing
from .results import (
    Classified,
    CollectionInfo,
    Deleted,
    Embedding,
    Hit,
    ModelInfo,
    Ordering,
    Page,
    Related,
    Result,
    Traversal,
    Written,
)

_MAX_CHARS = 32 * 2**20  # of the JSON of a batch: half of what a server takes by default

ResultT = TypeVar("ResultT", bound=Result)


class Routes(Browsing, Drawing):
    """All calls: those that embed, search and write here, those that browse in their base."""

    def embed(
        self,
        inputs: Iterable[Item],
        geometry: Literal["space", "lorentz", "tangent", "poincare"] = "space",
        collection: str = "default",
        batch: int = 256,
    ) -> Returning[list[Embedding]]:
        """Embed items, in as many requests as it takes.

        Args:
            inputs: items; texts and images may be mixed.
            geometry: the coordinates: "space", which every other call takes back, "lorentz" with the time component
                first, "tangent" or "poincare".
            collection: where the items given by `stored` are.
            batch: most items of one request.
        """
        found: list[Embedding] = []
        for content in _batches("inputs", inputs, batch, geometry=geometry, collection=collection):
            found += yield from self._ask("POST", "/embed", content, _rows(Embedding, "data"))
        return found

    def retrieve(
        self,
        query: Item,
        k: int = 10,
        *,
        offset: int = 0,
        max_distance: float | None = None,
        exact: bool | None = None,
        **where: Unpack[Where],
    ) -> Returning[Page[Hit]]:
        """Find the stored points nearest to an item.

        Args:
            query: the item.
            k: how many.
            offset: how many to pass over, for the next page.
            max_distance: only points at most so far; they are then all counted.
            exact: True to be sure; None lets a large collection use its index.
            **where: what to search.
        """
        body = {"query": query, "k": k, "offset": offset, "max_distance": max_distance, "exact": exact, **where}
        return self._ask("POST", "/retrieve", to_json(body), partial(Page.of, Hit))

    def classify(
        self,
        inputs: Iterable[Item],
        labels: Iterable[str] | None = None,
        taxonomy: Iterable[tuple[str, str]] | None = None,
        templates: Iterable[str] | None = None,
        collection: str = "default",
    ) -> Returning[list[Classified]]:
        """Classify items without training.

        Args:
            inputs: items.
            labels: names of the classes. Either these, or
            taxonomy: edges (child, parent), whose leaves are the classes.
            templates: texts with {} where the name goes; None leaves them to the server.
            collection: where the items given by `stored` are.
        """
        given = {"inputs": inputs, "labels": labels, "taxonomy": taxonomy, "templates": templates}
        lists = {name: list(several(name, values)) for name, values in given.items() if values is not None}
        body = {**lists, "collection": collection}
        return self._ask("POST", "/classify", to_json(body), _rows(Classified, "data"))

    def ancestors(self, of: Item, k: int = 10, **cone: Unpack[Cone]) -> Returning[Page[Related]]:
        """Find the first `k` stored points that entail an item, that is, the concepts it is an instance of."""
        return self._ask("POST", "/hierarchy/ancestors", to_json({"of": of, "k": k, **cone}), partial(Page.of, Related))

    def descendants(self, of: Item, k: int = 10, **cone: Unpack[Cone]) -> Returning[Page[Related]]:
        """Find the first `k` of the stored points that an item entails: its instances."""
        return self._ask(
            "POST", "/hierarchy/descendants", to_json({"of": of, "k": k, **cone}), partial(Page.of, Related)
        )

    def common_ancestors(
        self,
        of: Iterable[Item],
        k: int = 10,
        *,
        offset: int = 0,
        rule: Rule | None = None,
        aperture_scale: float = 1.0,
        **where: Unpack[Where],
    ) -> Returning[Page[Related]]:
        """Find the stored points that entail all of the items, the most specific first.

        Of a hit, `distance` is to the farthest item; `angle` and `margin` are of the item that is held least.

        Args:
            of: items.
            k: how many.
            offset: how many to pass over, for the next page.
            rule: what makes one point more general than another; None is the rule of the model.
            aperture_scale: a factor on how wide cones are; below 1 is stricter.
            **where: what to search.
        """
        body = {"of": list(several("of", of)), "k": k, "offset": offset, **_cones(rule, aperture_scale), **where}
        return self._ask("POST", "/hierarchy/common_ancestors", to_json(body), partial(Page.of, Related))

    def traverse(
        self,
        source: Item,
        target: Item | None = None,
        steps: int | None = 50,
        *,
        entailment: bool = True,
        rule: Rule | None = None,
        aperture_scale: float = 1.0,
        **where: Unpack[Where],
    ) -> Returning[Traversal]:
        """Go from an item to another, and return the stored points on the way.

        Args:
            source: from where.
            target: the end of the route; None is the origin.
            steps: how many places to look at; None looks at all of the geodesic.
            entailment: only points that entail the place; else simply the nearest.
            rule: what makes one point more general than another; None is the rule of the model.
            aperture_scale: a factor on how wide cones are; below 1 is stricter.
            **where: what to search.
        """
        cones = {"entailment": entailment, **_cones(rule, aperture_scale)}
        body = {"source": source, "target": target, "steps": steps, **cones, **where}
        return self._ask("POST", "/hierarchy/traverse", to_json(body), Traversal.of)

    def mean(
        self, inputs: Iterable[Item], weights: Iterable[SupportsFloat] | None = None, collection: str = "default"
    ) -> Returning[Embedding]:
        """Average items by the Lorentz centroid; search with it as `point(mean.embedding)`.

        Args:
            inputs: items.
            weights: one per item, 0 or more; None weighs them alike.
            collection: where the items given by `stored` are.
        """
        weighed = None if weights is None else [float(weight) for weight in weights]
        body = {"inputs": list(several("inputs", inputs)), "weights": weighed, "collection": collection}
        return self._ask("POST", "/hierarchy/mean", to_json(body), Embedding.of)

    def order(
        self,
        first: Item,
        second: Item,
        aperture_scale: float = 1.0,
        collection: str = "default",
        *,
        rule: Rule | None = None,
    ) -> Returning[Ordering]:
        """Tell which of two items is the more general, by the rule of the model or by another.

        Args:
            first: an item.
            second: an item.
            aperture_scale: a factor on how wide cones are; below 1 is stricter.
            collection: where the items given by `stored` are.
            rule: what makes one point more general than another; None is the rule of the model.
        """
        body = {"first": first, "second": second, **_cones(rule, aperture_scale), "collection": collection}
        return self._ask("POST", "/hierarchy/order", to_json(body), Ordering.of)

    def put_points(
        self, points: Iterable[Mapping[str, Any]], collection: str = "default", batch: int = 500
    ) -> Returning[Written]:
        """Embed and store points, replacing those whose id is stored, in as many requests as it takes.

        Each request is written whole or not at all. After an error those before it stay written; to do everything again
        does no harm.

        Args:
            points: {"id": …, "metadata": {…}}, and "text": …, **image(…) or **point(…). May be a generator.
            collection: where to; it is made if it does not exist.
            batch: most points of one request. The server also limits the pixels of a request, so a batch of large
                photographs must be small.
        """
        upserted, path = 0, f"{collection_path(collection)}/points"
        for content in _batches("points", points, batch):
            last = yield from self._ask("PUT", path, content, Written.of)
            upserted += last.upserted
        return Written(upserted, last.count)

    def delete_points(self, ids: Iterable[str], collection: str = "default", batch: int = 1000) -> Returning[Deleted]:
        """Remove points by id, at most `batch` per request; ids that are not stored are skipped."""
        deleted, path = 0, f"{collection_path(collection)}/points"
        for content in _batches("ids", ids, batch):
            last = yield from self._ask("DELETE", path, content, Deleted.of)
            deleted += last.deleted
        return Deleted(deleted, last.count)

    def collections(self) -> Returning[list[CollectionInfo]]:
        """List the collections."""
        return self._ask("GET", "/collections", None, _rows(CollectionInfo, "collections"))

    def collection(self, name: str = "default") -> Returning[CollectionInfo]:
        """Describe a collection."""
        return self._ask("GET", collection_path(name), None, CollectionInfo.of)

    def model(self) -> Returning[ModelInfo]:
        """Describe the model."""
        return self._ask("GET", "/model", None, ModelInfo.of)

    def ready(self) -> Returning[bool]:
        """Tell whether the server is there and takes requests; ask once, so that a loop can wait for it."""
        outcome = yield self.http.build_request("GET", "/readyz", timeout=self.timeout_s)
        if isinstance(outcome, httpx2.RequestError) or (outcome is not None and outcome.status_code == 503):
            return False
        return self._read(
            self._successful(outcome), "GET", "/readyz", lambda response: bool(response.json()["status"] == "ready")
        )


def _rows(kind: type[ResultT], field: str) -> Callable[[Any], list[ResultT]]:
    return lambda answer: [kind.of(row) for row in answer[field]]


def _cones(rule: Rule | None, aperture_scale: float) -> dict[str, Any]:
    """Return the fields of a request that set the rule of entailment; without a rule the server takes its model's."""
    return {"aperture_scale": aperture_scale, **({} if rule is None else {"rule": rule})}


def _batches(name: str, items: Iterable[Any], batch: int, **rest: Any) -> Iterator[str]:
    """Yield bodies of at most `batch` items and _MAX_CHARS each; without items one, which the server refuses."""
    start = to_json({**rest, name: []}).removesuffix("]}")
    part: list[str] = []
    chars = 0
    for text in map(to_json, several(name, items)):
        if part and (len(part) >= batch or chars + len(text) > _MAX_CHARS):
            yield start + ",".join(part) + "]}"
            part, chars = [], 0
        part.append(text)
        chars += len(text)
    yield start + ",".join(part) + "]}"
