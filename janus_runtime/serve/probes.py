"""What is served and how it is: models, health, readiness and metrics."""

from typing import Any, Literal, get_args

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from ..bundle.manifest import Solver
from ..drawing.request import SOLVER
from .api_error import ApiError, documented, unavailable
from .metrics import render
from .service import Service


class DrawDefaults(BaseModel):
    """Of a request for pictures. `solver`, its `steps`, and the `solvers` that there are with those of each are null where a model draws
    ids, `temperature` where it does not."""

    guidance_scale: float
    temperature: float | None
    solver: Solver | None
    steps: int | None
    solvers: dict[Solver, int] | None


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "janus-rt"
    tasks: list[str]
    size: str | None
    """Of the pictures that it draws."""
    max_length: int
    """Tokens of a prompt and its answer together."""
    edits: bool
    """Whether /v1/images/edits is offered."""
    defaults: DrawDefaults


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class State(BaseModel):
    status: Literal["ok"] = "ok"


def probe_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["server"])
    manifest, flow = service.model.manifest, service.model.manifest.flow
    side = manifest.image_output.size
    entry = ModelEntry(
        id=service.model_name,
        created=service.started,
        tasks=list(manifest.tasks),
        size=f"{side}x{side}" if "generation" in manifest.tasks else None,
        max_length=manifest.language_model.max_length,
        edits=service.settings.edits and "generation" in manifest.tasks,
        defaults=DrawDefaults(
            guidance_scale=manifest.defaults.cfg_weight,
            temperature=None if flow else manifest.defaults.temperature,
            solver=SOLVER if flow else None,
            steps=flow.schedule(SOLVER).steps if flow else None,
            solvers={solver: flow.schedule(solver).steps for solver in get_args(Solver)} if flow else None,
        ),
    )

    @router.get("/health", summary="The process lives", responses=documented(403))
    async def health() -> State:
        return State()

    @router.get("/ready", summary="The model is loaded and the queue has room", responses=documented(403, 503))
    async def ready() -> State:
        if service.traffic.stopping:
            raise unavailable("the server is stopping", "stopping")
        if reason := service.model.why_not_ready(service.settings.max_queue):
            raise unavailable(reason, "busy")
        return State()

    @router.get("/metrics", response_class=Response, summary="Metrics for Prometheus", responses=_METRICS | documented(401, 403))
    async def metrics() -> Response:
        return Response(render(await service.model.collect(service.metrics.families())), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/models", summary="What is served", responses=documented(401, 403))
    async def models() -> ModelList:
        return ModelList(data=[entry])

    # The name of a model may hold a slash.
    @router.get("/v1/models/{name:path}", summary="What is served, by name", responses=documented(401, 403, 404))
    async def model(name: str) -> ModelEntry:
        if name != entry.id:
            raise ApiError(404, f"there is no model {name!r}; {entry.id!r} is served", code="model_not_found", param="model")
        return entry

    return router


_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
