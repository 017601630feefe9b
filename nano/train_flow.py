"""Stage 3 of nano-flow: decoder, UViT and aligners together, both tasks in every step. VAE and tower stay as they are.

Drawing learns the way from noise to the latents of a picture, s = 0 … 1: at `lerp(noise, latents, s)` the velocity is
`latents - noise`. In a tenth of the samples the prompt is masked, so that guidance has something to lead away from.

JanusFlow's decoder was drawn towards features of what it draws as it learned. Here a head thrown away afterwards tells from
its states what each patch will show, as the tower's did: the error of a velocity is nearly all noise, and says little of that.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from nano.language import caption, questions
from nano.model import half_precision
from nano.progress import Stage
from nano.scenes import Kind, Scene, render
from nano.tokenizer import Text
from nano.train_decoder import BLANK, QUESTIONS, optimisers, said_loss, scenes_to_learn, set_rates, update
from nano.train_tower import ANSWERS, patch_labels, patch_loss
from nano.train_vae import to_latents
from nano.train_vq import pixels
from testing.janus_flow import JanusFlow

STEPS = 36000
# Threads that learn from a lesson each: small operations run one after another on one core, twice as many on two.
LEARNERS = 2
DRAWINGS = 20  # in a lesson
CONVERSATIONS = 3
# The encoder takes a third of a step; its latents are computed once, for so many scenes.
SCENES = 16384
# How many things alike there are is learned last: a flow begins all of them at once.
KINDS: dict[Kind, float] = {"one": 0.1, "pair": 0.4, "many": 0.5}
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


def flow_loss(model: JanusFlow, ids: Tensor, mask: Tensor, latents: Tensor, noise: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `prompt_rows`, [B, c, s, s] twice and how far each row is on its way from noise to latents [B]

    -> mean squared error, the decoder's states of the patches [B, patches, D]
    """
    embeds = model.language_model.get_input_embeddings()(ids)
    states, skip, t_emb = model.states(embeds, mask, torch.lerp(noise, latents, way[:, None, None, None]), 1000 * way)
    velocity = model.decode(states, skip, t_emb)
    return (velocity.float() - (latents - noise)).pow(2).mean(), states


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


@dataclass(frozen=True)
class Lesson:
    rows: tuple[Tensor, Tensor]
    blank: Tensor
    latents: Tensor
    noise: Tensor
    way: Tensor
    labels: Tensor
    images: Tensor
    spoken: list[tuple[list[int], list[bool]]]


class Known:
    """Scenes to draw, with their latents and what their patches show."""

    def __init__(self, vae: AutoencoderKL, scenes: list[Scene]) -> None:
        self.scenes = scenes
        self.latents = to_latents(vae, [render(scene) for scene in scenes])
        self.labels = torch.tensor(np.stack([patch_labels(scene) for scene in scenes]))

    def lesson(self, rng: np.random.Generator, text: Text) -> Lesson:
        chosen = rng.integers(len(self.scenes), size=DRAWINGS)
        blank = torch.tensor(rng.random(DRAWINGS) < BLANK)
        prompts = [text.drawing(caption(self.scenes[index], rng)) for index in chosen]
        latents = self.latents[torch.tensor(chosen)]
        asked = scenes_to_learn(rng, CONVERSATIONS)
        return Lesson(
            prompt_rows(prompts, blank, text.pad), blank, latents, torch.randn_like(latents), ways(DRAWINGS),
            self.labels[torch.tensor(chosen)], pixels([render(scene) for scene in asked]),
            [text.conversation(questions(scene, rng, QUESTIONS)) for scene in asked],
        )  # fmt: skip


def learn(model: JanusFlow, teller: nn.Linear, lesson: Lesson, text: Text) -> dict[str, float]:
    """Adds a lesson's share of the gradients; -> its figures."""
    with half_precision():
        drawing, states = flow_loss(model, *lesson.rows, lesson.latents, lesson.noise, lesson.way)
        told = teller(model.vision_gen_dec_aligner_norm(states)).float()
        answers, said_right = answer_loss(model, lesson.images, lesson.spoken, text)
    guided = ~lesson.blank
    patches = patch_loss(told.flatten(0, 1).split(ANSWERS, dim=-1), lesson.labels.flatten(0, 1))
    looks = look_loss(told[guided].flatten(0, 1).split(ANSWERS, dim=-1), lesson.labels[guided].flatten(0, 1))
    ((drawing + TOLD * patches + LOOKS * looks + answers) / LEARNERS).backward()
    figures = {"drawing": drawing, "patches": patches, "looks": looks, "answers": answers, "said_right": said_right}
    return {name: figure.item() for name, figure in figures.items()}


def train(model: JanusFlow, vae: AutoencoderKL, text: Text, stage: Stage, steps: int = STEPS, scenes_known: int = SCENES) -> None:
    # At the decoder's rates the tower would forget what nobody asks it for yet.
    model.vision_und_enc_model.requires_grad_(False)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    teller = nn.Linear(model.vision_gen_dec_aligner.in_features, sum(ANSWERS))
    adam, muon = optimisers({**learned, **dict(teller.named_parameters())}, (".layers.", ".channelwise_linear"))
    known = Known(vae, scenes_to_learn(np.random.default_rng([stage.seed, 2]), scenes_known, KINDS))
    device, threads = torch.get_default_device(), torch.get_num_threads()

    def begin() -> None:
        torch.set_default_device(device)
        torch.set_num_threads(max(1, threads // LEARNERS))

    with ThreadPoolExecutor(LEARNERS, initializer=begin) as learners:
        for step in stage.steps(steps, model=model, teller=teller, adam=adam, muon=muon):
            set_rates(adam, muon, step, steps)
            # Drawn here, since random numbers are the whole process's. Two gradients add up to the same in either order.
            lessons = [known.lesson(stage.rng, text) for _ in range(LEARNERS)]
            for figures in learners.map(lambda lesson: learn(model, teller, lesson, text), lessons):
                stage.report(**figures)
            update(adam, muon, learned)
