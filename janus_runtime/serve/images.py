"""POST /v1/images/generations and /v1/images/edits: pictures from a text, whole or as a stream."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from ..drawing.request import GeneratedImage
from ..events import Drawn, Finished, Partial, Progress, Usage, Waiting
from .api_error import documented, invalid_fields, refuse
from .event_stream import EVENT_SCHEMA, EventStream, event
from .idempotency import refuse_key
from .image_schema import EditRequest, ImageRequest, ImagesAnswer
from .picture_input import check_pixels, read_picture
from .picture_output import PictureOutput, parse_size
from .service import Service, choose_seed
from .settings import ServeSettings
from .work import Work, until_gone

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pictures; with `stream` an event for each picture, the last one that is done.",
        "content": {"text/event-stream": {"schema": EVENT_SCHEMA}},
    }
}
_ERRORS = documented(400, 401, 403, 408, 409, 413, 415, 429, 500, 503, 504)
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/EditRequest"},
                        {"properties": {"image": {"type": "string", "format": "binary"}}, "required": ["image"]},
                    ]
                }
            }
        },
    }
}


class _InMemory(MultiPartParser):
    """Writes no picture to the disk. The body's limit is the limit of its parts."""

    spool_max_size = 1 << 40


def image_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["pictures"])

    @router.post("/v1/images/generations", response_model=ImagesAnswer, responses=_STREAM | _ERRORS, summary="Draw pictures of a text")
    async def generations(request: Request, asked: ImageRequest) -> Response:
        return await _answer(service, request, asked, None)

    @router.post(
        "/v1/images/edits",
        response_model=ImagesAnswer,
        responses=_STREAM | _ERRORS,
        openapi_extra=_FORM,
        summary="Draw pictures of a text and a picture",
        description="For models that were trained for it, such as Janus-4o, and a server that was started with --edits.",
    )
    async def edits(request: Request) -> Response:
        if not service.settings.edits:
            raise refuse(
                f"{service.model_name} is not known to draw from a picture; use /v1/images/generations, or, of a model that was "
                "trained for it, start the server with --edits",
                code="unsupported",
            )
        asked, picture = await _read_form(request)
        return await _answer(service, request, asked, picture)

    return router


async def _read_form(request: Request) -> tuple[EditRequest, bytes]:
    """The form's fields and its picture's file. Raises ApiError."""
    parser = _InMemory(request.headers, request.stream(), max_files=8, max_fields=100)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise refuse(f"the body is not multipart/form-data: {error.message}", code="invalid_form") from None
    try:
        return _read_fields(form), await _read_file(form)
    finally:
        await form.close()


def _read_fields(form: FormData) -> EditRequest:
    if form.get("mask"):
        raise refuse("mask is not offered: the model draws a whole new picture; leave it out", "mask")
    fields = {name: value for name, value in form.items() if isinstance(value, str) and value}
    try:
        return EditRequest.model_validate(fields, strict=False)
    except ValidationError as error:
        raise invalid_fields(error.errors(include_url=False)) from None


async def _read_file(form: FormData) -> bytes:
    files = [*form.getlist("image"), *form.getlist("image[]")]
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        raise refuse(f"the form has {len(files)} fields image; expected one, a picture's file", "image")
    return await files[0].read()


def _decode(picture: bytes, settings: ServeSettings) -> Image.Image:
    image = read_picture(picture, "the image", "image")
    check_pixels([image], "image", settings)
    return image


async def _answer(service: Service, request: Request, asked: ImageRequest, picture: bytes | None) -> Response:
    service.require("generation")
    settings, native = service.settings, service.model.manifest.image_output.size
    service.check_size("n", asked.n, settings.max_n)
    if len(asked.prompt) > settings.max_prompt_chars:
        raise refuse(f"prompt has {len(asked.prompt):,} characters; this server takes {settings.max_prompt_chars:,}", "prompt")
    compression = 100 if asked.output_compression is None else asked.output_compression
    output = PictureOutput(parse_size(asked.size, native), asked.output_format, compression, service.maker)
    if not asked.stream:
        body = await service.answers.get(request, lambda: _draw_all(service, request, asked, picture, output))
        return Response(body, media_type="application/json")
    refuse_key(request)
    seed = choose_seed(asked.seed)
    work = await until_gone(request.receive, _submit(service, request, asked, picture, seed))
    kind = "image_generation" if picture is None else "image_edit"
    return EventStream(_stream(work, kind, output, service.model_name, asked.progress), work, settings.ping_s)


async def _submit(service: Service, request: Request, asked: ImageRequest, picture: bytes | None, seed: int) -> Work:
    """Has the pictures drawn. Raises ApiError if the model does not take the request."""
    async with service.reading:
        image = None if picture is None else await asyncio.to_thread(_decode, picture, service.settings)
        work = Work(service.traffic, service.metrics.meter("image"))
        request.state.meter = work.meter
        await work.submit(
            partial(
                service.model.submit_drawing,
                asked.prompt,
                asked.n,
                seed=seed,
                cfg_weight=asked.cfg_weight if asked.guidance_scale is None else asked.guidance_scale,
                temperature=asked.temperature,
                top_k=asked.top_k,
                top_p=asked.top_p,
                solver=asked.solver,
                steps=asked.steps,
                image=image,
                image_weight=asked.image_weight if isinstance(asked, EditRequest) else None,
                partial_images=asked.partial_images,
                progress=asked.stream and asked.progress,
                deadline_s=service.settings.timeout_s,
            )
        )
    return work


async def _draw_all(service: Service, request: Request, asked: ImageRequest, picture: bytes | None, output: PictureOutput) -> bytes:
    """The answer's JSON, once all pictures are done."""
    work = await _submit(service, request, asked, picture, choose_seed(asked.seed))
    try:
        encoded: dict[int, asyncio.Task[dict[str, Any]]] = {}
        usage = None
        async for _, each in work.events():
            if isinstance(each, Drawn):
                # While the others are still being drawn.
                encoded[each.number] = asyncio.create_task(_encode(each.picture, output))
            elif isinstance(each, Finished):
                usage = each.usage
        assert usage is not None
        data = [await encoded[number] for number in sorted(encoded)]
    finally:
        work.close()
    answer = {
        "created": int(time.time()),
        "model": service.model_name,
        "background": "opaque",
        "output_format": output.format,
        "size": output.stated_size,
        "data": data,
        "usage": _usage(usage),
    }
    return await asyncio.to_thread(lambda: json.dumps(answer, separators=(",", ":")).encode())


async def _encode(picture: GeneratedImage, output: PictureOutput) -> dict[str, Any]:
    return {"b64_json": await asyncio.to_thread(output.encode, picture.image, picture), "seed": picture.seed}


async def _stream(work: Work, kind: str, output: PictureOutput, model: str, progress: bool) -> AsyncGenerator[bytes, None]:
    """Events of one picture: progress, what is drawn so far, and the picture that is done, when its usage is known."""
    common = {"background": "opaque", "created_at": int(time.time()), "output_format": output.format, "quality": "auto"}
    common |= {"size": output.stated_size, "model": model}
    done: dict[str, Any] = {}
    async for _, each in work.events():
        if isinstance(each, Progress):
            yield _named({"type": "janus.progress", "step": each.step, "total": each.total})
        elif isinstance(each, Waiting) and progress:
            yield _named({"type": "janus.waiting", "ahead": each.ahead})
        elif isinstance(each, Partial):
            encoded = await asyncio.to_thread(output.encode, each.image)
            yield _named({"type": f"{kind}.partial_image", "b64_json": encoded, "partial_image_index": each.index, **common})
        elif isinstance(each, Drawn):
            done = await _encode(each.picture, output)
        elif isinstance(each, Finished):
            yield _named({"type": f"{kind}.completed", **done, **common, "usage": _usage(each.usage)})


def _named(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


def _usage(usage: Usage) -> dict[str, Any]:
    prompt = usage.text_tokens + usage.image_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"image_tokens": usage.image_tokens, "text_tokens": usage.text_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"image_tokens": usage.completion_tokens, "text_tokens": 0},
        "total_tokens": prompt + usage.completion_tokens,
    }
