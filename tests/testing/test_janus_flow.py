"""The PyTorch JanusFlow against formulas written out, diffusers and transformers."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache, JanusVisionConfig, JanusVisionModel

from testing.flow_layout import FLOW_MODELS
from testing.janus_flow import ConvNeXtBlock, JanusFlow, VisionTower, draw, pixels, times, vae
from testing.make_checkpoint import original_entries
from testing.published_layouts import original_name

BOS, PAD = 0, 2
# fp32 sums in another order; wrong formulas are off by far more.
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(checkpoints) -> JanusFlow:
    return JanusFlow.load(checkpoints("tiny-flow"))


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.tensor([BOS, 11, 40, 77, 300, 12, 5])


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def _shaken(module: nn.Module) -> nn.Module:
    """Norms of a fresh module do nothing, and a formula that lacks them would pass."""
    for parameter in module.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    return module


# The checkpoint


@pytest.mark.parametrize("name", FLOW_MODELS)
def test_tensors_are_those_that_are_published(name):
    with torch.device("meta"):
        model = JanusFlow(FLOW_MODELS[name])
    published = {entry.name: entry.shape for entry in original_entries(FLOW_MODELS[name]) if ".attn_pool." not in entry.name}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == published


def test_parameter_count_is_that_which_is_published():
    """janus.md 1.6; the total has SigLIP's pooling head, which is dead."""
    with torch.device("meta"):
        model = JanusFlow(FLOW_MODELS["janusflow-1.3b"])
    assert sum(parameter.numel() for parameter in model.parameters()) + 12_595_200 == 2_046_367_504


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loads_what_is_stored(checkpoints, dtype):
    folder = checkpoints("tiny-flow")
    stored, state = load_file(folder / "model.safetensors"), JanusFlow.load(folder, dtype).state_dict()
    assert all(torch.equal(value, stored[name].to(dtype)) for name, value in state.items())


def test_what_no_checkpoint_holds_is_made(checkpoints):
    """The rotary frequencies, in fp32 (janus.md 8.1)."""
    rotary = JanusFlow.load(checkpoints("tiny-flow"), torch.bfloat16).language_model.model.rotary_emb
    torch.testing.assert_close(rotary.inv_freq, 10000 ** (-torch.arange(0, 16, 2) / 16))


def test_a_checkpoint_that_lacks_a_tensor_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "lacking")
    stored = load_file(folder / "model.safetensors")
    del stored["beg_of_und_embed"]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key.*beg_of_und_embed"):
        JanusFlow.load(folder)


# The parts (janus.md 7.2)


def test_time_embedding_is_that_of_diffusers(model):
    mlp = TimestepEmbedding(40, 64)
    mlp.load_state_dict(model.vision_gen_enc_model.time_embed.state_dict())
    moments = torch.tensor([0.0, 33.25, 100 / 3, 968.0])
    expected = mlp(Timesteps(40, flip_sin_to_cos=True, downscale_freq_shift=0)(moments))
    torch.testing.assert_close(model.time_embedding(moments), expected, **CLOSE)


def test_block_is_the_formula():
    channels, side, width = 6, 5, 7
    block = _shaken(ConvNeXtBlock(channels, width, 1e-6))
    x, t_emb = torch.randn(2, channels, side, side), torch.randn(2, width)
    w = {name: value.double().numpy() for name, value in block.state_dict().items()}

    def linear(name, values):
        return values @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    erf = np.vectorize(math.erf)
    for row in range(2):
        picture, time = x[row].double().numpy(), t_emb[row].double().numpy()
        hidden = np.zeros((side, side, channels))
        for c in range(channels):
            padded = np.pad(picture[c], 3)
            for i in range(side):
                for j in range(side):
                    window = padded[i : i + 7, j : j + 7]
                    hidden[i, j, c] = (window * w["depthwise.weight"][c, 0]).sum() + w["depthwise.bias"][c]
        hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6) * w["norm.weight"]
        hidden = linear("channelwise_linear_1", hidden)
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        size = np.sqrt((hidden**2).sum((0, 1)))
        relative = size / (size.mean() + 1e-6)
        gamma, beta = (w[f"channelwise_norm.{part}"].reshape(-1) for part in ("weight", "bias"))
        hidden = linear("channelwise_linear_2", beta + (gamma * relative + 1) * hidden)
        mapped = linear("cond_embeds_mapper", time / (1 + np.exp(-time)))
        scale, shift = mapped[:channels, None, None], mapped[channels:, None, None]
        expected = shift + (1 + scale) * (picture + hidden.transpose(2, 0, 1))
        np.testing.assert_allclose(block(x, t_emb)[row].numpy(), expected, **CLOSE)


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def test_a_patch_of_the_velocity_comes_from_its_state_and_its_skip():
    """Its channel, then the row and the column within the patch, number the last convolution's outputs."""
    config = FLOW_MODELS["tiny-flow"]
    model = _shaken(JanusFlow(replace(config, flow=replace(config.flow, decoder_blocks=0))))
    decoder = model.vision_gen_dec_model
    last = decoder.out_convs[0]
    hidden, skip = torch.randn(2, 16, 64), torch.randn(2, 40, 4, 4)
    velocity = model.decode(hidden, skip, torch.zeros(2, 64))
    aligned = model.vision_gen_dec_aligner(_rms(hidden, model.vision_gen_dec_aligner_norm.weight))
    for i, j in np.ndindex(4, 4):
        both = torch.cat([_rms(aligned[:, 4 * i + j], decoder.input_norm.weight), skip[:, :, i, j]], dim=-1)
        patch = _rms(both, last.norm.weight) @ last.unpatch_conv.weight[:, :, 0, 0].T + last.unpatch_conv.bias
        torch.testing.assert_close(velocity[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], patch.unflatten(-1, (4, 2, 2)), **CLOSE)


def test_tokens_are_patches_rows_first(noise):
    config = FLOW_MODELS["tiny-flow"]
    model = JanusFlow(replace(config, flow=replace(config.flow, encoder_blocks=0)))
    tokens, skip = model.encode(noise, torch.zeros(2, 64))
    kernel = model.vision_gen_enc_model.in_conv
    for i, j in np.ndindex(4, 4):
        patch = noise[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected = torch.einsum("ocij,bcij->bo", kernel.weight, patch) + kernel.bias
        torch.testing.assert_close(skip[:, :, i, j], expected, **CLOSE)
        torch.testing.assert_close(tokens[:, 4 * i + j], model.vision_gen_enc_aligner(expected), **CLOSE)


# The prompt


def _velocity(model, embeds, mask, noise):
    return model.velocity(embeds, mask, noise, torch.tensor([100.0, 300.0]))


@pytest.mark.parametrize("masked", [slice(1, None), slice(0, 3), slice(2, 4)], ids=["all but the first", "the first", "some between"])
def test_what_is_masked_changes_nothing(model, ids, noise, masked):
    """Where the first are masked, rows of them see nothing at all, and must not become NaN."""
    embeds = model.language_model.get_input_embeddings()(ids[:-1]).repeat(2, 1, 1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[1, masked] = 0
    other = embeds.clone()
    other[1, masked] = 30 * torch.randn_like(other[1, masked])
    before = _velocity(model, embeds, mask, noise)
    torch.testing.assert_close(_velocity(model, other, mask, noise), before, **CLOSE)
    changed = _velocity(model, other, torch.ones_like(mask), noise) - before
    assert changed[0].abs().max() < 1e-5 and changed[1].abs().max() > 1e-2


@pytest.mark.parametrize("gap", [True, False], ids=["positions kept", "positions compressed"])
def test_prefix_of_a_row_can_be_computed_once(model, ids, noise, gap):
    """It depends on neither time nor latents, and masked pads can be left out if their positions are kept (janus.md 7.3)."""
    count, length = len(noise), len(ids) - 1
    language = model.language_model.model
    caches = []
    for prefix in (ids[:-1], ids[:1]):
        cache = DynamicCache(config=language.config)
        language(input_ids=prefix.expand(count, -1), past_key_values=cache, use_cache=True)
        caches.append(cache)
    farthest = []

    def compare(step, latents, velocities):
        t_emb = model.time_embedding(torch.full((count,), 1000 * step / 4))
        tokens, skip = model.encode(latents, t_emb)
        embeds = torch.cat([t_emb[:, None], tokens], dim=1)
        for cache, start, expected in zip(caches, (length, length if gap else 1), velocities.chunk(2), strict=True):
            positions = torch.arange(start, start + embeds.shape[1])[None]
            hidden = language(inputs_embeds=embeds, position_ids=positions, past_key_values=cache, use_cache=True).last_hidden_state
            cache.crop(-embeds.shape[1])
            farthest.append((model.decode(hidden[:, 1:], skip, t_emb) - expected).abs().max().item())

    draw(model, ids, noise, pad_id=PAD, steps=4, on_step=compare)
    assert len(farthest) == 8
    assert max(farthest[::2]) < 1e-5 and (max(farthest[1::2]) < 1e-5) == gap


# The loop (janus.md 7.3)


def test_times_as_published():
    moments, length = times(30, exact=False)
    assert moments == [
        0, 33.25, 66.5, 100, 133, 167, 200, 233, 266, 300, 334, 366, 400, 434, 466, 500, 532, 568, 600, 632, 668, 700, 732, 768, 800, 832,
        868, 900, 932, 968,
    ]  # fmt: skip
    assert length == 0.033447265625 and round(30 * length, 5) == 1.00342


def test_exact_times():
    assert times(4) == ([0, 250, 500, 750], 0.25)
    assert times(30)[0][1] == 100 / 3 and times(30)[1] == 1 / 30


@pytest.mark.parametrize("exact", [True, False])
def test_loop_adds_guided_velocities(model, ids, noise, exact):
    seen = []
    drawn = draw(model, ids, noise, pad_id=PAD, steps=3, cfg_weight=5, exact=exact, on_step=lambda *step: seen.append(step))
    assert [step for step, _, _ in seen] == [0, 1, 2] and torch.equal(seen[0][1], noise)
    for (_, before, velocities), after in zip(seen, [*(latents for _, latents, _ in seen[1:]), drawn], strict=True):
        guided = 5 * velocities[:2] - 4 * velocities[2:]
        torch.testing.assert_close(after, before + times(3, exact)[1] * guided, **CLOSE)


def test_rows_are_the_prompt_and_a_blank(model, ids, noise):
    seen = []
    draw(model, ids, noise, pad_id=PAD, steps=1, on_step=lambda *step: seen.append(step))
    blank = torch.tensor([BOS, *[PAD] * (len(ids) - 2)])
    for row, mask, got in ((ids[:-1], [1] * 6, seen[0][2][:2]), (blank, [1, 0, 0, 0, 0, 0], seen[0][2][2:])):
        embeds = model.language_model.get_input_embeddings()(row).repeat(2, 1, 1)
        expected = model.velocity(embeds, torch.tensor([mask] * 2), noise, torch.zeros(2))
        torch.testing.assert_close(got, expected, **CLOSE)


def test_last_id_and_pads_do_not_matter_to_the_picture(model, ids, noise):
    drawn = draw(model, ids, noise, pad_id=PAD, steps=2)
    other = torch.cat([ids[:-1], torch.tensor([99])])
    torch.testing.assert_close(draw(model, other, noise, pad_id=98, steps=2), drawn, **CLOSE)


def test_bf16_model_keeps_an_fp32_state(checkpoints, model, ids, noise):
    low = JanusFlow.load(checkpoints("tiny-flow"), torch.bfloat16)
    drawn, expected = (draw(m, ids, noise, pad_id=PAD, steps=4) for m in (low, model))
    assert drawn.dtype == torch.float32
    assert 0 < (drawn - expected).abs().max() < 0.05 * expected.abs().max()


def test_pixels_come_from_scaled_latents(checkpoints, noise):
    decoder = vae(checkpoints("tiny-flow") / "vae")
    got = pixels(decoder, noise)
    assert got.shape == (2, 3, 64, 64)
    torch.testing.assert_close(got, decoder.decode(noise / 0.13025).sample, **CLOSE)


# Seeing


def test_tower_is_that_of_janus():
    sizes = FLOW_MODELS["tiny-flow"].vision
    tower = _shaken(VisionTower(sizes))
    theirs = JanusVisionModel(
        JanusVisionConfig(
            hidden_size=sizes.hidden_size, num_hidden_layers=sizes.num_layers, num_attention_heads=sizes.num_heads,
            image_size=sizes.image_size, patch_size=sizes.patch_size, mlp_ratio=4.0, layer_norm_eps=sizes.norm_eps,
        )
    )  # fmt: skip
    state, weights = tower.state_dict(), {}
    for name, value in theirs.state_dict().items():
        block, separate, part = (
            original_name(f"model.vision_model.{name}").removeprefix("vision_model.vision_tower.").partition(".self_attn.")
        )
        if separate:
            which, kind = part.split("_proj.")
            weights[name] = state[f"{block}.attn.qkv.{kind}"].chunk(3)["qkv".index(which)]
        else:
            weights[name] = state[block].reshape(value.shape)
    theirs.load_state_dict(weights)
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(tower(picture), theirs.eval()(picture).last_hidden_state, **CLOSE)


def test_a_picture_begins_with_the_learned_vector(model):
    picture = torch.rand(2, 3, 64, 64)
    seen = model.see(picture)
    features = model.vision_und_enc_aligner(model.vision_und_enc_model["vision_tower"](picture))
    assert torch.equal(seen[:, 0], model.beg_of_und_embed.expand(2, -1)) and torch.equal(seen[:, 1:], features)


# Training


def test_a_fresh_model_can_be_trained():
    with torch.enable_grad():
        model = JanusFlow(FLOW_MODELS["small-flow"])
        size = model.grid * 2
        embeds = model.language_model.get_input_embeddings()(torch.arange(6).reshape(2, 3))
        velocity = model.velocity(embeds, torch.ones(2, 3, dtype=torch.long), torch.randn(2, 4, size, size), torch.tensor([5.0, 900.0]))
        (velocity.square().mean() + model.see(torch.rand(1, 3, 80, 80)).square().mean()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()}
    assert without == {"language_model.lm_head.weight"}
