"""Stage 3: decoder, aligners and heads together, both tasks in every step. VQ tokenizer and tower stay as they are.

In a tenth of the drawing samples the prompt is blank, pads that are attended as in the reference, so that guidance
has something to lead away from. Guidance at 5 raises what the prompt makes likelier to the fifth power, and with it every
error about what is rare. So blank prompts learn with much label smoothing, which bounds the ratio.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaModel

from nano.language import caption, questions
from nano.model import half_precision
from nano.progress import Stage, set_rate
from nano.scenes import BACKGROUNDS, SIDE, Kind, Scene, render, sample
from nano.tokenizer import Text
from nano.train_vq import Contents, pixels

STEPS = 10000
HOLD = 0.28  # of all steps at full rate
DRAWINGS = 40
CONVERSATIONS = 12
QUESTIONS = 4
RATE = 2e-3
MUON_RATE = 0.02  # of the matrices inside layers
BLANK = 0.1
BLANK_SMOOTHING = 0.95  # label smoothing where the prompt is blank
# Scenes of one thing are learned soonest.
KINDS: dict[Kind, float] = {"one": 0.2, "pair": 0.45, "many": 0.35}


def drawing_log_probs(model: JanusForConditionalGeneration, prompts: list[list[int]], image_ids: Tensor, pad: int) -> Tensor:
    """Prompts (ids each) and the ids [B, GRID**2] that they are to draw -> [B, GRID**2, ids], each place's after those before it."""
    total = image_ids.shape[1] - 1
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    rows = torch.arange(len(prompts))[:, None]
    embeds = model.get_input_embeddings()(_padded(prompts, pad, int(lengths.max()) + total))
    drawn = model.prepare_embeddings_for_image_generation(image_ids[:, :-1])
    places = lengths[:, None] + torch.arange(total)
    embeds = embeds.index_put((rows.expand_as(places), places), drawn.to(embeds.dtype))
    # No mask: padding is at the right, where nothing that counts looks.
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return model.model.generation_head(hidden[rows, lengths[:, None] - 1 + torch.arange(total + 1)]).float().log_softmax(-1)


def drawing_loss(log_probs: Tensor, image_ids: Tensor, smoothing: Tensor) -> Tensor:
    """Mean cross-entropy; `smoothing` [B] is the share of it that asks for all ids alike."""
    told = -log_probs.gather(-1, image_ids[..., None])[..., 0]
    return (told + smoothing[:, None] * (-log_probs.mean(-1) - told)).mean()


def look_loss(log_probs: Tensor, image_ids: Tensor, background: Tensor) -> Tensor:
    """Mean surprise at what a thing looks like, given that there is one: over cells of things, among all ids but `background`.

    Where things begin is chance, and that noise drowns which one begins, told by the prompt in two cells of 64. Asked for by
    itself, it is learned in a fraction of the steps; the chance that a thing begins stays as the first loss alone wants it.
    """
    shown = torch.isin(image_ids, background, invert=True)
    log_probs = log_probs[shown]
    told = log_probs.gather(-1, image_ids[shown][:, None])[:, 0]
    return (log_probs.index_fill(-1, background, -torch.inf).logsumexp(-1) - told).mean()


def answer_loss(
    model: JanusForConditionalGeneration, images: Tensor, spoken: list[tuple[list[int], list[bool]]], text: Text
) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, S, S] and a conversation about each -> mean loss of what the model says, share of it most likely."""
    features = model.model.aligner(model.model.vision_model(images).last_hidden_state)
    return said_loss(model.model.language_model, model.lm_head, features, (text.placeholder,), spoken, text.pad)


def said_loss(
    decoder: LlamaModel, head: nn.Linear, features: Tensor, seen: tuple[int, ...], spoken: list[tuple[list[int], list[bool]]], pad: int
) -> tuple[Tensor, Tensor]:
    """Features of the pictures [B, tokens, width] take the places of the ids in `seen`. -> as `answer_loss`."""
    length = max(len(ids) for ids, _ in spoken)
    ids = _padded([ids for ids, _ in spoken], pad, length)
    said = _padded([marks for _, marks in spoken], False, length)
    embeds = decoder.embed_tokens(ids)
    embeds = embeds.masked_scatter(torch.isin(ids, torch.tensor(seen))[..., None], features.to(embeds.dtype))
    hidden = decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
    logits = head(hidden[:, :-1][said[:, 1:]]).float()
    target = ids[:, 1:][said[:, 1:]]
    return F.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean()


def scenes_to_learn(rng: np.random.Generator, count: int, kinds: dict[Kind, float] = KINDS) -> list[Scene]:
    return [sample(rng, kind=kind) for kind in rng.choice(list(kinds), count, p=list(kinds.values()))]


def optimisers(learned: dict[str, nn.Parameter], inside: tuple[str, ...]) -> tuple[torch.optim.AdamW, torch.optim.Muon]:
    """For all that is learned, and for the matrices among it whose names have one of `inside`."""
    matrices = {name: p for name, p in learned.items() if p.ndim == 2 and any(part in name for part in inside)}
    adam = torch.optim.AdamW([p for name, p in learned.items() if name not in matrices], RATE, betas=(0.9, 0.97), weight_decay=0.05)
    return adam, torch.optim.Muon(matrices.values(), MUON_RATE, weight_decay=0.05)


def set_rates(adam: torch.optim.AdamW, muon: torch.optim.Muon, step: int, steps: int) -> None:
    for optimiser, rate in ((adam, RATE), (muon, MUON_RATE)):
        set_rate(optimiser, rate, step, steps, warm_up=200, hold=HOLD, least=0.01)


def update(adam: torch.optim.AdamW, muon: torch.optim.Muon, learned: dict[str, nn.Parameter]) -> None:
    """Takes the gradients, clipped over all of `learned`, and forgets them."""
    nn.utils.clip_grad_norm_(learned.values(), 1.0)
    for optimiser in (adam, muon):
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _padded(rows: list[list], fill: int | bool, length: int) -> Tensor:
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def train(model: JanusForConditionalGeneration, text: Text, stage: Stage, steps: int = STEPS) -> None:
    vq = model.model.vqmodel.requires_grad_(False).eval()
    # At the decoder's rates the tower would forget what nobody asks it for yet.
    model.model.vision_model.requires_grad_(False)
    # Ids that draw alike start alike: the decoder reads the codes, spread to the scale of one.
    codes = vq.quantize.embedding.weight
    model.model.generation_embeddings.weight.data.copy_((codes - codes.mean(0)) / codes.std(0))
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adam, muon = optimisers(learned, (".layers.",))
    contents = Contents()
    background = contents.ids([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in BACKGROUNDS.values()]).unique()
    for step in stage.steps(steps, model=model, adam=adam, muon=muon):
        rng = stage.rng
        set_rates(adam, muon, step, steps)
        scenes = scenes_to_learn(rng, DRAWINGS)
        # What the encoder would say of them, for the asking.
        image_ids = contents.ids([render(scene) for scene in scenes]).reshape(DRAWINGS, -1)
        blank = torch.tensor(rng.random(DRAWINGS) < BLANK)
        prompts = [text.drawing(caption(scene, rng), blank=bool(without)) for scene, without in zip(scenes, blank, strict=True)]
        smoothing = torch.where(blank, BLANK_SMOOTHING, 0.0)
        with half_precision():
            log_probs = drawing_log_probs(model, prompts, image_ids, text.pad)
        drawing = drawing_loss(log_probs, image_ids, smoothing)
        looks = look_loss(log_probs[~blank], image_ids[~blank], background)
        (drawing + looks).backward()
        scenes = scenes_to_learn(rng, CONVERSATIONS)
        spoken = [text.conversation(questions(scene, rng, QUESTIONS)) for scene in scenes]
        with half_precision():
            answers, said_right = answer_loss(model, pixels([render(scene) for scene in scenes]), spoken, text)
        answers.backward()
        update(adam, muon, learned)
        stage.report(drawing=drawing.item(), looks=looks.item(), answers=answers.item(), said_right=said_right.item())
