"""janus-nano's sizes, and its modules with weights to start training from."""

import torch
from torch import nn
from transformers import JanusConfig, JanusForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaModel

from nano.scenes import SIDE

PATCH = 8  # pixels a side of a vision token and of a drawn id
GRID = SIDE // PATCH
NUM_IDS = 512
MAX_LENGTH = 1024


def half_precision() -> torch.autocast:
    """Matrix products and convolutions in bfloat16, on whichever device is torch's default.

    In float32 on a processor without instructions for bfloat16, whose convolutions would take 80 times as long.
    """
    device = torch.get_default_device().type
    return torch.autocast(device, torch.bfloat16, device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported(), cache_enabled=False)


def config(vocab_size: int, image_token_id: int) -> JanusConfig:
    """3.7 million weights; every kind of block that Janus-Pro has."""
    return JanusConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "head_dim": 32,
            "max_position_embeddings": MAX_LENGTH,
            "tie_word_embeddings": False,
        },
        vision_config={
            "hidden_size": 96,
            "mlp_ratio": 4.0,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": SIDE,
            "patch_size": PATCH,
            "num_image_tokens": GRID**2,
            "projection_dim": 192,
            "depth": 2,
        },
        vq_config={
            "embed_dim": 8,
            "num_embeddings": NUM_IDS,
            "latent_channels": 64,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 2, 2],
            "num_res_blocks": 1,
            "num_patches": GRID,
            "projection_dim": 192,
            "image_token_embed_dim": 192,
            "num_hidden_layers": 2,
        },
        image_token_id=image_token_id,
        tie_word_embeddings=False,
    )


def build(vocab_size: int, image_token_id: int, seed: int) -> JanusForConditionalGeneration:
    """A model to train, whose weights start at the scale of their inputs.

    transformers' start, 0.02 whatever the width, fits models a hundred times as wide: from it the VQ hardly learns, and
    the decoder takes three times the steps.
    """
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config(vocab_size, image_token_id))
    # On a CPU the gradient of torch's fused attention takes a third of a training step, of the plain one a tenth.
    model.set_attn_implementation("eager")
    for module in model.model.vqmodel.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    start(model.model.language_model, model.lm_head, model.model.aligner, model.model.generation_aligner, model.model.generation_head)
    return model


def start(decoder: LlamaModel, head: nn.Linear, *others: nn.Module) -> None:
    """Gives new values to every matrix of the decoder, of its head and of what joins others to it."""
    for part in (decoder, *others):
        for name, module in part.named_modules():
            if isinstance(module, nn.Linear):
                # What a layer adds to the residual stream is scaled down with the number of layers.
                gain = (2 * decoder.config.num_hidden_layers) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
                nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
    nn.init.normal_(decoder.embed_tokens.weight, std=0.5)
    nn.init.normal_(head.weight, std=0.1 * decoder.config.hidden_size**-0.5)
