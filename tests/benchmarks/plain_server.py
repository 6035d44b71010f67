"""The server one writes first: FastAPI, one request, one forward pass.

python tests/benchmarks/plain_server.py CHECKPOINT PORT async|def

With `async` the model runs on the event loop, one request after the other; with `def`, in FastAPI's pool of threads.
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import hypclip


class Inputs(BaseModel):
    inputs: list[str]


def main(checkpoint: str, port: str, handler: str) -> None:
    """Serve until a signal comes."""
    torch.set_num_threads(2)
    model = hypclip.load(checkpoint)
    app = FastAPI()

    def answer(request: Inputs) -> JSONResponse:
        points = model.embed_text(request.inputs).tolist()
        return JSONResponse({"data": [{"index": i, "embedding": point} for i, point in enumerate(points)]})

    async def answer_on_the_loop(request: Inputs) -> JSONResponse:
        return answer(request)

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    app.post("/embed")(answer if handler == "def" else answer_on_the_loop)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
