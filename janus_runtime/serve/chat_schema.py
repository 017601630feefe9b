"""Questions and answers as OpenAI's clients form and read them, with the fields that are ours."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .api_error import field_error
from .image_schema import Number, Seed

_STRICT = ConfigDict(strict=True, extra="ignore")


class TextPart(BaseModel):
    model_config = _STRICT

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    model_config = _STRICT

    url: str = Field(description="A data: URL with the picture in base64.", examples=["data:image/png;base64,…"])
    detail: str | None = Field(None, description="Accepted and ignored: the model sees pictures at one size.")


class ImagePart(BaseModel):
    model_config = _STRICT

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    model_config = _STRICT

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] = Field(description="A text, or parts: texts and, of a user, pictures.")


class StreamOptions(BaseModel):
    model_config = _STRICT

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A conversation: a system message or none, then user and assistant in turn, a user's last. Fields not listed are ignored."""

    model_config = _STRICT

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = Field(None, description="Any name: one model is served, and `model` of the answer names it.")
    max_tokens: int | None = Field(None, ge=1, description="Longest answer, in tokens.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens; it counts where both are given.")
    n: int = Field(1, ge=1, description="Answers to give. Answer i has seed + i.")
    stop: str | Annotated[list[str], Field(max_length=4)] | None = Field(None, description="Up to 4 strings that end the answer.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: Seed | None = Field(None, description="-1 or absent: a random one, which the answer names.")
    temperature: Number = Field(0.0, ge=0, le=1e6, description="Randomness of the answer; 0 is greedy.")
    top_k: int = Field(0, ge=0, description="Keep the k most likely ids; 0 keeps all.")
    top_p: Number = Field(1.0, gt=0, le=1, description="Keep the most likely ids that reach this probability together.")
    user: str | None = Field(None, description="Accepted and ignored.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_cannot_be_honoured(cls, fields: Any) -> Any:
        """What would change the answer. A null is as if absent."""
        if not isinstance(fields, dict):
            return fields
        for name in ("tools", "functions", "logit_bias", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "audio",
                     "web_search_options"):  # fmt: skip
            if fields.get(name):
                raise field_error(name, f"{name} is not offered; leave it out")
        wanted = fields.get("response_format")
        if wanted is not None and wanted != {"type": "text"}:
            raise field_error("response_format", "response_format is not offered but as text; ask for the form in words")
        if fields.get("modalities") not in (None, ["text"]):
            raise field_error("modalities", "modalities other than text are not offered; draw with /v1/images/generations")
        if fields.get("tool_choice") not in (None, "none", "auto"):
            raise field_error("tool_choice", "tool_choice is not offered, for there are no tools; leave it out")
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """Without the empty string, which would end everything at once."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)


class PromptTokens(BaseModel):
    image_tokens: int
    text_tokens: int
    cached_tokens: int


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    seed: int
    choices: list[Choice]
    usage: ChatUsage
