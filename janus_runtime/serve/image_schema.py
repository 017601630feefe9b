"""Requests for pictures and their answers, as OpenAI's clients form and read them, with the fields that are ours."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..bundle.manifest import Solver
from .api_error import field_error
from .picture_output import Format

# JSON numbers have no NaN, but parsers of JSON do.
Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-1, lt=1 << 64)]


class ImageRequest(BaseModel):
    """What to draw. Fields that are not listed are ignored."""

    # A number in quotes is a mistake in JSON. A form has nothing else: `model_validate(…, strict=False)`.
    model_config = ConfigDict(strict=True, extra="ignore")

    prompt: str = Field(min_length=1, description="What to draw.", examples=["a red circle"])
    model: str | None = Field(None, description="Any name: one model is served, and `model` of the answer names it.")
    n: int = Field(1, ge=1, description="Pictures to draw. Picture i has seed + i.")
    size: str | None = Field(
        None,
        pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$",
        description="`auto` and the native size, or any square up to 1024x1024, to which pictures are scaled (Lanczos).",
        examples=["auto", "512x512", "1024x1024"],
    )
    response_format: Literal["b64_json"] | None = Field(None, description="`url` is not offered: nothing is stored.")
    output_format: Format = "png"
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of jpeg and webp; default 100.")
    background: Literal["opaque", "auto"] | None = Field(None, description="Pictures are always opaque.")
    quality: str | None = Field(None, description="Accepted and ignored: the model has one quality.")
    style: str | None = Field(None, description="Accepted and ignored; say it in the prompt.")
    moderation: str | None = Field(None, description="Accepted and ignored: nothing is filtered.")
    user: str | None = Field(None, description="Accepted and ignored.")
    stream: bool = Field(False, description="Answer with server-sent events; with n 1 only.")
    partial_images: int = Field(0, ge=0, le=3, description="With stream: so many pictures of what is drawn so far.")
    progress: bool = Field(False, description="With stream: an event `janus.progress` for each step.")
    seed: Seed | None = Field(None, description="The same seed draws the same picture; -1 or absent: a random one, which the answer names.")
    guidance_scale: Number | None = Field(None, ge=-1000, le=1000, description="Strength of guidance; default: the model's.")
    cfg_weight: Number | None = Field(None, ge=-1000, le=1000, description="Another name of guidance_scale.")
    temperature: Number | None = Field(None, ge=0, le=1e6, description="Randomness of the draw; default: the model's.")
    top_k: int = Field(0, ge=0, description="Keep the k most likely ids; 0 keeps all.")
    top_p: Number = Field(1.0, gt=0, le=1, description="Keep the most likely ids that reach this probability together.")
    solver: Solver | None = Field(
        None, description="How the flow is integrated; JanusFlow only. Default: euler, as published; ab2 needs fewer steps."
    )
    steps: int | None = Field(None, ge=1, le=10_000, description="Steps of the flow; JanusFlow only. Default: the model's for the solver.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_cannot_be_honoured(cls, fields: Any) -> Any:
        """In words of ours, where the type alone would say only what is expected. A null is as if absent."""
        if not isinstance(fields, dict):
            return fields
        for name, value, message in (
            ("response_format", "url", "response_format url is not offered, for nothing is stored; use b64_json"),
            ("background", "transparent", "background transparent is not offered: the model draws opaque pictures; use opaque or auto"),
            ("output_format", "gif", "output_format gif is not offered; use png, jpeg or webp"),
            ("output_format", "svg", "output_format svg is not offered; use png, jpeg or webp"),
        ):
            if fields.get(name) == value:
                raise field_error(name, message)
        if fields.get("negative_prompt"):
            raise field_error(
                "negative_prompt", "negative_prompt is not offered: the model's guidance has no text; say what you want in the prompt"
            )
        return {name: value for name, value in fields.items() if value is not None}

    @model_validator(mode="after")
    def _check_together(self) -> "ImageRequest":
        if self.stream and self.n > 1:
            raise field_error("n", "n is more than 1 with stream, whose events do not say which picture they are of; ask for one at a time")
        if None not in (self.guidance_scale, self.cfg_weight) and self.guidance_scale != self.cfg_weight:
            raise field_error("guidance_scale", "guidance_scale and cfg_weight are names of one setting and differ; give one of them")
        if self.partial_images and not self.stream:
            raise field_error("partial_images", "partial_images needs stream: true")
        if self.output_compression is not None and self.output_format == "png":
            if self.output_compression != 100:
                raise field_error("output_compression", "output_compression is of jpeg and webp; leave it out for png")
        return self


class EditRequest(ImageRequest):
    """The fields of the form beside its picture."""

    image_weight: Number | None = Field(None, ge=0, le=1000, description="Weight of the picture's features relative to its ids.")
    input_fidelity: Literal["low"] | None = Field(None, description="`high` is not offered.")


class Picture(BaseModel):
    b64_json: str
    seed: int


class InputTokens(BaseModel):
    image_tokens: int
    text_tokens: int


class ImageUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: InputTokens
    total_tokens: int


class ImagesAnswer(BaseModel):
    created: int
    model: str
    background: Literal["opaque"]
    output_format: Format
    size: str
    data: list[Picture]
    usage: ImageUsage
