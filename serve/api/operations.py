"""The routes for operating the server: model, liveness, readiness, metrics, reload."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from hypclip.errors import HypclipError
from serve.api.deps import RuntimeDep, ServiceDep
from serve.schemas.operations import Health, ModelInfo, rule_info
from serve.service import Service
from serve.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["server"])


@router.get("/model", summary="Describe the model")
async def model(service: ServiceDep) -> ModelInfo:
    """Return the facts that a client needs to compute with embeddings itself."""
    return _info(service)


@router.get("/healthz", summary="Liveness: is the model worker alive?")
async def healthz(service: ServiceDep, runtime: RuntimeDep) -> Health:
    """Answer 503 when the process of the model is gone or hangs: this server has to be started again."""
    runtime.check_alive(service)
    return Health(status="ok")


@router.get("/readyz", summary="Readiness: should requests be sent here?")
async def readyz(service: ServiceDep, runtime: RuntimeDep) -> Health:
    """Answer 200 when the model is warm and the store open, 503 when not, and 503 once the server is going down."""
    runtime.check_ready(service)
    await service.ask("names", service.store.names)
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: ServiceDep) -> Response:
    """Return counters, gauges and histograms in the text format of Prometheus."""
    try:
        sizes = await asyncio.to_thread(service.store.sizes)
    except HypclipError:
        sizes = {}  # a store that is down is no reason to be blind
    return Response(service.metrics.render(service.seconds_since_heartbeat, sizes), media_type=CONTENT_TYPE)


@router.post("/admin/reload", summary="Load the checkpoint again", tags=["admin"])
async def reload(runtime: RuntimeDep) -> ModelInfo:
    """Load what is now in the checkpoint directory, warm it up, and switch to it; return the model that now answers.

    Requests under way end with the model they began with. If the new one cannot be loaded, the old one goes on.
    A collection belongs to the model it was made with, and is refused to another one (409).
    """
    return _info(await runtime.reload())


def _info(service: Service) -> ModelInfo:
    engine = service.model
    return ModelInfo(
        model=engine.model_id,
        revision=engine.revision,
        geometry=engine.geometry,
        curv=engine.curv,
        dim=engine.dim,
        logit_scale=engine.logit_scale,
        entailment=rule_info(engine.entailment),
    )
