"""A checkpoint's config.json, in either published layout, as one set of sizes.

What this export does not build (another activation, scaled RoPE, …) is refused here, by name.
"""

from dataclasses import dataclass
from typing import Any, Literal

from janus_runtime.errors import JanusError

Layout = Literal["multi_modality", "hf"]


class CheckpointError(JanusError):
    """A checkpoint that is missing, incomplete or of an architecture that this export does not know."""


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    max_length: int
    rope_theta: float
    norm_eps: float
    tied_head: bool

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class VisionConfig:
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    norm_eps: float
    aligner_depth: int

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class VQConfig:
    """The VQ tokenizer and what joins it to the language model (embedding, aligner, head)."""

    num_ids: int
    code_size: int
    latent_channels: int
    base_channels: int
    multipliers: tuple[int, ...]
    num_res_blocks: int
    aligner_depth: int
    head_size: int
    grid: int

    @property
    def factor(self) -> int:
        return 1 << (len(self.multipliers) - 1)

    @property
    def image_size(self) -> int:
        return self.grid * self.factor


@dataclass(frozen=True)
class JanusConfig:
    layout: Layout
    text: TextConfig
    vision: VisionConfig
    vq: VQConfig


# Sizes behind the names that the original layout states instead of numbers (siglip_vit.py, vq_model.py).
_SIGLIP: dict[str, dict[str, Any]] = {
    "siglip_large_patch16_384": {"width": 1024, "layers": 24, "heads": 16, "patch_size": 16, "mlp_ratio": 4}
}
_VQ: dict[str, dict[str, Any]] = {"VQ-16": {"z_channels": 256, "ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2}}


# Ten times what any member has; a number beyond it is a mistake that would take long to find otherwise.
_MOST_LAYERS = 300


class _Section:
    """An object inside config.json. Every getter raises CheckpointError with the field's full name."""

    def __init__(self, raw: object, where: str = "") -> None:
        if not isinstance(raw, dict):
            raise CheckpointError(f"config.json: {where or 'the file'} is {raw!r:.60}; expected an object")
        self.raw: dict[str, Any] = raw
        self.where = where

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str, default: object = None) -> Any:
        value = self.raw.get(key, default)
        if value is None:
            raise CheckpointError(f"config.json has no {self.name(key)}; is the file complete?")
        return value

    def section(self, key: str, beneath: dict[str, Any] | None = None) -> "_Section":
        """The object under `key`, with fields that it does not state taken from `beneath`."""
        inner = _Section(self.get(key), self.name(key))
        inner.raw = {**(beneath or {}), **inner.raw}
        return inner

    def integer(self, key: str, default: int | None = None, most: int = 2**31 - 1) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(f"config.json: {self.name(key)} is {value!r:.60}; expected a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e9:
            raise CheckpointError(f"config.json: {self.name(key)} is {value!r:.60}; expected a number above 0")
        return float(value)

    def integers(self, key: str, default: list[int] | None = None) -> tuple[int, ...]:
        values = self.get(key, default)
        if not isinstance(values, list) or not values or not all(type(v) is int and 1 <= v < 2**15 for v in values):
            raise CheckpointError(f"config.json: {self.name(key)} is {values!r:.60}; expected a list of whole numbers above 0")
        return tuple(values)

    def expect(self, key: str, expected: object) -> None:
        """What is not stated is what we expect."""
        got = self.raw.get(key)
        if got is not None and got != expected:
            raise CheckpointError(f"config.json: {self.name(key)} is {got!r:.60}; this export builds {expected!r} only")


def parse_config(raw: dict[str, Any]) -> JanusConfig:
    """config.json -> JanusConfig. Raises CheckpointError naming the field that does not fit."""
    kind = raw.get("model_type")
    if kind == "multi_modality" and "vision_gen_enc_config" in raw:
        raise CheckpointError("this is a JanusFlow checkpoint; this version exports Janus and Janus-Pro")
    if kind not in ("multi_modality", "janus"):
        raise CheckpointError(f"config.json has model_type {kind!r:.60}; expected 'multi_modality' (original) or 'janus' (HF)")
    config = _original(_Section(raw)) if kind == "multi_modality" else _hf(_Section(raw))
    _check(config)
    return config


def _original(raw: _Section) -> JanusConfig:
    vision = raw.section("vision_config")
    vision = vision.section("params", _SIGLIP.get(str(vision.section("params").raw.get("model_name"))))
    vq = raw.section("gen_vision_config")
    vq = vq.section("params", _VQ.get(str(vq.raw.get("cls"))))
    head = raw.section("gen_head_config").section("params")
    aligner, gen_aligner = (raw.section(name).section("params") for name in ("aligner_config", "gen_aligner_config"))
    vision.expect("select_layer", -1)
    for projector in (aligner, gen_aligner):
        projector.expect("projector_type", "mlp_gelu")
    width, size, multipliers = vision.integer("width"), vision.integer("image_size"), vq.integers("ch_mult")
    return JanusConfig(
        "multi_modality",
        _text(raw.section("language_config"), tied=False),
        VisionConfig(
            hidden_size=width,
            mlp_size=int(width * vision.number("mlp_ratio")),
            num_layers=vision.integer("layers", most=_MOST_LAYERS),
            num_heads=vision.integer("heads"),
            image_size=size,
            patch_size=vision.integer("patch_size"),
            norm_eps=1e-6,
            aligner_depth=aligner.integer("depth", most=_MOST_LAYERS),
        ),
        VQConfig(
            num_ids=vq.integer("image_token_size"),
            code_size=vq.integer("n_embed"),
            latent_channels=vq.integer("z_channels"),
            base_channels=vq.integer("ch"),
            multipliers=multipliers,
            num_res_blocks=vq.integer("num_res_blocks", most=_MOST_LAYERS),
            aligner_depth=gen_aligner.integer("depth", most=_MOST_LAYERS),
            head_size=head.integer("image_token_embed"),
            # Pictures are drawn at the size they are seen at.
            grid=max(size >> (len(multipliers) - 1), 1),
        ),
    )


def _hf(raw: _Section) -> JanusConfig:
    vision, vq = raw.section("vision_config"), raw.section("vq_config")
    for section, key, expected in (
        (vision, "hidden_act", "gelu"),
        (vision, "use_qk_norm", False),
        (vision, "attention_bias", True),
        (vq, "hidden_act", "gelu"),
        (vq, "double_latent", False),
    ):
        section.expect(key, expected)
    width, size, patch = vision.integer("hidden_size", 1024), vision.integer("image_size", 384), vision.integer("patch_size", 16)
    # transformers ties by default; with both matrices stored, they stay two.
    tied = bool(raw.raw.get("tie_word_embeddings", True))
    return JanusConfig(
        "hf",
        _text(raw.section("text_config"), tied),
        VisionConfig(
            hidden_size=width,
            mlp_size=int(width * vision.number("mlp_ratio", 4.0)),
            num_layers=vision.integer("num_hidden_layers", 24, _MOST_LAYERS),
            num_heads=vision.integer("num_attention_heads", 16),
            image_size=size,
            patch_size=patch,
            norm_eps=vision.number("layer_norm_eps", 1e-6),
            aligner_depth=vision.integer("depth", 2, _MOST_LAYERS),
        ),
        VQConfig(
            num_ids=vq.integer("num_embeddings", 16384),
            code_size=vq.integer("embed_dim", 8),
            latent_channels=vq.integer("latent_channels", 256),
            base_channels=vq.integer("base_channels", 128),
            multipliers=vq.integers("channel_multiplier", [1, 1, 2, 2, 4]),
            num_res_blocks=vq.integer("num_res_blocks", 2, _MOST_LAYERS),
            aligner_depth=vq.integer("num_hidden_layers", 2, _MOST_LAYERS),
            head_size=vq.integer("projection_dim", 2048),
            # transformers derives the grid from the vision tower, whatever the file says.
            grid=max(size // patch, 1),
        ),
    )


def _text(llama: _Section, tied: bool) -> TextConfig:
    """Defaults are LlamaConfig's: the original config.json is silent on some fields, Pro-7B's on most."""
    heads, width = llama.integer("num_attention_heads", 32), llama.integer("hidden_size", 4096)
    for key, expected in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("num_key_value_heads", heads),
        ("head_dim", width // heads),
    ):
        llama.expect(key, expected)
    rope = _Section(llama.raw.get("rope_parameters") or llama.raw.get("rope_scaling") or {}, llama.name("rope_parameters"))
    for key in ("rope_type", "type"):
        rope.expect(key, "default")
    return TextConfig(
        vocab_size=llama.integer("vocab_size", 32000),
        hidden_size=width,
        mlp_size=llama.integer("intermediate_size", 11008),
        num_layers=llama.integer("num_hidden_layers", 32, _MOST_LAYERS),
        num_heads=heads,
        max_length=llama.integer("max_position_embeddings", 2048),
        rope_theta=rope.number("rope_theta", llama.number("rope_theta", 10000.0)),
        norm_eps=llama.number("rms_norm_eps", 1e-6),
        tied_head=tied or llama.raw.get("tie_word_embeddings") is True,
    )


def _check(config: JanusConfig) -> None:
    text, vision, vq = config.text, config.vision, config.vq
    for what, good in (
        (f"hidden size {text.hidden_size} and {text.num_heads} heads", text.hidden_size % text.num_heads == 0),
        # GroupQueryAttention of ONNX Runtime rotates heads of multiples of 16 only.
        (f"head size {text.head_size} and multiples of 16", text.head_size > 0 and text.head_size % 16 == 0),
        (f"vision width {vision.hidden_size} and {vision.num_heads} heads", vision.hidden_size % vision.num_heads == 0),
        (f"image size {vision.image_size} and patch size {vision.patch_size}", vision.image_size % vision.patch_size == 0),
        (f"VQ widths {vq.base_channels} x {vq.multipliers} and 32 groups", all(vq.base_channels * m % 32 == 0 for m in vq.multipliers)),
        (f"drawn size {vq.image_size} and seen size {vision.image_size}", vq.image_size == vision.image_size),
    ):
        if not good:
            raise CheckpointError(f"config.json: {what} do not fit each other")
