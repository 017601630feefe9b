"""POST /v1/chat/completions: answers to questions about pictures, whole or as a stream."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import Response

from ..events import Failed, Finished, Said, Usage
from ..prompt import Message, are_in_turn
from .api_error import documented, refuse
from .chat_schema import ChatAnswer, ChatMessage, ChatRequest, TextPart
from .event_stream import DONE, EVENT_SCHEMA, EventStream, event
from .idempotency import refuse_key
from .picture_input import check_pixels, read_url
from .service import Service, choose_seed
from .settings import ServeSettings
from .stop_strings import StopStrings
from .work import Work, until_gone

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answers; with `stream` a chunk for each piece of text, and [DONE] at the end.",
        "content": {"text/event-stream": {"schema": EVENT_SCHEMA}},
    }
}
_ERRORS = documented(400, 401, 403, 408, 409, 413, 415, 429, 500, 503, 504)


@dataclass(frozen=True)
class _Piece:
    """Of answer `index`: its next text, or, last, why it ended and what it used."""

    index: int
    text: str
    finish: Literal["stop", "length"] | None = None
    usage: Usage | None = None


def chat_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["answers"])

    @router.post(
        "/v1/chat/completions", response_model=ChatAnswer, responses=_STREAM | _ERRORS, summary="Answer a question, about pictures if given"
    )
    async def completions(request: Request, asked: ChatRequest) -> Response:
        service.require("understanding")
        _check_limits(service, asked)
        if not asked.stream:
            body = await service.answers.get(request, lambda: _answer_all(service, request, asked))
            return Response(body, media_type="application/json")
        refuse_key(request)
        seed = choose_seed(asked.seed)
        work = await until_gone(request.receive, _submit(service, request, asked, seed))
        return EventStream(_stream(work, asked, _head(service, "chat.completion.chunk", seed)), work, service.settings.ping_s)

    return router


def _check_limits(service: Service, asked: ChatRequest) -> None:
    """Raises ApiError on more than this server gives, and on an order of messages that the model was not trained for."""
    settings = service.settings
    service.check_size("n", asked.n, settings.max_n)
    service.check_size("the number of characters", sum(map(_count_chars, asked.messages)), settings.max_prompt_chars)
    service.check_size("the number of pictures", sum(map(_count_images, asked.messages)), settings.max_images)
    if settings.max_tokens is not None:
        service.check_size("max_tokens", asked.max_completion_tokens or asked.max_tokens or 1, settings.max_tokens)
    roles = ["system" if message.role == "developer" else message.role for message in asked.messages]
    if not are_in_turn(roles):
        raise refuse(
            f"the messages are of {', '.join(roles[:20])}; expected a system message or none, then user and assistant in turn, "
            "a user's last",
            "messages",
        )
    for number, message in enumerate(asked.messages):
        if message.role != "user" and _count_images(message):
            raise refuse(f"messages.{number} is of {message.role} and has a picture; only a user's message may", f"messages.{number}")


def _count_chars(message: ChatMessage) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _count_images(message: ChatMessage) -> int:
    return 0 if isinstance(message.content, str) else sum(not isinstance(part, TextPart) for part in message.content)


def _read_messages(messages: Sequence[ChatMessage], settings: ServeSettings) -> list[Message]:
    """Texts of a message on lines of their own, its pictures before them. Blocks: reads pictures."""
    read: list[Message] = []
    every: list[Image.Image] = []
    for number, message in enumerate(messages):
        images: list[Image.Image] = []
        texts = [message.content] if isinstance(message.content, str) else []
        for part in message.content if isinstance(message.content, list) else ():
            if isinstance(part, TextPart):
                texts.append(part.text)
            else:
                images.append(read_url(part.image_url.url, f"picture {len(images)} of messages.{number}", settings))
                every.append(images[-1])
                check_pixels(every, "messages", settings)
        read.append(Message("system" if message.role == "developer" else message.role, "\n".join(texts), tuple(images)))
    return read


async def _submit(service: Service, request: Request, asked: ChatRequest, seed: int) -> Work:
    """Has the answers given. Raises ApiError if a picture cannot be read or the model does not take the request."""
    limit = asked.max_completion_tokens or asked.max_tokens
    if limit is None and service.settings.max_tokens is not None:
        limit = min(service.model.manifest.defaults.max_tokens, service.settings.max_tokens)
    async with service.reading:
        messages = await asyncio.to_thread(_read_messages, asked.messages, service.settings)
        work = Work(service.traffic, service.metrics.meter("chat"))
        request.state.meter = work.meter
        for number in range(asked.n):
            await work.submit(
                partial(
                    service.model.submit_answer,
                    messages,
                    max_tokens=limit,
                    temperature=asked.temperature,
                    top_k=asked.top_k,
                    top_p=asked.top_p,
                    seed=seed + number,
                    deadline_s=service.settings.timeout_s,
                )
            )
    return work


async def _pieces(work: Work, asked: ChatRequest) -> AsyncGenerator[_Piece, None]:
    """Texts as they come, those of several answers mixed; without the stop strings and what follows them."""
    stops = [StopStrings(asked.stops) for _ in range(asked.n)]
    said = [0] * asked.n
    async for index, each in work.events():
        stop = stops[index]
        if isinstance(each, Said):
            said[index] += len(each.text_ids)
            was_found = stop.found
            if text := stop.feed(each.text):
                yield _Piece(index, text)
            if stop.found and not was_found:
                work.stop(index)
        elif isinstance(each, Finished | Failed):
            if text := stop.finish():
                yield _Piece(index, text)
            ended = each.stop if isinstance(each, Finished) and not stop.found else None
            yield _Piece(index, "", "length" if ended == "length" else "stop", each.usage or Usage(0, 0, 0, said[index]))


async def _answer_all(service: Service, request: Request, asked: ChatRequest) -> bytes:
    """The answer's JSON, once all answers are given."""
    seed = choose_seed(asked.seed)
    work = await _submit(service, request, asked, seed)
    try:
        texts, last = [""] * asked.n, dict[int, _Piece]()
        async for piece in _pieces(work, asked):
            texts[piece.index] += piece.text
            last[piece.index] = piece
    finally:
        work.close()
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": last[index].finish,
        }
        for index, text in enumerate(texts)
    ]
    answer = {**_head(service, "chat.completion", seed), "choices": choices, "usage": _usage(list(last.values()))}
    return json.dumps(answer, separators=(",", ":")).encode()


async def _stream(work: Work, asked: ChatRequest, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Chunks: the role of each answer, its text, its end; then, if asked for, one with the usage alone."""
    with_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    rest = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: dict[str, str], finish: str | None = None) -> bytes:
        return event({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], **rest})

    for index in range(asked.n):
        yield chunk(index, {"role": "assistant", "content": ""})
    ends = []
    async for piece in _pieces(work, asked):
        if piece.finish is None:
            yield chunk(piece.index, {"content": piece.text})
        else:
            ends.append(piece)
            yield chunk(piece.index, {}, piece.finish)
    if with_usage:
        yield event({**head, "choices": [], "usage": _usage(ends)})
    yield DONE


def _head(service: Service, kind: str, seed: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": service.model_name,
        "seed": seed,
    }


def _usage(ends: Sequence[_Piece]) -> dict[str, Any]:
    """Answers share their prompt, which counts once."""
    used = [end.usage for end in ends if end.usage is not None]
    prompt = max(used, key=lambda usage: usage.text_tokens + usage.image_tokens)
    cached = min(usage.cached_tokens for usage in used)
    tokens, completion = prompt.text_tokens + prompt.image_tokens, sum(usage.completion_tokens for usage in used)
    return {
        "prompt_tokens": tokens,
        "completion_tokens": completion,
        "total_tokens": tokens + completion,
        "prompt_tokens_details": {"image_tokens": prompt.image_tokens, "text_tokens": prompt.text_tokens, "cached_tokens": cached},
    }
