"""Names, shapes and config.json of JanusFlow's layout and of its VAE's, for the published model and two small ones.

Written from the published classes and from diffusers, not from the exporter's rules, which the tests check against this.
"""

from dataclasses import replace

from janus_export.checkpoint.sizes import FlowConfig, JanusConfig, TextConfig, VaeConfig, VisionConfig
from testing.published_layouts import MODELS, Shapes, hf_tensors, llama_config, original_name, tower_config

_SDXL = VaeConfig(4, (128, 256, 512, 512), 2, 0.13025)

FLOW_MODELS = {
    "janusflow-1.3b": JanusConfig(
        "multi_modality",
        MODELS["janus-1.3b"].text,
        replace(MODELS["janus-1.3b"].vision, aligner_depth=1),
        flow=FlowConfig(768, 2, 2, 2, 2, 1e-6, 24, _SDXL),
    ),
    # The structure at sizes that run in milliseconds. No two widths are equal.
    "tiny-flow": JanusConfig(
        "multi_modality",
        TextConfig(320, 64, 160, 2, 4, 1024, 10000.0, 1e-6, False),
        VisionConfig(48, 192, 2, 3, 64, 16, 1e-6, 1),
        flow=FlowConfig(40, 2, 2, 2, 2, 1e-6, 4, VaeConfig(4, (32, 64, 96, 96), 1, 0.13025)),
    ),
    "small-flow": JanusConfig(
        "multi_modality",
        TextConfig(384, 96, 224, 3, 3, 1024, 10000.0, 1e-6, False),
        VisionConfig(64, 256, 3, 2, 80, 16, 1e-6, 1),
        flow=FlowConfig(56, 2, 2, 3, 1, 1e-6, 5, VaeConfig(4, (32, 64, 64, 128), 2, 0.5)),
    ),
}


def flow_tensors(config: JanusConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Published name -> shape, and the HF name where Janus has such a tensor (whose values it then shares), in a fixed order."""
    text, vision, flow = config.text, config.vision, config.flow
    assert flow is not None
    channels, width = flow.channels, text.hidden_size
    result: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, shape in hf_tensors(replace(config, vq=MODELS["tiny"].vq, flow=None)).items():
        if name.startswith(("model.vision_model.", "model.language_model.", "lm_head.")):
            result[original_name(name).replace("vision_model.", "vision_und_enc_model.")] = shape, name

    own = Shapes()

    def blocks(name: str, count: int, size: int) -> None:
        for index in range(count):
            block = f"{name}.mid_block.res_blocks.{index}"
            own.conv(f"{block}.depthwise", size, 1, 7)
            own.norm(f"{block}.norm", size, bias=False)
            own.linear(f"{block}.channelwise_linear_1", 4 * size, size)
            own[f"{block}.channelwise_norm.weight"] = (1, 1, 1, 4 * size)
            own[f"{block}.channelwise_norm.bias"] = (1, 1, 1, 4 * size)
            own.linear(f"{block}.channelwise_linear_2", size, 4 * size)
            own.linear(f"{block}.cond_embeds_mapper", 2 * size, width)

    own.linear("vision_und_enc_aligner", width, vision.hidden_size)
    own["beg_of_und_embed"] = (1, width)
    own.linear("vision_gen_enc_model.time_embed.linear_1", width, channels)
    own.linear("vision_gen_enc_model.time_embed.linear_2", width, width)
    own.conv("vision_gen_enc_model.in_conv", channels, flow.vae.latent_channels, flow.kernel)
    blocks("vision_gen_enc_model", flow.encoder_blocks, channels)
    own.linear("vision_gen_enc_aligner", width, channels)
    own.norm("vision_gen_dec_aligner_norm", width, bias=False)
    own.linear("vision_gen_dec_aligner", channels, width)
    own.norm("vision_gen_dec_model.input_norm", channels, bias=False)
    blocks("vision_gen_dec_model", flow.decoder_blocks, 2 * channels)
    own.norm("vision_gen_dec_model.out_convs.0.norm", 2 * channels, bias=False)
    own.conv("vision_gen_dec_model.out_convs.0.unpatch_conv", 4 * flow.vae.latent_channels, 2 * channels, 1)
    return result | {name: (shape, name) for name, shape in own.items()}


def vae_tensors(vae: VaeConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a diffusers `AutoencoderKL` -> shape; the encoder's too, which drawing does not use."""
    shapes = Shapes()

    def half(name: str, side: str, widths: list[int], count: int, resample: str) -> None:
        for i in range(len(widths) - 1):
            for j in range(count):
                shapes.residual(
                    f"{name}.{side}_blocks.{i}.resnets.{j}", widths[i] if j == 0 else widths[i + 1], widths[i + 1], "conv_shortcut"
                )
            if i < len(widths) - 2:
                shapes.conv(f"{name}.{side}_blocks.{i}.{resample}.0.conv", widths[i + 1], widths[i + 1], 3)
        deepest, attention = max(vae.widths), f"{name}.mid_block.attentions.0"
        shapes.norm(f"{attention}.group_norm", deepest)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes.linear(f"{attention}.{part}", deepest, deepest)
        for j in range(2):
            shapes.residual(f"{name}.mid_block.resnets.{j}", deepest, deepest, "conv_shortcut")
        shapes.norm(f"{name}.conv_norm_out", widths[-1])

    first, last, latent = vae.widths[0], vae.widths[-1], vae.latent_channels
    shapes.conv("encoder.conv_in", first, 3, 3)
    half("encoder", "down", [first, *vae.widths], vae.num_res_blocks, "downsamplers")
    shapes.conv("encoder.conv_out", 2 * latent, last, 3)
    shapes.conv("quant_conv", 2 * latent, 2 * latent, 1)
    shapes.conv("post_quant_conv", latent, latent, 1)
    shapes.conv("decoder.conv_in", last, latent, 3)
    half("decoder", "up", [last, *vae.widths[::-1]], vae.num_res_blocks + 1, "upsamplers")
    shapes.conv("decoder.conv_out", 3, first, 3)
    return shapes


def flow_config(config: JanusConfig) -> dict:
    """As the published classes take it. The published file itself was not seen; sizes are those its shapes require."""
    text, vision, flow = config.text, config.vision, config.flow
    assert flow is not None
    blocks = {"block_out_channels": [flow.channels], "hidden_size": text.hidden_size, "norm_eps": flow.norm_eps}
    encoder = {"input_channels": flow.vae.latent_channels, "kernel_size": flow.kernel, "stride": flow.stride, **blocks}
    decoder = {"in_channels": flow.channels, "out_channels": flow.vae.latent_channels, "upsamples": 1, **blocks}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "random_weights": True,
        "language_config": llama_config(text),
        "vision_und_enc_config": {**tower_config(vision), "model_type": "vision_und_enc"},
        "vision_gen_enc_config": {
            "cls": "ShallowUViTEncoder",
            "model_type": "vision_gen_enc",
            "params": {**encoder, "layers_in_middle": flow.encoder_blocks},
        },
        "vision_gen_dec_config": {
            "cls": "ShallowUViTDecoder",
            "model_type": "vision_gen_dec",
            "params": {**decoder, "layers_in_middle": flow.decoder_blocks},
        },
    }


def vae_config(vae: VaeConfig) -> dict:
    """A diffusers config.json, as stabilityai/sdxl-vae has it."""
    levels = len(vae.widths)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(vae.widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": 3,
        "latent_channels": vae.latent_channels,
        "layers_per_block": vae.num_res_blocks,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 1024,
        "scaling_factor": vae.scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
