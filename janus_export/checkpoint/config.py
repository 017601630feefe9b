"""A checkpoint's config.json, in either published layout, as one set of sizes.

What this export does not build (another activation, scaled RoPE, …) is refused here, by name.
"""

from typing import Any

from ..errors import CheckpointError
from .config_reader import MOST_LAYERS, Section
from .sizes import FlowConfig, JanusConfig, TextConfig, VaeConfig, VisionConfig, VQConfig

# Sizes behind the names that the original layout states instead of numbers (siglip_vit.py, vq_model.py).
_SIGLIP: dict[str, dict[str, Any]] = {
    "siglip_large_patch16_384": {"width": 1024, "layers": 24, "heads": 16, "patch_size": 16, "mlp_ratio": 4}
}
# The VAE that JanusFlow was published with.
_SDXL = VaeConfig(latent_channels=4, widths=(128, 256, 512, 512), num_res_blocks=2, scaling_factor=0.13025)
_VQ: dict[str, dict[str, Any]] = {"VQ-16": {"z_channels": 256, "ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2}}


def is_flow(raw: dict[str, Any]) -> bool:
    """Both kinds of checkpoint have the same model_type and architecture; JanusFlow's has other parts."""
    return raw.get("model_type") == "multi_modality" and "vision_gen_enc_config" in raw


def parse_config(raw: dict[str, Any], vae: dict[str, Any] | None = None) -> JanusConfig:
    """config.json -> JanusConfig; of JanusFlow also its VAE's config.json, where there is none as published.

    Raises CheckpointError naming the field that does not fit.
    """
    kind = raw.get("model_type")
    if kind not in ("multi_modality", "janus"):
        raise CheckpointError(
            f"config.json has model_type {kind!r:.60}; expected 'multi_modality' (original) or 'janus' (HF): "
            "where only the name is another, write one of these"
        )
    if is_flow(raw):
        config = _flow(Section(raw), _SDXL if vae is None else parse_vae(vae))
    else:
        config = _original(Section(raw)) if kind == "multi_modality" else _hf(Section(raw))
    _check(config)
    return config


def _flow(raw: Section, vae: VaeConfig) -> JanusConfig:
    """Defaults are those of the published classes (uvit.py), under which a config that is silent would be built."""
    encoder, decoder = raw.section("vision_gen_enc_config"), raw.section("vision_gen_dec_config")
    encoder.expect("cls", "ShallowUViTEncoder")
    decoder.expect("cls", "ShallowUViTDecoder")
    encoder, decoder = encoder.section("params"), decoder.section("params")
    text = _text(raw.section("language_config"), tied=False)
    vision = _tower(raw.section("vision_und_enc_config"), aligner_depth=1)
    widths, stride = encoder.integers("block_out_channels", [768]), encoder.integer("stride", 4)
    kernel = encoder.integer("kernel_size", 7)
    for section, key, expected in (
        (encoder, "use_mid_block", True),
        (decoder, "use_mid_block", True),
        (encoder, "use_bias", True),
        (decoder, "use_bias", True),
        (encoder, "padding", kernel - stride),
    ):
        section.expect(key, expected)
    for what, got, built in (
        ("vision_gen_enc_config.params.block_out_channels", len(widths), 1),
        ("vision_gen_dec_config.params.block_out_channels", decoder.integers("block_out_channels", [768]), widths),
        ("vision_gen_dec_config.params.in_channels", decoder.integer("in_channels", 768), widths[0]),
        ("vision_gen_enc_config.params.input_channels", encoder.integer("input_channels", 3), vae.latent_channels),
        ("vision_gen_dec_config.params.out_channels", decoder.integer("out_channels", 3), vae.latent_channels),
        ("vision_gen_enc_config.params.hidden_size", encoder.integer("hidden_size", 2048), text.hidden_size),
        ("vision_gen_dec_config.params.hidden_size", decoder.integer("hidden_size", 2048), text.hidden_size),
        # One un-patching by two: what a stride of two needs.
        ("vision_gen_dec_config.params.upsamples", decoder.integer("upsamples", 2), 1),
        ("vision_gen_enc_config.params.stride", stride, 2),
        ("vision_gen_dec_config.params.norm_eps", decoder.number("norm_eps", 1e-6), encoder.number("norm_eps", 1e-6)),
    ):
        if got != built:
            raise CheckpointError(f"config.json: {what} is {got!r:.40}; this export, with this VAE, builds {built!r:.40} only")
    return JanusConfig(
        "multi_modality",
        text,
        vision,
        flow=FlowConfig(
            channels=widths[0],
            kernel=kernel,
            stride=stride,
            encoder_blocks=encoder.integer("layers_in_middle", 2, MOST_LAYERS),
            decoder_blocks=decoder.integer("layers_in_middle", 2, MOST_LAYERS),
            norm_eps=encoder.number("norm_eps", 1e-6),
            # Pictures are drawn at the size they are seen at.
            grid=max(vision.image_size // (vae.factor * stride), 1),
            vae=vae,
        ),
    )


def parse_vae(raw: dict[str, Any]) -> VaeConfig:
    """A diffusers `AutoencoderKL`'s config.json. Raises CheckpointError."""
    vae = Section(raw, file="the VAE's config.json")
    if raw.get("_class_name") != "AutoencoderKL":
        raise CheckpointError(f"{vae.file} has _class_name {raw.get('_class_name')!r:.60}; expected 'AutoencoderKL', as SDXL's")
    widths = vae.integers("block_out_channels")
    for key, expected in (
        ("act_fn", "silu"),
        ("norm_num_groups", 32),
        ("out_channels", 3),
        ("mid_block_add_attention", True),
        ("use_post_quant_conv", True),
        ("up_block_types", ["UpDecoderBlock2D"] * len(widths)),
        ("shift_factor", 0.0),
    ):
        vae.expect(key, expected)
    return VaeConfig(
        latent_channels=vae.integer("latent_channels"),
        widths=widths,
        num_res_blocks=vae.integer("layers_per_block", most=MOST_LAYERS),
        scaling_factor=vae.number("scaling_factor"),
    )


def _tower(vision: Section, aligner_depth: int) -> VisionConfig:
    vision = vision.section("params", _SIGLIP.get(str(vision.section("params").raw.get("model_name"))))
    vision.expect("select_layer", -1)
    width = vision.integer("width")
    return VisionConfig(
        hidden_size=width,
        mlp_size=int(width * vision.number("mlp_ratio")),
        num_layers=vision.integer("layers", most=MOST_LAYERS),
        num_heads=vision.integer("heads"),
        image_size=vision.integer("image_size"),
        patch_size=vision.integer("patch_size"),
        norm_eps=1e-6,
        aligner_depth=aligner_depth,
    )


def _original(raw: Section) -> JanusConfig:
    vq = raw.section("gen_vision_config")
    vq = vq.section("params", _VQ.get(str(vq.raw.get("cls"))))
    head = raw.section("gen_head_config").section("params")
    aligner, gen_aligner = (raw.section(name).section("params") for name in ("aligner_config", "gen_aligner_config"))
    for projector in (aligner, gen_aligner):
        projector.expect("projector_type", "mlp_gelu")
    vision, multipliers = _tower(raw.section("vision_config"), aligner.integer("depth", most=MOST_LAYERS)), vq.integers("ch_mult")
    return JanusConfig(
        "multi_modality",
        _text(raw.section("language_config"), tied=False),
        vision,
        VQConfig(
            num_ids=vq.integer("image_token_size"),
            code_size=vq.integer("n_embed"),
            latent_channels=vq.integer("z_channels"),
            base_channels=vq.integer("ch"),
            multipliers=multipliers,
            num_res_blocks=vq.integer("num_res_blocks", most=MOST_LAYERS),
            aligner_depth=gen_aligner.integer("depth", most=MOST_LAYERS),
            head_size=head.integer("image_token_embed"),
            # Pictures are drawn at the size they are seen at.
            grid=max(vision.image_size >> (len(multipliers) - 1), 1),
        ),
    )


def _hf(raw: Section) -> JanusConfig:
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
            num_layers=vision.integer("num_hidden_layers", 24, MOST_LAYERS),
            num_heads=vision.integer("num_attention_heads", 16),
            image_size=size,
            patch_size=patch,
            norm_eps=vision.number("layer_norm_eps", 1e-6),
            aligner_depth=vision.integer("depth", 2, MOST_LAYERS),
        ),
        VQConfig(
            num_ids=vq.integer("num_embeddings", 16384),
            code_size=vq.integer("embed_dim", 8),
            latent_channels=vq.integer("latent_channels", 256),
            base_channels=vq.integer("base_channels", 128),
            multipliers=vq.integers("channel_multiplier", [1, 1, 2, 2, 4]),
            num_res_blocks=vq.integer("num_res_blocks", 2, MOST_LAYERS),
            aligner_depth=vq.integer("num_hidden_layers", 2, MOST_LAYERS),
            head_size=vq.integer("projection_dim", 2048),
            # transformers derives the grid from the vision tower, whatever the file says.
            grid=max(size // patch, 1),
        ),
    )


def _text(llama: Section, tied: bool) -> TextConfig:
    """Defaults are LlamaConfig's: the original config.json is silent on some fields, Pro-7B's on most."""
    heads, width = llama.integer("num_attention_heads", 32), llama.integer("hidden_size", 4096)
    for key, expected in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("num_key_value_heads", heads),
        ("head_dim", width // heads),
        # Two that only Paddle's Llama has.
        ("alibi", False),
        ("rope_scaling_type", None),
    ):
        llama.expect(key, expected)
    rope = Section(llama.raw.get("rope_parameters") or llama.raw.get("rope_scaling") or {}, llama.name("rope_parameters"))
    for key in ("rope_type", "type"):
        rope.expect(key, "default")
    return TextConfig(
        vocab_size=llama.integer("vocab_size", 32000),
        hidden_size=width,
        mlp_size=llama.integer("intermediate_size", 11008),
        num_layers=llama.integer("num_hidden_layers", 32, MOST_LAYERS),
        num_heads=heads,
        max_length=llama.integer("max_position_embeddings", 2048),
        rope_theta=rope.number("rope_theta", llama.number("rope_theta", 10000.0)),
        norm_eps=llama.number("rms_norm_eps", 1e-6),
        tied_head=tied or llama.raw.get("tie_word_embeddings") is True,
    )


def _check(config: JanusConfig) -> None:
    text, vision, drawn = config.text, config.vision, config.drawn
    widths = [config.vq.base_channels * m for m in config.vq.multipliers] if config.vq else list(config.required_flow.vae.widths)
    for what, good in (
        (f"hidden size {text.hidden_size} and {text.num_heads} heads", text.hidden_size % text.num_heads == 0),
        # GroupQueryAttention of ONNX Runtime rotates heads of multiples of 16 only.
        (f"head size {text.head_size} and multiples of 16", text.head_size > 0 and text.head_size % 16 == 0),
        (f"vision width {vision.hidden_size} and {vision.num_heads} heads", vision.hidden_size % vision.num_heads == 0),
        (f"image size {vision.image_size} and patch size {vision.patch_size}", vision.image_size % vision.patch_size == 0),
        (f"{'VQ' if config.vq else 'VAE'} widths {widths} and 32 groups", all(width % 32 == 0 for width in widths)),
        (f"drawn size {drawn.image_size} and seen size {vision.image_size}", drawn.image_size == vision.image_size),
    ):
        if not good:
            raise CheckpointError(f"config.json: {what} do not fit each other")
