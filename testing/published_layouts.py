"""Names, shapes and config.json of both published layouts, for every member of the family and two small models.

Written from the published checkpoints, not from the exporter's rules, which the tests check against this.
"""

from dataclasses import replace

from janus_export.checkpoint.sizes import JanusConfig, TextConfig, VisionConfig, VQConfig

_SIGLIP_L = VisionConfig(1024, 4096, 24, 16, 384, 16, 1e-6, 2)


def _member(width: int, mlp: int, layers: int, heads: int) -> JanusConfig:
    text = TextConfig(102400, width, mlp, layers, heads, 16384, 10000.0, 1e-6, False)
    return JanusConfig("hf", text, _SIGLIP_L, VQConfig(16384, 8, 256, 128, (1, 1, 2, 2, 4), 2, 2, width, 24))


MODELS = {
    "janus-1.3b": _member(2048, 5632, 24, 16),
    "janus-pro-1b": _member(2048, 5632, 24, 16),
    "janus-pro-7b": _member(4096, 11008, 30, 32),
    # The structure of the family at sizes that run in milliseconds. No two widths of `tiny` are equal.
    "tiny": JanusConfig(
        "hf",
        TextConfig(320, 64, 160, 2, 4, 1024, 10000.0, 1e-6, False),
        VisionConfig(48, 192, 2, 3, 64, 16, 1e-6, 2),
        VQConfig(512, 8, 32, 32, (1, 1, 1, 1, 2), 2, 2, 64, 4),
    ),
    "small": JanusConfig(
        "hf",
        TextConfig(384, 96, 224, 3, 3, 1024, 10000.0, 1e-6, False),
        VisionConfig(64, 256, 3, 2, 80, 16, 1e-6, 2),
        VQConfig(640, 8, 64, 32, (1, 1, 2, 2, 4), 1, 2, 96, 5),
    ),
}


class Shapes(dict[str, tuple[int, ...]]):
    """Tensor name -> shape, filled module by module."""

    def linear(self, name: str, outputs: int, inputs: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (outputs, inputs)
        if bias:
            self[f"{name}.bias"] = (outputs,)

    def norm(self, name: str, size: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (size,)
        if bias:
            self[f"{name}.bias"] = (size,)

    def conv(self, name: str, outputs: int, inputs: int, kernel: int) -> None:
        self[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        self[f"{name}.bias"] = (outputs,)

    def residual(self, name: str, inputs: int, outputs: int, shortcut: str) -> None:
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", outputs, inputs, 3)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            self.conv(f"{name}.{shortcut}", outputs, inputs, 1)


def hf_tensors(config: JanusConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the HF layout, in a fixed order. Written from the published layout."""
    text, vision, vq = config.text, config.vision, config.vq
    width, patch = text.hidden_size, vision.patch_size
    shapes = Shapes()

    def projector(name: str, inputs: int, depth: int) -> None:
        shapes.linear(f"{name}.fc1", width, inputs)
        for i in range(depth - 1):
            shapes.linear(f"{name}.hidden_layers.{i}", width, width)

    def attention(name: str, channels: int) -> None:
        shapes.norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            shapes.conv(f"{name}.{part}", channels, channels, 1)

    def half(name: str, side: str, widths: list[int], blocks: int, resample: str, attends: int) -> None:
        for i in range(len(widths) - 1):
            for j in range(blocks):
                shapes.residual(f"{name}.{side}.{i}.block.{j}", widths[i] if j == 0 else widths[i + 1], widths[i + 1], "nin_shortcut")
                if i == attends:
                    attention(f"{name}.{side}.{i}.attn.{j}", widths[i + 1])
            if i < len(widths) - 2:
                shapes.conv(f"{name}.{side}.{i}.{resample}.conv", widths[i + 1], widths[i + 1], 3)
        deepest = max(widths)
        shapes.residual(f"{name}.mid.block_1", deepest, deepest, "nin_shortcut")
        attention(f"{name}.mid.attn_1", deepest)
        shapes.residual(f"{name}.mid.block_2", deepest, deepest, "nin_shortcut")
        shapes.norm(f"{name}.norm_out", widths[-1])

    tower = "model.vision_model"
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (vision.num_tokens, vision.hidden_size)
    shapes.conv(f"{tower}.embeddings.patch_embedding", vision.hidden_size, 3, patch)
    for i in range(vision.num_layers):
        layer = f"{tower}.encoder.layers.{i}"
        shapes.norm(f"{layer}.layer_norm1", vision.hidden_size)
        for part in ("q_proj", "k_proj", "v_proj", "projection_layer"):
            shapes.linear(f"{layer}.self_attn.{part}", vision.hidden_size, vision.hidden_size)
        shapes.norm(f"{layer}.layer_norm2", vision.hidden_size)
        shapes.linear(f"{layer}.mlp.fc1", vision.mlp_size, vision.hidden_size)
        shapes.linear(f"{layer}.mlp.fc2", vision.hidden_size, vision.mlp_size)
    shapes.norm(f"{tower}.post_layernorm", vision.hidden_size)
    projector("model.aligner", vision.hidden_size, vision.aligner_depth)

    shapes["model.vqmodel.quantize.embedding.weight"] = (vq.num_ids, vq.code_size)
    shapes.conv("model.vqmodel.quant_conv", vq.code_size, vq.latent_channels, 1)
    shapes.conv("model.vqmodel.post_quant_conv", vq.latent_channels, vq.code_size, 1)
    up = [vq.base_channels * m for m in vq.multipliers]
    shapes.conv("model.vqmodel.encoder.conv_in", vq.base_channels, 3, 3)
    half("model.vqmodel.encoder", "down", [vq.base_channels, *up], vq.num_res_blocks, "downsample", len(up) - 1)
    shapes.conv("model.vqmodel.encoder.conv_out", vq.latent_channels, up[-1], 3)
    shapes.conv("model.vqmodel.decoder.conv_in", up[-1], vq.latent_channels, 3)
    half("model.vqmodel.decoder", "up", [up[-1], *up[::-1]], vq.num_res_blocks + 1, "upsample", 0)
    shapes.conv("model.vqmodel.decoder.conv_out", 3, up[0], 3)

    shapes["model.generation_embeddings.weight"] = (vq.num_ids, vq.code_size)
    projector("model.generation_aligner", vq.code_size, vq.aligner_depth)
    shapes.linear("model.generation_head.proj_out", vq.head_size, width)
    shapes.linear("model.generation_head.vision_head", vq.num_ids, vq.head_size)

    shapes["model.language_model.embed_tokens.weight"] = (text.vocab_size, width)
    for i in range(text.num_layers):
        layer = f"model.language_model.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes.linear(f"{layer}.self_attn.{part}", width, width, bias=False)
        shapes.linear(f"{layer}.mlp.gate_proj", text.mlp_size, width, bias=False)
        shapes.linear(f"{layer}.mlp.up_proj", text.mlp_size, width, bias=False)
        shapes.linear(f"{layer}.mlp.down_proj", width, text.mlp_size, bias=False)
        shapes.norm(f"{layer}.input_layernorm", width, bias=False)
        shapes.norm(f"{layer}.post_attention_layernorm", width, bias=False)
    shapes.norm("model.language_model.norm", width, bias=False)
    shapes.linear("lm_head", text.vocab_size, width, bias=False)
    return shapes


def original_name(name: str) -> str:
    """HF name -> original name, by the published layout (not by the exporter's rules, which this tests)."""
    for prefix, original in (
        ("model.vision_model.embeddings.patch_embedding.", "vision_model.vision_tower.patch_embed.proj."),
        ("model.vision_model.embeddings.position_embedding.weight", "vision_model.vision_tower.pos_embed"),
        ("model.vision_model.encoder.layers.", "vision_model.vision_tower.blocks."),
        ("model.vision_model.post_layernorm.", "vision_model.vision_tower.norm."),
        ("model.aligner.fc1.", "aligner.layers.0."),
        ("model.aligner.hidden_layers.0.", "aligner.layers.2."),
        ("model.generation_aligner.fc1.", "gen_aligner.layers.0."),
        ("model.generation_aligner.hidden_layers.0.", "gen_aligner.layers.2."),
        ("model.generation_embeddings.", "gen_embed."),
        ("model.generation_head.proj_out.", "gen_head.output_mlp_projector."),
        ("model.generation_head.vision_head.", "gen_head.vision_head."),
        ("model.vqmodel.encoder.down.", "gen_vision_model.encoder.conv_blocks."),
        ("model.vqmodel.decoder.up.", "gen_vision_model.decoder.conv_blocks."),
        ("model.vqmodel.", "gen_vision_model."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(prefix):
            name = original + name.removeprefix(prefix)
            break
    if name.startswith("vision_model.vision_tower"):
        for hf, old in ((".layer_norm", ".norm"), (".self_attn.projection_layer.", ".attn.proj.")):
            name = name.replace(hf, old)
    if name.startswith("gen_vision_model"):
        for hf, old in ((".block.", ".res."), (".mid.block_1.", ".mid.0."), (".mid.attn_1.", ".mid.1."), (".mid.block_2.", ".mid.2.")):
            name = name.replace(hf, old)
    return name


def hf_config(config: JanusConfig) -> dict:
    text, vision, vq = config.text, config.vision, config.vq
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "tie_word_embeddings": False,
        "random_weights": True,
        "text_config": {"model_type": "llama", **llama_config(text), "head_dim": text.head_size},
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "mlp_ratio": vision.mlp_size / vision.hidden_size,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_image_tokens": vision.num_tokens,
            "projection_dim": text.hidden_size,
            "depth": vision.aligner_depth,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "embed_dim": vq.code_size,
            "num_embeddings": vq.num_ids,
            "latent_channels": vq.latent_channels,
            "base_channels": vq.base_channels,
            "channel_multiplier": list(vq.multipliers),
            "num_res_blocks": vq.num_res_blocks,
            "num_patches": vq.grid,
            "projection_dim": vq.head_size,
            "image_token_embed_dim": text.hidden_size,
            "num_hidden_layers": vq.aligner_depth,
        },
    }


def original_config(config: JanusConfig) -> dict:
    """As published, with sizes spelled out beside the names so that small models can be stated too."""
    text, vision, vq = config.text, config.vision, config.vq
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "random_weights": True,
        "language_config": llama_config(text),
        "vision_config": {**tower_config(vision), "model_type": "vision"},
        "aligner_config": _projector("aligner", vision.aligner_depth, vision.hidden_size, text.hidden_size),
        "gen_vision_config": {
            "cls": "VQ-16",
            "model_type": "gen_vision",
            "params": {
                "image_token_size": vq.num_ids,
                "n_embed": vq.code_size,
                **(
                    {}
                    if vq.base_channels == 128
                    else {
                        "z_channels": vq.latent_channels,
                        "ch": vq.base_channels,
                        "ch_mult": list(vq.multipliers),
                        "num_res_blocks": vq.num_res_blocks,
                    }
                ),
            },
        },  # fmt: skip
        "gen_aligner_config": _projector("gen_aligner", vq.aligner_depth, vq.code_size, text.hidden_size),
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": {"image_token_embed": vq.head_size, "image_token_size": vq.num_ids, "n_embed": text.hidden_size},
        },
    }


def tower_config(vision: VisionConfig) -> dict:
    sizes = {
        "width": vision.hidden_size,
        "layers": vision.num_layers,
        "heads": vision.num_heads,
        "patch_size": vision.patch_size,
        "mlp_ratio": vision.mlp_size / vision.hidden_size,
    }
    published = replace(vision, aligner_depth=_SIGLIP_L.aligner_depth) == _SIGLIP_L
    return {
        "cls": "CLIPVisionTower",
        "params": {
            "image_size": vision.image_size,
            "model_name": "siglip_large_patch16_384" if published else "spelled out",
            "select_feature": "same",
            "select_layer": -1,
            **({} if published else sizes),
        },
    }


def _projector(kind: str, depth: int, inputs: int, outputs: int) -> dict:
    params = {"depth": depth, "input_dim": inputs, "n_embed": outputs, "projector_type": "mlp_gelu"}
    return {"cls": "MlpProjector", "model_type": kind, "params": params}


def llama_config(text: TextConfig) -> dict:
    return {
        "model_type": "llama",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.mlp_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_heads,
        "max_position_embeddings": text.max_length,
        "tie_word_embeddings": text.tied_head,
        "torch_dtype": "bfloat16",
    }
