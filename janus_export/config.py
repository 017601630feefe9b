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
_SIGLIP = {"siglip_large_patch16_384": {"width": 1024, "layers": 24, "heads": 16, "patch_size": 16, "mlp_ratio": 4}}
_VQ = {"VQ-16": {"z_channels": 256, "ch": 128, "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2}}
# What transformers' LlamaConfig says where the original config.json is silent; Pro-7B's is silent on most.
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def parse_config(raw: dict[str, Any]) -> JanusConfig:
    """config.json -> JanusConfig. Raises CheckpointError naming the field that does not fit."""
    kind = raw.get("model_type")
    if kind == "multi_modality" and "vision_gen_enc_config" in raw:
        raise CheckpointError("this is a JanusFlow checkpoint; this version exports Janus and Janus-Pro")
    if kind not in ("multi_modality", "janus"):
        raise CheckpointError(f"config.json has model_type {kind!r}; expected 'multi_modality' (original) or 'janus' (HF)")
    try:
        config = _original(raw) if kind == "multi_modality" else _hf(raw)
    except KeyError as error:
        raise CheckpointError(f"config.json has no {error.args[0]!r}; is the file complete?") from None
    _check(config)
    return config


def _original(raw: dict[str, Any]) -> JanusConfig:
    vision = raw["vision_config"]["params"]
    siglip = {**_named(_SIGLIP, vision, "model_name"), **vision}
    vq_raw = raw["gen_vision_config"]
    vq = {**_named(_VQ, vq_raw, "cls"), **vq_raw["params"]}
    head = raw["gen_head_config"]["params"]
    _expect("vision_config.params.select_layer", vision.get("select_layer", -1), -1)
    for name in ("aligner_config", "gen_aligner_config"):
        _expect(f"{name}.params.projector_type", raw[name]["params"].get("projector_type", "mlp_gelu"), "mlp_gelu")
    size, factor = siglip["image_size"], 1 << (len(vq["ch_mult"]) - 1)
    return JanusConfig(
        "multi_modality",
        _text(raw["language_config"]),
        VisionConfig(
            siglip["width"],
            int(siglip["width"] * siglip["mlp_ratio"]),
            siglip["layers"],
            siglip["heads"],
            size,
            siglip["patch_size"],
            1e-6,
            raw["aligner_config"]["params"]["depth"],
        ),
        VQConfig(
            vq["image_token_size"],
            vq["n_embed"],
            vq["z_channels"],
            vq["ch"],
            tuple(vq["ch_mult"]),
            vq["num_res_blocks"],
            raw["gen_aligner_config"]["params"]["depth"],
            head["image_token_embed"],
            vq.get("image_size", size) // factor,
        ),
    )


def _hf(raw: dict[str, Any]) -> JanusConfig:
    vision, vq = raw["vision_config"], raw["vq_config"]
    for name, section, key, expected in (
        ("vision_config", vision, "hidden_act", "gelu"),
        ("vision_config", vision, "use_qk_norm", False),
        ("vision_config", vision, "attention_bias", True),
        ("vq_config", vq, "hidden_act", "gelu"),
        ("vq_config", vq, "double_latent", False),
    ):
        _expect(f"{name}.{key}", section.get(key, expected), expected)
    width = vision.get("hidden_size", 1024)
    return JanusConfig(
        "hf",
        _text(raw["text_config"]),
        VisionConfig(
            width,
            int(width * vision.get("mlp_ratio", 4)),
            vision.get("num_hidden_layers", 24),
            vision.get("num_attention_heads", 16),
            vision.get("image_size", 384),
            vision.get("patch_size", 16),
            vision.get("layer_norm_eps", 1e-6),
            vision.get("depth", 2),
        ),
        VQConfig(
            vq.get("num_embeddings", 16384),
            vq.get("embed_dim", 8),
            vq.get("latent_channels", 256),
            vq.get("base_channels", 128),
            tuple(vq.get("channel_multiplier", (1, 1, 2, 2, 4))),
            vq.get("num_res_blocks", 2),
            vq.get("num_hidden_layers", 2),
            vq.get("projection_dim", 2048),
            # transformers derives the grid from the vision tower, whatever the file says.
            vision.get("image_size", 384) // vision.get("patch_size", 16),
        ),
    )


def _text(raw: dict[str, Any]) -> TextConfig:
    llama = {**_LLAMA, **raw}
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    rope_kind = rope.get("rope_type", rope.get("type", "default"))
    heads = llama["num_attention_heads"]
    for key, got, expected in (
        ("hidden_act", llama.get("hidden_act", "silu"), "silu"),
        ("attention_bias", llama.get("attention_bias", False), False),
        ("mlp_bias", llama.get("mlp_bias", False), False),
        ("rope_type", rope_kind, "default"),
        ("num_key_value_heads", llama.get("num_key_value_heads") or heads, heads),
        ("head_dim", llama.get("head_dim") or llama["hidden_size"] // heads, llama["hidden_size"] // heads),
    ):
        _expect(f"language model {key}", got, expected)
    return TextConfig(
        llama["vocab_size"],
        llama["hidden_size"],
        llama["intermediate_size"],
        llama["num_hidden_layers"],
        heads,
        llama["max_position_embeddings"],
        float(rope.get("rope_theta", llama["rope_theta"])),
        llama["rms_norm_eps"],
        llama["tie_word_embeddings"],
    )


def _named(known: dict[str, dict[str, Any]], raw: dict[str, Any], key: str) -> dict[str, Any]:
    """Sizes behind a name. An unknown name is fine where the sizes are spelled out beside it."""
    return known.get(raw.get(key, ""), {})


def _expect(field: str, got: object, expected: object) -> None:
    if got != expected:
        raise CheckpointError(f"config.json: {field} is {got!r}; this export builds {expected!r} only")


def _check(config: JanusConfig) -> None:
    text, vision, vq = config.text, config.vision, config.vq
    for what, good in (
        (f"hidden size {text.hidden_size} and {text.num_heads} heads", text.hidden_size % text.num_heads == 0),
        # GroupQueryAttention of ONNX Runtime rotates heads of multiples of 16 only.
        (f"head size {text.head_size}", text.head_size % 16 == 0),
        (f"vision width {vision.hidden_size} and {vision.num_heads} heads", vision.hidden_size % vision.num_heads == 0),
        (f"image size {vision.image_size} and patch size {vision.patch_size}", vision.image_size % vision.patch_size == 0),
        (f"VQ widths {vq.base_channels} x {vq.multipliers}", all(vq.base_channels * m % 32 == 0 for m in vq.multipliers)),
    ):
        if not good:
            raise CheckpointError(f"config.json: {what} do not fit each other or this export's kernels")
