"""JanusFlow against `testing/janus_flow.py`, plain PyTorch that computes the whole prompt in every step, and diffusers' VAE."""

import dataclasses

import numpy as np
import pytest
import torch

import janus_runtime
import janus_runtime.pictures.image
import janus_runtime.prompt
from janus_runtime.bundle.manifest import Schedule
from janus_runtime.checks.tolerances import FP32
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding.sessions import open_session
from janus_runtime.drawing.flow import FlowDrawer
from janus_runtime.drawing.solver import Steps, make_steps
from janus_runtime.sampling.noise import normal
from testing.janus_flow import JanusFlow, draw, pixels, times, vae
from testing.reference import example_images
from testing.sessions import prefill, step
from tests.parity.compare import assert_close, assert_same_ids

PROMPTS = ("a red circle left of the blue square", "fox")
SYSTEM = "You are a helpful language and vision assistant."
STEPS = 30


@pytest.fixture(scope="module", params=["tiny-flow", "small-flow"])
def flow_model(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def torch_flow(flow_model, checkpoints) -> JanusFlow:
    return JanusFlow.load(checkpoints(flow_model))


@pytest.fixture(scope="module")
def decoder(flow_model, checkpoints):
    return vae(checkpoints(flow_model) / "vae")


@pytest.fixture(scope="module")
def runtime(flow_model, bundles):
    with janus_runtime.load(bundles(flow_model), backend="cpu") as opened:
        yield opened


def prompt_ids(runtime, text: str) -> torch.Tensor:
    """Written out from the published template, with the id that marks the picture's begin and is cut off."""
    encode, bos = runtime._prompter.encode, runtime.manifest.tokens.bos.id
    return torch.tensor([bos, *encode(f"User: {text}\n\nAssistant:"), runtime.manifest.tokens.begin_of_image.id])


def noise_of(runtime, *seeds: int) -> np.ndarray:
    flow = runtime.manifest.flow
    return np.stack([normal(seed, (flow.latent_channels, flow.latent_size, flow.latent_size)) for seed in seeds])


def expected_steps(runtime, torch_flow, text: str, noise: np.ndarray, cfg_weight: float, steps: int = STEPS, exact: bool = True):
    """-> final latents, guided velocities [steps, n, c, s, s] of the reference, one prompt alone."""
    velocities = []

    def on_step(step: int, latents: torch.Tensor, rows: torch.Tensor) -> None:
        cond, uncond = rows.chunk(2)
        velocities.append((uncond + cfg_weight * (cond - uncond)).numpy())

    ids, pad = prompt_ids(runtime, text), runtime.manifest.tokens.pad.id
    latents = draw(torch_flow, ids, torch.from_numpy(noise), pad_id=pad, steps=steps, cfg_weight=cfg_weight, exact=exact, on_step=on_step)
    return latents.numpy(), np.stack(velocities)


def test_prompts(runtime):
    assert runtime._prompter.image_string(" a fox ") == "User: a fox\n\nAssistant:"
    assert runtime._prompter.image("a fox").tolist() == prompt_ids(runtime, "a fox")[:-1].tolist()
    system, _, rest = runtime._prompter.question_string("What is it?", 1).partition("\n\n")
    assert system.startswith(SYSTEM) and rest == "User: <image_placeholder>\nWhat is it?\n\nAssistant:"
    ids, tokens = runtime._prompter.question("What?", 2).tolist(), runtime.manifest.tokens
    # A begin, whose place the learned vector takes, as many placeholders as patches, an end: the published processor's ids.
    patches = runtime.manifest.image_input.num_tokens - 1
    assert [ids.count(token.id) for token in (tokens.begin_of_image, tokens.image_placeholder, tokens.end_of_image)] == [2, 2 * patches, 2]


def test_time_embed(runtime, torch_flow):
    """Times and all that the blocks make of them, at every step and between."""
    times = np.linspace(0, 1000, 37, dtype=np.float32)
    got = runtime._engines["time_embed"].run({"times": times})
    with torch.inference_mode():
        embeds = torch_flow.time_embedding(torch.from_numpy(times))
        blocks = [*torch_flow.vision_gen_enc_model.mid_block.res_blocks, *torch_flow.vision_gen_dec_model.mid_block.res_blocks]
        conditions = torch.cat([block.cond_embeds_mapper(torch.nn.functional.silu(embeds)) for block in blocks], dim=-1)
    assert_close(got["time_embeds"], embeds.numpy(), "time_embeds")
    assert_close(got["conditions"], conditions.numpy(), "conditions")


@pytest.mark.parametrize("cfg_weight", [2.0, 5.0, 1.0])
def test_every_step_of_prompts_of_different_lengths(runtime, torch_flow, cfg_weight):
    """Two pictures of each prompt in one batch; each prompt alone in the reference, which computes all of it in every step."""
    drawer = FlowDrawer(runtime._engines)
    noise = noise_of(runtime, 7, 8, 9, 10)
    rows = [runtime._engines.embed_text(runtime._prompter.image(text)) for text in PROMPTS]
    assert len(rows[0]) != len(rows[1])
    euler = make_steps("euler", Schedule(STEPS, 1.0))
    steps = list(drawer.integrate(noise, drawer.prefix([rows[0], rows[0], rows[1], rows[1]]), euler, cfg_weight))
    for index, text in enumerate(PROMPTS):
        mine = slice(2 * index, 2 * index + 2)
        latents, velocities = expected_steps(runtime, torch_flow, text, noise[mine], cfg_weight)
        for index, (_, velocity) in enumerate(steps):
            assert_close(velocity[mine], velocities[index], f"velocity of {text!r} in step {index}")
        assert_close(steps[-1][0][mine], latents, f"latents of {text!r}")
        assert np.abs(velocities[0] - velocities[-1]).max() > 0.1, "a constant velocity; equality would show little"


def test_velocities_depend_on_prompt_guidance_and_time(runtime):
    """Else the test above would pass for a runtime that ignores them."""
    drawer, noise = FlowDrawer(runtime._engines), noise_of(runtime, 7)
    embed = lambda text: drawer.prefix([runtime._engines.embed_text(runtime._prompter.image(text))])  # noqa: E731

    def latents(text: str, steps: int, weight: float) -> np.ndarray:
        return list(drawer.integrate(noise, embed(text), make_steps("euler", Schedule(steps, 1.0)), weight))[-1][0]

    base = latents(PROMPTS[0], 3, 2.0)
    for what, other in (
        ("the prompt", latents(PROMPTS[1], 3, 2.0)),
        ("the guidance", latents(PROMPTS[0], 3, 4.0)),
        ("the number of steps", latents(PROMPTS[0], 4, 2.0)),
    ):
        assert relative_difference(other, base) > 100 * FP32, f"latents do not depend on {what}"


def test_times_rounded_as_published(runtime, torch_flow, monkeypatch):
    """The published loop holds times in bf16; fed the same, the graphs draw its picture, and ours is another."""
    noise = noise_of(runtime, 3)
    expected, _ = expected_steps(runtime, torch_flow, PROMPTS[0], noise, 2.0, exact=False)
    (exact,) = runtime.generate(PROMPTS[0], seed=3)
    assert relative_difference(exact.latents[None], expected) > 10 * FP32
    moments, length = times(STEPS, exact=False)
    rounded_steps = Steps(np.float32(moments), np.full(STEPS, length, np.float32), np.zeros(STEPS, np.float32))
    monkeypatch.setattr("janus_runtime.drawing.flow.make_steps", lambda solver, schedule: rounded_steps)
    (rounded,) = runtime.generate(PROMPTS[0], seed=3)
    assert_close(rounded.latents[None], expected, "latents with rounded times")


@pytest.mark.parametrize("count", [1, 6])
def test_ab2_is_the_integral_of_the_line_through_two_velocities(runtime, torch_flow, count):
    """The reference's velocities at the bundle's shifted times, integrated by points and weights that know nothing of ours."""
    shift = runtime.manifest.flow.solvers.ab2.shift
    even = np.arange(count + 1) / count
    moments = even / (shift - (shift - 1) * even)
    latents = noise_of(runtime, 11).astype(np.float64)
    known: list[tuple[float, np.ndarray]] = []
    for begin, end in zip(moments, moments[1:], strict=False):
        known = [*known, (begin, reference_velocity(runtime, torch_flow, PROMPTS[0], latents, begin, 2.0))][-2:]
        if len(known) == 1:
            latents = latents + (end - begin) * known[0][1]
            continue
        (first, before), (second, now) = known
        # A line's integral is its length times what it is in the middle.
        share = ((begin + end) / 2 - first) / (second - first)
        latents = latents + (end - begin) * (before + share * (now - before))
    (picture,) = runtime.generate(PROMPTS[0], seed=11, solver="ab2", steps=count)
    assert_close(picture.latents[None], latents.astype(np.float32), f"latents after {count} steps")


@torch.inference_mode()
def reference_velocity(runtime, torch_flow, text: str, latents: np.ndarray, moment: float, cfg_weight: float) -> np.ndarray:
    """The guided velocity [1, c, s, s] at a time of 0 to 1."""
    prompt = prompt_ids(runtime, text)[:-1].repeat(2, 1)
    mask = torch.ones_like(prompt)
    prompt[1, 1:], mask[1, 1:] = runtime.manifest.tokens.pad.id, 0
    embeds = torch_flow.language_model.get_input_embeddings()(prompt)
    rows = torch.from_numpy(latents.astype(np.float32)).repeat(2, 1, 1, 1)
    cond, uncond = torch_flow.velocity(embeds, mask, rows, torch.full((2,), 1000 * moment)).numpy()
    return (uncond + cfg_weight * (cond - uncond))[None]


def test_image_decoder(runtime, decoder):
    latents = np.random.default_rng(0).standard_normal((3, *noise_of(runtime, 0).shape[1:]), np.float32)
    got = runtime._engines["image_decoder"].run({"latents": latents})["pixels"]
    expected = pixels(decoder, torch.from_numpy(latents)).numpy()
    assert expected.std() > 0.1, "the reference's picture is flat; equality with it would show nothing"
    for index in range(len(latents)):
        assert_close(got[index], expected[index], f"image_decoder, picture {index}")


def test_a_picture_to_the_last_grey_level(runtime, torch_flow, decoder):
    """`generate` in all, against the reference's latents, diffusers' pixels and the demo's way to bytes, by truncation."""
    pictures = runtime.generate(list(PROMPTS), n=2, seed=5, steps=7, cfg_weight=3.0, batch_size=3)
    assert [(picture.prompt, picture.seed) for picture in pictures] == [(text, seed) for text in PROMPTS for seed in (5, 6)]
    for picture in pictures:
        assert picture.image_ids is None and picture.settings.temperature is None and picture.settings.steps == 7
        expected, _ = expected_steps(runtime, torch_flow, picture.prompt, noise_of(runtime, picture.seed), 3.0, steps=7)
        assert_close(picture.latents[None], expected, "latents")
        floats = pixels(decoder, torch.from_numpy(expected))[0].clip(-1, 1).permute(1, 2, 0).numpy()
        levels = ((floats + 1) / 2 * 255).astype(np.uint8)
        assert np.abs(np.asarray(picture.image).astype(int) - levels).max() <= 1


def test_a_picture_does_not_depend_on_its_company(runtime):
    together = runtime.generate(list(PROMPTS), n=2, seed=1, steps=5)
    for picture in together:
        (alone,) = runtime.generate(picture.prompt, seed=picture.seed, steps=5)
        assert_close(alone.latents, picture.latents, "latents alone")


# Answers


def question(runtime, torch_flow, text: str, images: list) -> torch.Tensor:
    """Embedded prompt [1, T, D]: begin-of-image and the placeholders give way to what the model sees (published processor)."""
    tokens, ids = runtime.manifest.tokens, runtime._prompter.question(text, len(images))
    seen = torch.from_numpy(np.stack([image_pixels(runtime, image) for image in images]))
    embeds = torch_flow.language_model.get_input_embeddings()(torch.from_numpy(ids.astype(np.int64)))[None]
    mask = np.isin(ids, [tokens.begin_of_image.id, tokens.image_placeholder.id])
    embeds[0, torch.from_numpy(mask)] = torch_flow.see(seen).flatten(0, 1)
    return embeds


def image_pixels(runtime, image) -> np.ndarray:
    return janus_runtime.pictures.image.preprocess(image, runtime.manifest.image_input)


def test_vision_encoder(runtime, torch_flow):
    spec = runtime.manifest.image_input
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 3, spec.size, spec.size)).astype(np.float32)
    got = runtime._engines["vision_encoder"].run({"pixels": batch})["embeds"]
    with torch.inference_mode():
        assert_close(got, torch_flow.see(torch.from_numpy(batch)).numpy(), "vision_encoder")


@pytest.mark.parametrize("count", [1, 2])
@torch.inference_mode()
def test_answers(runtime, torch_flow, count):
    """Greedy ids equal those of whole forwards without a cache, and so do the logits on the way."""
    images = example_images(9, [(90, 70), (33, 120)])[:count]
    answer = runtime.describe(images, "what colour is the triangle?", max_tokens=16)
    text = "".join(answer)
    assert text == answer.text
    embeds = question(runtime, torch_flow, "what colour is the triangle?", images)
    fed = torch_flow.language_model.get_input_embeddings()(torch.tensor([answer.text_ids]))
    logits = torch_flow.language_model(inputs_embeds=torch.cat([embeds, fed], dim=1)).logits[0, embeds.shape[1] - 1 :].numpy()
    second, first = np.partition(logits[: len(answer.text_ids)], -2, axis=-1)[:, -2:].T
    assert_same_ids(
        np.array(answer.text_ids), logits.argmax(-1)[: len(answer.text_ids)], float((first - second).min()), f"{count} pictures"
    )
    # Fixed ids through prefill and steps.
    session = open_session(runtime._engines, "text", 1, embeds.shape[1] + len(answer.text_ids))
    features = [runtime._engines.encode_image(image_pixels(runtime, image)) for image in images]
    ids = runtime._prompter.question("what colour is the triangle?", count)
    mine = runtime._engines.embed_text(ids).copy()
    janus_runtime.prompt.splice(mine, ids, runtime._prompter.replaced, np.stack(features))
    got = [prefill(session, [mine], "text")[0], *(step(session, np.array([token], np.int32))[0] for token in answer.text_ids)]
    session.close()
    assert_close(np.stack(got), logits, "logits of every step")


def test_manifest_says_what_a_flow_is(runtime, flow_model):
    manifest = runtime.manifest
    assert manifest.family == "janus-flow" and manifest.source.vae == "vae" and manifest.image_output.num_ids is None
    assert dataclasses.asdict(manifest.flow) == {
        "latent_channels": 4, "latent_size": 2 * manifest.image_output.grid, "condition_size": manifest.flow.condition_size,
        "solvers": {"euler": {"steps": 30, "shift": 1.0}, "ab2": {"steps": 15, "shift": 2.0}},
    }  # fmt: skip
    assert manifest.defaults.cfg_weight == 2.0 and manifest.image_input.includes_begin
