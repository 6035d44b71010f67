"""/v1/models: what clients of the OpenAI API ask for first."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, Field

from serve.api.deps import ServiceDep
from serve.errors import UnknownModel
from serve.inference.engine import Engine
from serve.service import Service

router = APIRouter(prefix="/v1", tags=["embed"])

NAMES = ("hypclip", "default")
"""Names of the served model besides its id, since a client of this API has to give one."""


def require_model(engine: Engine, name: str) -> None:
    """Refuse a name that is neither the id of the served model nor one of NAMES.

    Raises:
        UnknownModel: it is another.
    """
    if name not in (engine.model_id, *NAMES):
        others = " and ".join(repr(each) for each in NAMES)
        raise UnknownModel(
            f"there is no model {name!r} here; this server has {engine.model_id!r}, which answers to {others} too"
        )


class OpenAIModel(BaseModel):
    """A model by one of its names."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the server took it up, in seconds of Unix time.")
    owned_by: Literal["hypclip"] = "hypclip"
    root: str = Field(description="The id of the model that answers to this name.")


class OpenAIModels(BaseModel):
    """The served model, by its id and by the names that it answers to as well."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


@router.get("/models", summary="List models, as OpenAI does")
async def models(service: ServiceDep) -> OpenAIModels:
    """Return the served model, if there is one: its id first, then the names that stay when the model changes."""
    names = () if service.engine is None else dict.fromkeys((service.engine.model_id, *NAMES))
    return OpenAIModels(data=[_model(service, name) for name in names])


@router.get("/models/{model:path}", summary="Describe a model, as OpenAI does")
async def model(
    model: Annotated[str, Path(description="The id of the model or another of its names; it may have slashes.")],
    service: ServiceDep,
) -> OpenAIModel:
    """Return the served model by one of its names."""
    if not model:
        raise HTTPException(404)  # /v1/models/, which is no name but a slash too many
    require_model(service.model, model)
    return _model(service, model)


def _model(service: Service, name: str) -> OpenAIModel:
    return OpenAIModel(id=name, created=service.since, root=service.model.model_id)
