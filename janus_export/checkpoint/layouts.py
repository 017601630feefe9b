"""Original `multi_modality` tensor names -> HF `janus` names. Nothing is transposed; fused qkv is cut in three.

What JanusFlow alone has keeps its name, for HF has none, and its VAE gets the names of a VQ tokenizer, which is built alike.
"""

import re
from typing import Any

from .tensor import Tensor

# In order; the first that matches is taken. Checked name by name against transformers' own conversion.
_TOWER = r"vision_(?:und_enc_)?model\.vision_tower\."
_RULES = [
    (_TOWER + r"patch_embed\.proj\.", "model.vision_model.embeddings.patch_embedding."),
    (_TOWER + r"pos_embed$", "model.vision_model.embeddings.position_embedding.weight"),
    (_TOWER + r"blocks\.(\d+)\.norm([12])\.", r"model.vision_model.encoder.layers.\1.layer_norm\2."),
    (_TOWER + r"blocks\.(\d+)\.attn\.qkv\.", r"model.vision_model.encoder.layers.\1.self_attn.qkv."),
    (_TOWER + r"blocks\.(\d+)\.attn\.proj\.", r"model.vision_model.encoder.layers.\1.self_attn.projection_layer."),
    (_TOWER + r"blocks\.(\d+)\.mlp\.", r"model.vision_model.encoder.layers.\1.mlp."),
    (_TOWER + r"norm\.", "model.vision_model.post_layernorm."),
    (r"aligner\.layers\.0\.", "model.aligner.fc1."),
    (r"vision_und_enc_aligner\.", "model.aligner.fc1."),
    (r"gen_aligner\.layers\.0\.", "model.generation_aligner.fc1."),
    (r"gen_embed\.", "model.generation_embeddings."),
    (r"gen_head\.output_mlp_projector\.", "model.generation_head.proj_out."),
    (r"gen_head\.vision_head\.", "model.generation_head.vision_head."),
    (r"gen_vision_model\.encoder\.conv_blocks\.(\d+)\.", r"model.vqmodel.encoder.down.\1."),
    (r"gen_vision_model\.decoder\.conv_blocks\.(\d+)\.", r"model.vqmodel.decoder.up.\1."),
    (r"gen_vision_model\.", "model.vqmodel."),
    (r"language_model\.model\.", "model.language_model."),
    (r"language_model\.lm_head\.", "lm_head."),
]
_ALIGNER = re.compile(r"(aligner|gen_aligner)\.layers\.(\d+)\.(.*)")
_MIDDLE = {".mid.0.": ".mid.block_1.", ".mid.1.": ".mid.attn_1.", ".mid.2.": ".mid.block_2."}

# Stored in the original layout and used by nothing: the tower's pooling head, a training counter, a RoPE buffer.
DEAD = re.compile(_TOWER + r"attn_pool\.|gen_vision_model\.quantize\.codebook_used$|.*rotary_emb\.inv_freq$")


def hf_name(name: str) -> str:
    """The HF name of an original tensor; a name that no rule knows comes back as it is and will be reported."""
    if (match := _ALIGNER.fullmatch(name)) and int(match[2]) > 0:
        # Linear layers sit at even places, GELUs between them.
        base = "model.aligner" if match[1] == "aligner" else "model.generation_aligner"
        return f"{base}.hidden_layers.{int(match[2]) // 2 - 1}.{match[3]}"
    for pattern, replacement in _RULES:
        new, count = re.subn("^" + pattern, replacement, name)
        if count:
            new = re.sub(r"(\.(?:down|up)\.\d+)\.res\.", r"\1.block.", new) if ".vqmodel." in new else new
            for old, middle in _MIDDLE.items():
                new = new.replace(old, middle) if ".vqmodel." in new else new
            return new
    return name


def original_to_hf(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a whole checkpoint, drops what is dead and cuts the vision tower's fused qkv."""
    result: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        if DEAD.match(original):
            continue
        name = hf_name(original)
        if name.endswith("position_embedding.weight") and len(tensor.shape) == 3:
            tensor = tensor.reshaped(*tensor.shape[1:])
        if ".self_attn.qkv." in name and tensor.shape:
            third = tensor.shape[0] // 3
            for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
                result[name.replace("qkv", part)] = tensor.rows(index * third, (index + 1) * third)
        else:
            result[name] = tensor
    return result


_VAE_RULES: list[tuple[str, Any]] = [
    (r"mid_block\.resnets\.([01])\.", lambda match: f"mid.block_{int(match[1]) + 1}."),
    (r"mid_block\.attentions\.0\.group_norm\.", "mid.attn_1.norm."),
    # The second of each pair is what diffusers called it before version 0.15.
    (r"mid_block\.attentions\.0\.(?:to_out\.0|proj_attn)\.", "mid.attn_1.proj_out."),
    (r"mid_block\.attentions\.0\.(?:to_)?(q|k|v)(?:uery|ey|alue)?\.", r"mid.attn_1.\1."),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)\.conv_shortcut\.", r"up.\1.block.\2.nin_shortcut."),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)\.", r"up.\1.block.\2."),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
    (r"conv_norm_out\.", "norm_out."),
]


def vae_to_ours(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's half of a diffusers `AutoencoderKL` under `vae.`; its attention's matrices become kernels of one pixel."""
    result: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        if original.startswith(("encoder.", "quant_conv.")):
            continue
        name = original.removeprefix("decoder.")
        for pattern, replacement in _VAE_RULES if original != name else []:
            name, count = re.subn("^" + pattern, replacement, name)
            if count:
                break
        if ".attn_1." in name and len(tensor.shape) == 2:
            tensor = tensor.reshaped(*tensor.shape, 1, 1)
        result["vae." + ("decoder." if original.startswith("decoder.") else "") + name] = tensor
    return result
