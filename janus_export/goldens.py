"""Inputs and outputs of every graph from the fp32 torch reference, for `janus-rt verify` in any language.

One matrix is in memory at a time. The decoder's reference runs whole sequences with
no cache, so that it also checks what caches do. `janus_runtime/checks/verify.py` states the layout of the file.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from janus_runtime.bundle.manifest import Flow, Task, Tokens

from . import modules
from .checkpoint.sizes import JanusConfig
from .checkpoint.tensor import Tensor
from .modules.attention import causal_attention
from .modules.language_model import DecoderLayer, final_norm
from .modules.layers import WatchProduct, stream_weights, watch_products
from .modules.uvit import FlowDecoder, FlowEncoder, block_names

Array = np.ndarray[Any, Any]
Goldens = dict[str, Array]

# Told of every layer's merged qkv [2, T, 3D].
Watch = Callable[[int, torch.Tensor], None]
# Makes a module on the meta device run.
Stream = Callable[[nn.Module], nn.Module]

# A ragged prefill of two rows and then some steps: what a batch of two prompts does.
_LENGTHS = np.array([9, 5], np.int32)
_STEPS = 3
# Of a flow: the first, which takes the prompt in, and one that finds it in the cache.
_FLOW_STEPS = 2
# Tokens of a picture that follow in each row where the decoder is watched.
_WATCHED = 240


@torch.inference_mode()
def make_goldens(
    config: JanusConfig,
    tensors: Mapping[str, Tensor],
    tasks: tuple[Task, ...],
    tokens: Tokens,
    watch: Watch | None = None,
    watch_product: WatchProduct | None = None,
    flow: Flow | None = None,
) -> Goldens:
    """`<graph>/<tensor>` -> array, for the graphs of `tasks`. Raises CheckpointError.

    With `watch` the decoder runs on longer sequences, of which the golden is the beginning: no later token changes it. They go on as
    prompts do: pads, as in the blank side of guidance, the begin of a picture, and a picture, drawn in one row and seen in the other.
    """
    rng = np.random.default_rng(0)

    def stream(module: nn.Module) -> nn.Module:
        return stream_weights(watch_products(module, watch_product) if watch_product else module, tensors)

    text_ids = rng.integers(0, config.text.vocab_size, (2, int(_LENGTHS.max()) + _STEPS), dtype=np.int32)
    text_ids[:, 0] = tokens.bos.id
    # One lookup, since the table is the largest matrix there is.
    begin = np.array([[tokens.pad.id] * 3 + [tokens.begin_of_image.id]] * 2, np.int32)
    (watched,) = _run(modules.TextEmbed, config, stream, np.concatenate([text_ids, begin], axis=1))
    embeds = watched[:, : text_ids.shape[1]]
    goldens = {"text_embed/text_ids": text_ids, "text_embed/embeds": embeds}

    def add(graph: str, module: type[nn.Module], inputs: Goldens, *outputs: str) -> None:
        results = _run(module, config, stream, *inputs.values())
        for name, value in (*inputs.items(), *zip(outputs, results, strict=True)):
            goldens[f"{graph}/{name}"] = value

    if "understanding" in tasks:
        add("vision_encoder", modules.VisionEncoder, {"pixels": _picture(rng, config.vision.image_size)}, "embeds")
    if flow and "generation" in tasks:
        goldens |= _flow(config, stream, embeds[:1, : _LENGTHS.max()], flow, rng)
        latents = goldens["flow_step/latents"]
        add("image_decoder", modules.LatentDecoder, {"latents": latents}, "pixels")
    elif "generation" in tasks:
        vq = config.required_vq
        image_ids = rng.integers(0, vq.num_ids, (1, vq.grid**2), dtype=np.int32)
        add("image_embed", modules.ImageEmbed, {"image_ids": image_ids[:, :8]}, "embeds")
        add("image_encoder", modules.ImageEncoder, {"pixels": _picture(rng, vq.image_size)}, "image_ids")
        add("image_decoder", modules.ImageDecoder, {"image_ids": image_ids}, "pixels")

    if config.flow and "understanding" not in tasks:
        return goldens
    if watch:
        sizes = {"understanding": config.vision.num_tokens, "generation": config.drawn.grid**2}
        count = min(_WATCHED, config.text.max_length - watched.shape[1], *(sizes[task] for task in tasks))
        pictures = [goldens["vision_encoder/embeds"][:, :count]] if "understanding" in tasks else []
        if config.vq and "generation" in tasks:
            # Any ids at all, and those of a picture.
            half = count // 2
            ids = [goldens["image_decoder/image_ids"][:, :half], goldens["image_encoder/image_ids"][:, : count - half]]
            pictures += _run(modules.ImageEmbed, config, stream, np.concatenate(ids, axis=1))
        embeds = np.concatenate([watched, np.concatenate([pictures[0], pictures[-1]])], axis=1)
    language_model = _language_model(config, stream, embeds, watch)
    goldens |= language_model
    hidden = language_model["language_model/hidden"][-1]
    # One of each for a row, and for a picture.
    cfg_weight, temperature = np.array([5], np.float32), np.array([0.9, 1.1], np.float32)
    if "understanding" in tasks:
        add("text_head", modules.TextHead, {"hidden": hidden}, "logits")
        logits = goldens["text_head/logits"]
        draw = {"logits": logits, "noise": _noise(rng, logits), "temperature": temperature}
        add("text_draw", modules.TextDraw, draw, "text_ids", "embeds")
    if config.vq and "generation" in tasks:
        add("image_head", modules.ImageHead, {"hidden": hidden}, "logits")
        logits = goldens["image_head/logits"][None]  # a pair of rows
        draw = {"logits": logits, "noise": _noise(rng, logits[:, 0]), "cfg_weight": cfg_weight, "temperature": temperature[:1]}
        add("image_draw", modules.ImageDraw, draw, "image_ids", "embeds")
    return goldens


def _run(kind: type[nn.Module], config: JanusConfig, stream: Stream, *inputs: Array) -> list[Array]:
    with torch.device("meta"):
        module = kind(config, torch.float32)
    outputs = stream(module)(*map(torch.from_numpy, inputs))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _noise(rng: np.random.Generator, like: Array) -> Array:
    """Gumbel numbers, as wide as the logits so that either can decide."""
    return (rng.gumbel(size=like.shape) * like.std()).astype(np.float32)


def _language_model(config: JanusConfig, stream: Stream, embeds: Array, watch: Watch | None) -> Goldens:
    """embeds [2, T, D] -> the golden, of the first tokens."""
    text = config.text
    x = torch.from_numpy(embeds)
    with torch.device("meta"):
        layers = [DecoderLayer(text, index, torch.float32) for index in range(text.num_layers)]
        norm = final_norm(text, torch.float32)
    for index, layer in enumerate(layers):

        def attend(qkv: torch.Tensor, index: int = index) -> torch.Tensor:
            if watch:
                watch(index, qkv)
            return causal_attention(text, qkv)

        x = stream(layer)(x, attend)
    hidden = stream(norm)(x).numpy()
    # Row r is prefilled with its first `lengths[r]` embeddings and stepped through the next ones.
    rows = np.arange(len(_LENGTHS))
    places = _LENGTHS[None, :] - 1 + np.arange(_STEPS + 1)[:, None]  # [1 + steps, rows]
    return {
        "language_model/embeds": embeds[:, : _LENGTHS.max()],
        "language_model/lengths": _LENGTHS,
        "language_model/steps": np.stack([embeds[rows, place + 1][:, None] for place in places[:-1]]),
        "language_model/hidden": hidden[rows, places],
    }


def _flow(config: JanusConfig, stream: Stream, embeds: Array, flow: Flow, rng: np.random.Generator) -> Goldens:
    """A prompt [1, T, D] -> goldens of the first steps of a drawing, each of which computes the whole prompt again."""
    uvit = config.required_flow
    times, dt = _published_times(flow)
    shape = (1, flow.latent_channels, flow.latent_size, flow.latent_size)
    noise, cfg_weight = rng.standard_normal(shape).astype(np.float32), 2.0
    table = _run(modules.TimeEmbed, config, stream, times)
    time_embeds, conditions = map(torch.from_numpy, table)
    # Two rows, the second with BOS alone, whose pads keep their positions.
    prompt = torch.from_numpy(embeds).expand(2, -1, -1)
    count = uvit.grid**2
    seen = torch.ones(2, prompt.shape[1] + 1 + count, dtype=torch.bool)
    seen[1, 1 : prompt.shape[1]] = False
    with torch.device("meta"):
        encoder, decoder = FlowEncoder(config, torch.float32), FlowDecoder(config, torch.float32)
        layers = [DecoderLayer(config.text, index, torch.float32) for index in range(config.text.num_layers)]
        norm = final_norm(config.text, torch.float32)
    for part in (encoder, decoder, norm, *layers):
        stream(part)
    sizes = [2 * channels for _, channels in block_names(uvit)]
    latents, velocities = torch.from_numpy(noise), []
    for step in range(min(_FLOW_STEPS, flow.solvers.euler.steps)):
        now = list(conditions[step : step + 1].split(sizes, dim=-1))
        tokens, skip = encoder(latents, now[: uvit.encoder_blocks])
        x = torch.cat([prompt, time_embeds[step].expand(2, 1, -1), tokens.expand(2, -1, -1)], dim=1)
        for layer in layers:
            x = layer(x, lambda qkv: causal_attention(config.text, qkv, seen))
        cond, uncond = decoder(norm(x)[:, -count:], skip.expand(2, -1, -1, -1), now[uvit.encoder_blocks :])
        velocity = (uncond + cfg_weight * (cond - uncond))[None]
        latents = latents + dt * velocity
        velocities.append(velocity.numpy())
    return {
        "time_embed/times": times,
        "time_embed/time_embeds": table[0],
        "time_embed/conditions": table[1],
        "flow_step/prompt": embeds,
        "flow_step/noise": noise,
        "flow_step/cfg_weight": np.array([cfg_weight], np.float32),
        "flow_step/velocity": np.stack(velocities),
        "flow_step/latents": latents.numpy(),
    }


def _published_times(flow: Flow) -> tuple[Array, float]:
    """Times [steps], float32, and the length of a step, as the published loop writes them down, less its rounding.

    Not taken from the runtime: what checks it must not come from it.
    """
    times = torch.tensor([step / flow.solvers.euler.steps * 1000 for step in range(flow.solvers.euler.steps)], dtype=torch.float64)
    return times.float().numpy(), torch.tensor(1 / flow.solvers.euler.steps, dtype=torch.float64).float().item()


def _picture(rng: np.random.Generator, size: int) -> Array:
    """Coarse coloured blocks, -1 to 1, [1, 3, size, size]: more like a picture than white noise."""
    blocks = rng.uniform(-1, 1, (1, 3, -(-size // 16), -(-size // 16))).astype(np.float32)
    picture: Array = blocks.repeat(16, axis=2).repeat(16, axis=3)[:, :, :size, :size]
    return np.ascontiguousarray(picture)
