"""Responses about the server itself: its model, its health, its errors."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
)

from hypclip.geometry.entailment import Entailment, Plane


class ConeInfo(BaseModel):
    """A point entails what lies in its cone: at an angle of at most eta times the half aperture.

    The half aperture of x is asin(min(1, 2 · min_radius / (√curv · |x|))).
    """

    form: Literal["cone"]
    eta: float = Field(examples=[1.0])
    min_radius: float = Field(examples=[0.1])


class PlaneInfo(BaseModel):
    """A point entails what lies beyond it: threshold / √curv or more behind the plane through it across its ray."""

    form: Literal["plane"]
    threshold: float = Field(examples=[0.0])


def rule_info(rule: Entailment) -> ConeInfo | PlaneInfo:
    """Return a rule of entailment as responses have it."""
    if isinstance(rule, Plane):
        return PlaneInfo(form=rule.form, threshold=rule.threshold)
    return ConeInfo(form=rule.form, eta=rule.eta, min_radius=rule.min_radius)


class ModelInfo(BaseModel):
    """The model: its space has curvature −curv and points of dim space components."""

    model: str = Field(examples=["hypclip-0123456789ab"])
    revision: str = Field(description="Hash of the weights.")
    geometry: str = Field(examples=["lorentz"])
    curv: float = Field(examples=[0.5])
    dim: int = Field(examples=[512])
    logit_scale: float = Field(examples=[14.3])
    entailment: ConeInfo | PlaneInfo = Field(
        description="What makes one point more general than another, as the model was trained for: the routes of the "
        "hierarchy go by it unless a request has a `rule`.",
        examples=[{"form": "plane", "threshold": 0.0}, {"form": "cone", "eta": 1.0, "min_radius": 0.1}],
    )


class Health(BaseModel):
    """The server is there."""

    status: Literal["ok", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong. `type` is for programs, `message` for people, `request_id` for the log of the server."""

    type: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: ErrorDetail
