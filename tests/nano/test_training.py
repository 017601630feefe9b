"""The training path at a few steps: losses fall where they can, stages go on where they were stopped, the text is the runtime's."""

import numpy as np
import pytest
import torch

import janus_runtime
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from nano import train_decoder, train_tower, train_vq
from nano.__main__ import save
from nano.language import caption
from nano.model import GRID, NUM_IDS, build, half_precision
from nano.progress import Stage, set_rate
from nano.scenes import BACKGROUNDS, COLOURS, RADII, SHAPES, render, sample
from nano.tokenizer import VOCAB_SIZE, Text, train_tokenizer


@pytest.fixture(scope="module")
def untrained(text, tmp_path_factory):
    """The bundle of a model as training finds it."""
    folder = tmp_path_factory.mktemp("untrained")
    train_tokenizer(folder / "text")
    save(build(VOCAB_SIZE, text.placeholder, 0), folder / "text", folder / "checkpoint")
    export_bundle(open_checkpoint(str(folder / "checkpoint")), folder / "bundle", "fp32")
    return folder / "bundle"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    train_tokenizer(folder)
    return Text(folder, GRID**2)


def test_every_word_is_one_token(text):
    rng = np.random.default_rng(0)
    for _ in range(20):
        words = caption(sample(rng), rng).split(" ")
        assert len(text.encode(" " + " ".join(words))) <= len(words) + 1  # and perhaps a full stop


def test_the_runtime_builds_the_prompts_of_training(text, untrained):
    """What the model saw in training is what `janus_runtime.prompt` gives it."""
    with janus_runtime.load(untrained) as janus:
        prompter = janus._prompter
        assert prompter.image("a red circle").tolist() == text.drawing("a red circle")
        assert prompter.blank(prompter.image("a red circle")).tolist() == text.drawing("a red circle", blank=True)
        ids, said = text.conversation([("How many squares?", "two"), ("Is there a red cross?", "no")])
        first = said.index(True)
        assert prompter.question("How many squares?", 1).tolist() == ids[:first]
        second = first + said[first:].index(False)
        third = second + said[second:].index(True)
        assert prompter.question("Is there a red cross?", 0, first=False).tolist() == ids[second:third]
        assert prompter.decode(ids[first:second]) == " two" and ids[second - 1] == text.eos


def test_a_stopped_stage_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(train_vq, "BATCH", 2)
    monkeypatch.setattr("nano.progress.SAVE_EVERY", 0)

    def fresh():
        return build(VOCAB_SIZE, 5, 0).model.vqmodel

    def run(folder, stop_after=None):
        folder.mkdir(exist_ok=True)
        vq, stage = fresh(), Stage("vq", folder, 0)
        if stop_after is not None:
            told = 0

            def report(**figures):
                nonlocal told
                told += 1
                if told > stop_after:
                    raise KeyboardInterrupt

            stage.report = report
        train_vq.train(vq, stage, 4)
        return vq

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop_after=2)
    resumed = run(tmp_path / "parts")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=name)
    done = fresh()
    assert Stage("vq", tmp_path / "whole", 0).done(done)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), done.state_dict().values(), strict=True))


def test_a_code_is_told_from_its_neighbours_inside_half_precision_too():
    """bfloat16 near one steps by 0.004, and codes may lie closer."""
    vq = build(VOCAB_SIZE, 5, 0).model.vqmodel
    torch.manual_seed(0)
    codes = torch.nn.functional.normalize(torch.ones(8) + 0.03 * torch.randn(NUM_IDS, 8), dim=-1)
    vq.quantize.embedding.weight.data.copy_(codes)
    with half_precision():
        assert train_vq.likeness(vq, codes).argmax(-1).tolist() == list(range(NUM_IDS))


def test_what_cells_show_is_known_beforehand():
    """And its ids give the pictures back."""
    contents = train_vq.Contents()
    assert len(contents) == 459
    rng = np.random.default_rng(0)
    pictures = [render(sample(rng, held_out=bool(i % 2))) for i in range(100)]
    ids = contents.ids(pictures)
    first = dict(reversed(list(zip(ids.tolist(), train_vq.cells(pictures), strict=True))))
    assert all((first[number] == cell).all() for number, cell in zip(ids.tolist(), train_vq.cells(pictures), strict=True))
    with pytest.raises(KeyError):
        contents.ids([np.full((64, 64, 3), 7, np.uint8)])


def test_labels_of_patches_name_the_thing_that_covers_them():
    scene = sample(np.random.default_rng(0), kind="one")
    labels = train_tower.patch_labels(scene)
    (thing,) = scene.things
    at = (thing.y // 8) * GRID + thing.x // 8
    names = [list(table)[index - 1] for table, index in zip((COLOURS, SHAPES, RADII), labels[at, :3], strict=True)]
    assert names == [thing.colour, thing.shape, thing.size]
    assert list(BACKGROUNDS)[labels[0, -2]] == scene.background
    assert labels[at, 3:7].tolist() == [thing.y // 8 + 1, thing.x // 8 + 1, thing.y // 8, thing.x // 8]
    assert 0 < (labels[:, 0] > 0).sum() < GRID**2


def test_both_losses_fall_on_one_batch(text):
    """And neither task's loss looks at padding: rows give alone what they give in company."""
    torch.manual_seed(0)
    model = build(VOCAB_SIZE, text.placeholder, 0)
    rng = np.random.default_rng(0)
    scenes = [sample(rng) for _ in range(3)]
    images = train_vq.pixels([render(scene) for scene in scenes])
    ids = torch.randint(0, NUM_IDS, (3, GRID**2))
    prompts = [text.drawing(words) for words in ("a red circle", "draw two small green crosses on white", "a cross")]
    spoken = [
        text.conversation([(question, "yes")]) for question in ("Is there a red circle?", "What is this?", "How many things are there?")
    ]

    def losses(rows):
        log_probs = train_decoder.drawing_log_probs(model, [prompts[row] for row in rows], ids[rows], text.pad)
        drawing = train_decoder.drawing_loss(log_probs, ids[rows], torch.zeros(len(rows)))
        answer, _ = train_decoder.answer_loss(model, images[rows], [spoken[row] for row in rows], text)
        return drawing, answer

    with torch.no_grad():
        together, alone = losses([0, 1, 2]), [losses([row]) for row in range(3)]
        for kind in (0, 1):
            torch.testing.assert_close(together[kind], torch.stack([pair[kind] for pair in alone]).mean(), rtol=1e-4, atol=1e-4)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    first = None
    for _ in range(8):
        drawing, answer = losses([0, 1, 2])
        first = first or (drawing.item(), answer.item())
        (drawing + answer).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert drawing.item() < first[0] - 0.2 and answer.item() < first[1] - 0.5


def test_a_blank_prompt_is_smoothed():
    """The loss is linear in each row's smoothing, from its targets alone to every id alike."""
    ids = torch.randint(0, NUM_IDS, (2, GRID**2))
    log_probs = torch.randn(2, GRID**2, NUM_IDS).log_softmax(-1)

    def loss(*smoothing):
        return train_decoder.drawing_loss(log_probs, ids, torch.tensor(smoothing)).item()

    assert loss(0.2, 0.2) == pytest.approx(0.8 * loss(0.0, 0.0) + 0.2 * loss(1.0, 1.0), rel=1e-5)
    assert loss(0.2, 0.0) + loss(0.0, 0.2) == pytest.approx(loss(0.0, 0.0) + loss(0.2, 0.2), rel=1e-5)


def test_looks_are_asked_for_apart_from_places():
    """How likely a thing is at all does not matter, nor what cells of background are told to be."""
    background = torch.tensor([0, 1])
    ids = torch.tensor([[0, 2, 3, 1]])
    scores = torch.randn(1, 4, 5)
    loss = train_decoder.look_loss(scores.log_softmax(-1), ids, background)
    expected = torch.nn.functional.cross_entropy(scores[0, 1:3, 2:], torch.tensor([0, 1]))
    torch.testing.assert_close(loss, expected)
    scores[..., :2] += 7
    scores[:, [0, 3]] = 0
    torch.testing.assert_close(train_decoder.look_loss(scores.log_softmax(-1), ids, background), expected)


def test_the_rate_rises_holds_and_falls():
    (weight,) = torch.nn.Linear(1, 1, bias=False).parameters()
    optimiser = torch.optim.SGD([weight])

    def rate(step, **shape):
        set_rate(optimiser, 2.0, step, 1000, **shape)
        return optimiser.param_groups[0]["lr"]

    assert rate(0) == pytest.approx(0.02) and rate(500) == pytest.approx(1.0) and rate(1000) == pytest.approx(0.0)
    assert rate(500, hold=0.5) == 2.0 and rate(750, hold=0.5) == pytest.approx(1.0)
    assert rate(1000, hold=0.5, least=0.1) == pytest.approx(0.2)
