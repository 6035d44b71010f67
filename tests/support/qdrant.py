"""Clouds of points for the tests of the Qdrant store, and a server that speaks its REST."""

import http.server
import json
import math
import threading
import time
import urllib.parse

import torch
from qdrant_client import QdrantClient, models

from hypclip.geometry import lorentz
from hypclip.search import (
    Points,
)

DIM = 6
CURVS = (0.1, 7.0)


def points(x, ids=None, metadata=None, modality=None):
    ids = ids or [f"p{i}" for i in range(len(x))]
    return Points(ids, x, modality or ["text"] * len(x), metadata or [{} for _ in x])


def cloud(curv, n=120, far=5.0, seed=0):
    """Points at √c·radius up to `far`: scattered, near duplicates, families along rays, and the root thrice."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(n, DIM, generator=generator, dtype=torch.float64), dim=1)
    rho = far * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, DIM, generator=generator, dtype=torch.float64)
    v = rho * unit
    third = n // 3
    v[third : 2 * third] = v[:third] + 1e-4 * noise[:third]
    # Children: farther out, in nearly the direction of a point of the first third.
    v[2 * third : 3 * third] = v[:third] * (1.2 + torch.rand(third, 1, generator=generator)) + 0.002 * noise[:third]
    v[:3] = 0
    v *= (far / torch.linalg.vector_norm(v, dim=1, keepdim=True)).clamp(max=1)
    return lorentz.exp_map0(v / math.sqrt(curv), curv).float()


def found(result):
    return [(hit.distance, hit.id) for hit in result.hits]


def queries(pool, curv):
    """Stored points, the root, places between, in float32 and float64."""
    generator = torch.Generator().manual_seed(1)
    fresh = lorentz.exp_map0(torch.randn(2, DIM, generator=generator, dtype=torch.float64) / math.sqrt(curv), curv)
    return torch.cat([pool.vectors[[0, 10, 50, 90]].double(), fresh])


class Server:
    """Speaks Qdrant's REST for an engine in local mode, and misbehaves as told."""

    def __init__(self):
        self.engine = QdrantClient(":memory:")
        self.version = "1.20.0"
        self.indexes = {}
        self.requests = []
        self.faults = []  # (status, headers, body) to answer with first, or a number of seconds to stay silent
        outer, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urllib.parse.urlsplit(self.path)
                outer.requests.append((self.command, path.path, path.query, len(body)))
                status, headers, content = 200, {}, b""
                fault = outer.faults.pop(0) if outer.faults else None
                if isinstance(fault, float):
                    time.sleep(fault)
                    return
                if fault:
                    status, headers, content = fault
                else:
                    with lock:
                        status, result = outer.serve(self.command, path.path.split("/")[1:], json.loads(body or "null"))
                    content = json.dumps({"status": "ok", "time": 0.0, **result}).encode()
                self.send_response(status)
                for key, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def serve(self, method, path, body):
        def dump(value):
            if isinstance(value, list):
                return [dump(one) for one in value]
            return value.model_dump(mode="json") if hasattr(value, "model_dump") else value

        done = {"operation_id": 1, "status": "completed"}
        if path == [""]:
            return 200, {"title": "qdrant", "version": self.version}
        if path == ["collections"]:
            return 200, {"result": dump(self.engine.get_collections())}
        name, *rest = (urllib.parse.unquote(part) for part in path[1:])
        if not (self.engine.collection_exists(name) or (method, rest) == ("PUT", [])):
            return 404, {"status": {"error": f"Not found: Collection `{name}` doesn't exist!"}}
        match method, rest:
            case "GET", []:
                result = dump(self.engine.get_collection(name))
                result["payload_schema"] = {
                    key: {"data_type": kind, "points": 0} for key, kind in self.indexes.get(name, {}).items()
                }
            case "PUT", []:
                if self.engine.collection_exists(name):
                    return 409, {"status": {"error": f"Wrong input: Collection `{name}` already exists!"}}
                created = models.CreateCollection(**body)
                result = self.engine.create_collection(name, created.vectors, metadata=created.metadata)
                self.created = created
            case "PUT", ["index"]:
                self.indexes.setdefault(name, {})[body["field_name"]] = body["field_schema"]
                result = done
            case "PUT", ["points"]:
                self.engine.upsert(name, [models.PointStruct(**point) for point in body["points"]])
                result = done
            case "POST", ["points", "delete"]:
                self.engine.delete(name, models.PointIdsList(**body))
                result = done
            case "POST", ["points"]:
                asked = models.PointRequest(**body)
                result = dump(self.engine.retrieve(name, asked.ids, asked.with_payload, asked.with_vector))
            case "POST", ["points", "count"]:
                result = dump(self.engine.count(name, models.CountRequest(**body).filter))
            case "POST", ["points", "scroll"]:
                asked = models.ScrollRequest(**body)
                records, after = self.engine.scroll(
                    name,
                    asked.filter,
                    asked.limit,
                    offset=asked.offset,
                    with_payload=asked.with_payload,
                    with_vectors=asked.with_vector,
                )
                result = {"points": dump(records), "next_page_offset": after}
            case "POST", ["points", "query", "batch"]:
                asked = models.QueryRequestBatch(**body).searches
                assert all(search.params.exact for search in asked)
                asked = [search.model_copy(update={"params": None}) for search in asked]
                result = dump(self.engine.query_batch_points(name, asked))
            case "POST", ["snapshots"]:
                result = {"name": "c-1.snapshot", "creation_time": None, "size": 1}
        return 200, {"result": result}

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
        self.engine.close()
