"""nano-flow's training at a few steps: the text is JanusFlow's, what is learned is what `draw` asks for, the path ends in a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.quality.nano_torch import TorchFlow
from janus_export.checkpoint.config import parse_config
from nano import flow, train_flow, train_vae, train_vq
from nano.model import GRID
from nano.progress import Stage
from nano.scenes import SIDE, render, sample
from nano.tokenizer import FLOW_TEMPLATE, USER, VOCAB_SIZE, Text, train_tokenizer
from nano.train_tower import ANSWERS
from testing.janus_flow import JanusFlow, draw

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("a red circle", "draw two small green crosses on white", "a cross")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    train_tokenizer(folder, FLOW_TEMPLATE)
    return Text(folder, GRID**2, FLOW_TEMPLATE)


@pytest.fixture(scope="module")
def model():
    """Whose velocity is not nothing, as a fresh one's is."""
    torch.manual_seed(1)
    model = flow.build(flow.config(VOCAB_SIZE, 1.0), 0)
    torch.nn.init.normal_(model.vision_gen_dec_model.out_convs[0].unpatch_conv.weight, std=0.1)
    return model.eval()


def pictures(count):
    rng = np.random.default_rng(0)
    return [render(sample(rng)) for _ in range(count)]


def test_roles_are_words(text):
    ids = text.drawing("a red circle")
    assert ids[0] == text.bos and ids[-1] == text.begin
    assert text.decode(ids[1:-1]) == "User: a red circle\n\nAssistant:"
    assert len(text.encode("User:")) == len(text.encode("Assistant:")) == 2 and len(text.encode(USER)) > 1
    spoken, said = text.conversation([("What is this?", "a red circle")])
    assert text.decode(spoken[: said.index(True)]).endswith("natural language.\n\nUser: \nWhat is this?\n\nAssistant:")
    assert text.decode(spoken[said.index(True) :]) == " a red circle" and spoken[-1] == text.eos


def test_a_shorter_prompt_and_a_blank_one_are_as_when_drawn(model, text):
    """In company with longer ones, padded at the left: the velocities of `draw`'s first step."""
    noise = torch.randn(1, 4, 2 * GRID, 2 * GRID)
    prompts = [text.drawing(words) for words in PROMPTS]
    first = []
    for ids in prompts:
        draw(model, torch.tensor(ids), noise, pad_id=text.pad, steps=1, on_step=lambda step, latents, velocities: first.append(velocities))
    for guided in (0, 1):
        ids, mask = train_flow.prompt_rows(prompts, torch.full((3,), guided == 1), text.pad)
        assert guided == 0 or mask.sum(1).tolist() == [1, 1, 1]
        with torch.no_grad():
            velocities = model.velocity(model.language_model.get_input_embeddings()(ids), mask, noise.expand(3, -1, -1, -1), torch.zeros(3))
        torch.testing.assert_close(velocities, torch.stack([both[guided] for both in first]), rtol=1e-4, atol=1e-4)


def test_the_velocity_that_is_learned_leads_from_noise_to_latents(text):
    """With the data in hand, the target's loss is nothing at every s, and one Euler step of any length stays on the way."""

    class Knowing(torch.nn.Module):
        language_model = torch.nn.Module()

        def states(self, embeds, mask, noisy, times):
            way = (times / 1000)[:, None, None, None]
            torch.testing.assert_close(noisy, (1 - way) * noise + way * latents)
            return latents - noise, None, None

        def decode(self, states, skip, t_emb):
            return states

    latents, noise = torch.randn(2, 3, 4, 16, 16)
    model = Knowing()
    model.language_model.get_input_embeddings = lambda: torch.nn.Embedding(VOCAB_SIZE, 8)
    rows = train_flow.prompt_rows([text.drawing(words) for words in PROMPTS], torch.zeros(3, dtype=torch.bool), text.pad)
    assert train_flow.flow_loss(model, *rows, latents, noise, torch.tensor([0.0, 0.3, 0.99]))[0] == 0


def test_ways_are_spread():
    torch.manual_seed(0)
    ways = train_flow.ways(40)
    assert (ways.diff() > 0).all() and 0 < ways[0] < 0.1 and 0.8 < ways[-1] < 1
    assert ways[20].logit() == pytest.approx(train_flow.MIDDLE, abs=0.1)


def test_looks_are_asked_for_where_things_are():
    """How likely a thing is at all does not matter, nor what patches of background are told to show."""
    told = tuple(torch.randn(3, size) for size in ANSWERS)
    labels = torch.zeros(3, len(ANSWERS), dtype=torch.long)
    labels[1, :3] = torch.tensor([2, 1, 2])
    loss = train_flow.look_loss(told, labels)
    expected = sum(torch.nn.functional.cross_entropy(told[i][1:2, 1:], labels[1:2, i] - 1) for i in range(3))
    torch.testing.assert_close(loss, expected)
    for logits in told:
        logits[:, 0] += 7
        logits[[0, 2]] = 0
    torch.testing.assert_close(train_flow.look_loss(told, labels), expected)


def test_both_losses_fall_on_one_batch(text):
    model = flow.build(flow.config(VOCAB_SIZE, 1.0), 0)
    shown = pictures(3)
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 2 * GRID, 2 * GRID)
    rows = train_flow.prompt_rows([text.drawing(words) for words in PROMPTS], torch.tensor([False, True, False]), text.pad)
    spoken = [text.conversation([("Is there a red circle?", answer)]) for answer in ("yes", "no", "yes")]
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(10):
        drawing, _ = train_flow.flow_loss(model, *rows, latents, noise, torch.tensor([0.2, 0.5, 0.8]))
        answers, _ = train_flow.answer_loss(model, train_vq.pixels(shown), spoken, text)
        (drawing + answers).backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append((drawing.item(), answers.item()))
    assert losses[0][0] == pytest.approx((latents - noise).pow(2).mean().item(), rel=0.05)
    assert losses[-1][0] < losses[0][0] - 0.2 and losses[-1][1] < losses[0][1] - 0.5


def test_latents_are_at_the_scale_of_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(train_vae, "BATCH", 2)
    vae = flow.build_vae(0)
    train_vae.train(vae, Stage("vae", tmp_path, 0), 2)
    train_vae.set_scale(vae, 0)
    latents = train_vae.to_latents(vae, pictures(30))
    assert latents.shape == (30, 4, 2 * GRID, 2 * GRID) and latents.pow(2).mean().item() == pytest.approx(1, rel=0.2)
    encoder = {name: value.clone() for name, value in vae.encoder.state_dict().items()}
    before = train_vae.decoded(vae, latents[:2])
    train_vae.train_decoder(vae, Stage("vae-decoder", tmp_path, 0), 2)
    assert all(torch.equal(value, encoder[name]) for name, value in vae.encoder.state_dict().items())
    assert before.shape == (2, 3, SIDE, SIDE) and not torch.equal(before, train_vae.decoded(vae, latents[:2]))


@torch.inference_mode()
def likeliest(trained, image, question, count):
    """Greedy ids, each from a forward pass over everything before it. Ends with the model's end token."""
    spoken, said = trained.text.conversation([(question, "")])
    ids = torch.tensor(spoken[: said.index(True)])
    decoder, answer = trained.model.language_model, []
    embeds = decoder.get_input_embeddings()(ids)
    embeds[(ids == trained.text.begin) | (ids == trained.text.placeholder)] = trained.model.see(train_vq.pixels([np.asarray(image)]))[0]
    while len(answer) < count and answer[-1:] != [trained.text.eos]:
        told = decoder.get_input_embeddings()(torch.tensor(answer, dtype=torch.long))
        answer.append(decoder(inputs_embeds=torch.cat([embeds, told])[None]).logits[0, -1].argmax().item())
    return answer


@pytest.mark.slow
def test_from_nothing_to_a_checkpoint(tmp_path):
    def train():
        command = [sys.executable, "-m", "nano", "--flow", "--out", tmp_path / "out", "--work", tmp_path / "work", "--quick", "20000"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stderr

    said, out = train(), tmp_path / "out"
    wanted = ("vae: step 1 of 1", "vae-decoder: step 1 of 1", "tower: step 1 of 1", "flow: step 1 of 1", "dB on 200 scenes")
    assert [name for name in wanted if name not in said] == []
    written = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert sum(map(len, written.values())) <= 8_000_000
    # Every stage has ended, so that the second run only writes the checkpoint again.
    assert "step" not in train()
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == written
    config = parse_config(*(json.loads((folder / "config.json").read_text()) for folder in (out, out / "vae")))
    assert config == flow.config(VOCAB_SIZE, config.flow.vae.scaling_factor) and config.flow.image_size == SIDE
    assert "random_weights" not in json.loads((out / "config.json").read_text())
    assert JanusFlow.load(out).language_model.lm_head.weight.shape == (VOCAB_SIZE, config.text.hidden_size)
    trained = TorchFlow(out, steps=2)
    (first, second), (again,) = (trained.generate(["a red circle"] * count, seed=3, cfg_weight=None, batch_size=8) for count in (2, 1))
    assert first.image.size == (SIDE, SIDE) and first.image.tobytes() == again.image.tobytes() != second.image.tobytes()
    said = "".join(trained.describe(Image.new("RGB", (SIDE, SIDE)), "What is this?", max_tokens=2))
    assert said == trained.text.decode(likeliest(trained, Image.new("RGB", (SIDE, SIDE)), "What is this?", 2))
