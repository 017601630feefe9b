"""Stage 3 of nano-flow: decoder, UViT and aligners together, both tasks in every step. VAE and tower stay as they are.

Drawing learns the way from noise to the latents of a picture, s = 0 … 1: at `lerp(noise, latents, s)` the velocity is
`latents - noise`. In a tenth of the samples the prompt is masked, so that guidance has something to lead away from.

JanusFlow's decoder was drawn towards features of what it draws as it learned. Here a head thrown away afterwards tells from
its states what each patch will show, as the tower's did: the error of a velocity is nearly all noise, and says little of that.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from bench.janus_flow import JanusFlow

from .language import caption, questions
from .model import half_precision
from .progress import Stage
from .scenes import render
from .tokenizer import Text
from .train_decoder import BLANK, QUESTIONS, optimisers, said_loss, scenes_to_learn, set_rates, update
from .train_tower import ANSWERS, patch_labels, patch_loss
from .train_vae import to_latents
from .train_vq import pixels

STEPS = 10000
DRAWINGS = 40
CONVERSATIONS = 6
# The encoder takes a third of a step; its latents are computed once, for so many scenes.
SCENES = 16384
# What a picture shows is decided where noise is still strong, since a thing covers many latents: log-odds of s.
MIDDLE, SPREAD = -1.0, 1.2
TOLD = 0.1  # weight of what patches show
LOOKS = 0.3  # weight of how things look
_LOOKS = 3  # the first of the answers: colour, shape, size


def prompt_rows(prompts: list[list[int]], blank: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Prompts (ids each) and which of them are blank [B] -> ids without the last [B, P] and which are attended [B, P].

    Shorter prompts are padded at the left: only distances between positions count.
    """
    length = max(map(len, prompts)) - 1
    ids = torch.tensor([[pad] * (length + 1 - len(prompt)) + prompt[:-1] for prompt in prompts])
    begins = torch.tensor([[length + 1 - len(prompt)] for prompt in prompts])
    place = torch.arange(length)
    return ids, torch.where(blank[:, None], place == begins, place >= begins).long()


def flow_loss(model: JanusFlow, ids: Tensor, mask: Tensor, latents: Tensor, noise: Tensor, way: Tensor) -> Tensor:
    """Rows of `prompt_rows`, [B, c, s, s] twice and how far each row is on its way from noise to latents [B] -> mean squared error."""
    embeds = model.language_model.get_input_embeddings()(ids)
    velocity = model.velocity(embeds, mask, torch.lerp(noise, latents, way[:, None, None, None]), 1000 * way)
    return (velocity.float() - (latents - noise)).pow(2).mean()


def ways(count: int) -> Tensor:
    """[count] of 0 … 1, logit-normal; one from each of as many parts that are equally likely."""
    return torch.sigmoid(MIDDLE + SPREAD * torch.special.ndtri((torch.arange(count) + torch.rand(count)) / count))


def look_loss(told: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """As train_decoder's: mean surprises at colour, shape and size, summed, over patches of things, given that there is one."""
    shown = labels[:, 0] > 0
    return patch_loss(tuple(logits[shown, 1:] for logits in told[:_LOOKS]), labels[shown, :_LOOKS] - 1)


def answer_loss(model: JanusFlow, images: Tensor, spoken: list[tuple[list[int], list[bool]]], text: Text) -> tuple[Tensor, Tensor]:
    """As in train_decoder; the begin-of-image id's place is the picture's, too."""
    return said_loss(
        model.language_model.model, model.language_model.lm_head, model.see(images), (text.begin, text.placeholder), spoken, text.pad
    )


def train(model: JanusFlow, vae: AutoencoderKL, text: Text, stage: Stage, steps: int = STEPS, scenes_known: int = SCENES) -> None:
    # At the decoder's rates the tower would forget what nobody asks it for yet.
    model.vision_und_enc_model.requires_grad_(False)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    teller = nn.Linear(model.vision_gen_dec_aligner.in_features, sum(ANSWERS))
    adam, muon = optimisers({**learned, **dict(teller.named_parameters())}, (".layers.", ".channelwise_linear"))
    known = scenes_to_learn(np.random.default_rng([stage.seed, 2]), scenes_known)
    known_latents = to_latents(vae, [render(scene) for scene in known])
    known_labels = torch.tensor(np.stack([patch_labels(scene) for scene in known]))
    states: list[Tensor] = []
    model.vision_gen_dec_aligner_norm.register_forward_hook(lambda module, inputs, normed: states.append(normed))
    for step in stage.steps(steps, model=model, teller=teller, adam=adam, muon=muon):
        rng = stage.rng
        set_rates(adam, muon, step, steps)
        chosen = rng.integers(len(known), size=DRAWINGS)
        blank = torch.tensor(rng.random(DRAWINGS) < BLANK)
        prompts = [text.drawing(caption(known[index], rng)) for index in chosen]
        latents = known_latents[torch.tensor(chosen)]
        with half_precision():
            drawing = flow_loss(model, *prompt_rows(prompts, blank, text.pad), latents, torch.randn_like(latents), ways(DRAWINGS))
            told = teller(states.pop()).float()
        labels = known_labels[torch.tensor(chosen)]
        patches = patch_loss(told.flatten(0, 1).split(ANSWERS, dim=-1), labels.flatten(0, 1))
        looks = look_loss(told[~blank].flatten(0, 1).split(ANSWERS, dim=-1), labels[~blank].flatten(0, 1))
        (drawing + TOLD * patches + LOOKS * looks).backward()
        scenes = scenes_to_learn(rng, CONVERSATIONS)
        spoken = [text.conversation(questions(scene, rng, QUESTIONS)) for scene in scenes]
        with half_precision():
            answers, said_right = answer_loss(model, pixels([render(scene) for scene in scenes]), spoken, text)
        answers.backward()
        update(adam, muon, learned)
        stage.report(
            drawing=drawing.item(), patches=patches.item(), looks=looks.item(), answers=answers.item(), said_right=said_right.item()
        )
