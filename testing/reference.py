"""The reference side of the parity tests: transformers' Janus in fp32, and the original's loops written out on it.

Nothing here comes from the exporter or the runtime. Special ids are looked up in the checkpoint's own tokenizer,
every forward runs over a whole sequence without a cache, and arrays go in and out as NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from transformers import GenerationConfig, JanusForConditionalGeneration
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT
from transformers.utils import logging

Ids = NDArray[np.integer]
Floats = NDArray[np.floating]

MIN_SIDE = 14
BACKGROUND = (127, 127, 127)


@dataclass(frozen=True)
class Special:
    bos: int
    eos: int
    pad: int
    begin_of_image: int
    end_of_image: int
    image_placeholder: int


_STRINGS = Special(
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
)


@dataclass(frozen=True)
class Reference:
    model: JanusForConditionalGeneration
    tokenizer: Tokenizer
    special: Special

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        logging.disable_progress_bar()
        model, report = JanusForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        # A weight that transformers did not find would be a random one, and every comparison would be with noise.
        assert not any(report.values()), f"transformers did not take the checkpoint as it is: {report}"
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = {name: tokenizer.token_to_id(text) for name, text in vars(_STRINGS).items()}
        assert None not in ids.values(), f"the checkpoint's tokenizer lacks special tokens: {ids}"
        return cls(model.eval(), tokenizer, Special(**ids))

    # Sizes

    @property
    def num_image_ids(self) -> int:
        """How many ids a drawn picture has."""
        return self.model.config.vq_config.num_patches**2

    @property
    def num_codes(self) -> int:
        return self.model.config.vq_config.num_embeddings

    @property
    def image_size(self) -> int:
        return self.model.config.vision_config.image_size

    @property
    def width(self) -> int:
        return self.model.config.text_config.hidden_size

    # Prompts (janus.md 3.1 and 3.3)

    @property
    def roles(self) -> tuple[str, str]:
        """Janus-Pro's are tokens, Janus-1.3B's plain words (janus.md 3.1)."""
        pro = self.tokenizer.token_to_id("<|User|>") is not None
        return ("<|User|>", "<|Assistant|>") if pro else ("User", "Assistant")

    def turn(self, user: str) -> str:
        return f"{self.roles[0]}: {user.strip()}\n\n{self.roles[1]}:"

    def encode(self, prompt: str) -> Ids:
        """BOS and the prompt's ids. BOS is put here, not by a post-processor that the tokenizer file may or may not have."""
        return np.array([self.special.bos, *self.tokenizer.encode(prompt, add_special_tokens=False).ids], np.int64)

    def generation_ids(self, text: str) -> Ids:
        return self.encode(self.turn(text) + _STRINGS.begin_of_image)

    def question_ids(self, question: str, images: int) -> Ids:
        """System text, the pictures each on a line, the question; each placeholder becomes 1 + num_image_tokens + 1 ids.

        The message is stripped as a whole, so blanks between a picture and its question stay.
        """
        user = f"{_STRINGS.image_placeholder}\n" * images + question
        prompt = f"{DEFAULT_SYSTEM_PROMPT.rstrip(chr(10))}\n\n{self.turn(user)}"
        s, count = self.special, self.model.config.vision_config.num_image_tokens
        picture = [s.begin_of_image, *[s.image_placeholder] * count, s.end_of_image]
        return np.array([i for id in self.encode(prompt) for i in (picture if id == s.image_placeholder else [id])], np.int64)

    def unconditional(self, ids: Ids) -> Ids:
        """The row of the same length that guidance pushes away from: all but the first and the last id are pads."""
        blank = np.full_like(ids, self.special.pad)
        blank[0], blank[-1] = ids[0], ids[-1]
        return blank

    # Pictures in (janus.md 4) and out (5.1)

    def pixels(self, image: Image.Image) -> Floats:
        """[3, size, size], the original's way: the short side is rounded down, Pillow's bicubic, padded with grey."""
        size = self.image_size
        sides = [max(int(side / max(image.size) * size), MIN_SIDE) for side in image.size]
        canvas = Image.new("RGB", (size, size), BACKGROUND)
        resized = image.convert("RGB").resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
        canvas.paste(resized, ((size - sides[0]) // 2, (size - sides[1]) // 2))
        scaled = (np.asarray(canvas) * (1 / 255)).astype(np.float32)
        return np.ascontiguousarray(((scaled - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1))

    @staticmethod
    def to_bytes(pixels: Floats) -> NDArray[np.uint8]:
        """NCHW in -1 … 1 -> NHWC bytes, by truncation as in the original."""
        return np.clip((pixels.transpose(0, 2, 3, 1) + 1) / 2 * 255, 0, 255).astype(np.uint8)

    # Modules

    @torch.inference_mode()
    def text_embed(self, ids: Ids) -> Floats:
        return self.model.get_input_embeddings()(_long(ids)).numpy()

    @torch.inference_mode()
    def image_embed(self, ids: Ids) -> Floats:
        return self.model.prepare_embeddings_for_image_generation(_long(ids)).numpy()

    @torch.inference_mode()
    def vision(self, pixels: Floats) -> Floats:
        """SigLIP and the understanding aligner."""
        tower = self.model.model.vision_model(torch.from_numpy(pixels)).last_hidden_state
        return self.model.model.aligner(tower).numpy()

    @torch.inference_mode()
    def hidden(self, embeds: Floats) -> Floats:
        """Final-normed hidden states of every position of one sequence [T, D], causal, positions from 0."""
        states = self.model.model.language_model(inputs_embeds=torch.from_numpy(embeds)[None], use_cache=False)
        return states.last_hidden_state[0].numpy()

    @torch.inference_mode()
    def head(self, kind: str, hidden: Floats) -> Floats:
        head = self.model.lm_head if kind == "text" else self.model.model.generation_head
        return head(torch.from_numpy(hidden)).numpy()

    def embed(self, kind: str, ids: Ids) -> Floats:
        return self.text_embed(ids) if kind == "text" else self.image_embed(ids)

    def logits(self, kind: str, embeds: Floats) -> Floats:
        """[T, V] from one forward over the whole sequence."""
        return self.head(kind, self.hidden(embeds))

    @torch.inference_mode()
    def decode(self, ids: Ids) -> Floats:
        """[n, tokens] -> pixels [n, 3, size, size]."""
        return self.model.model.vqmodel.decode(_long(ids)).numpy()

    @torch.inference_mode()
    def code_distances(self, pixels: Floats) -> Floats:
        """Squared distance of every latent to every code, both normalised as in the original (HF leaves this out)."""
        vq = self.model.model.vqmodel
        latents = F.normalize(vq.quant_conv(vq.encoder(torch.from_numpy(pixels))), p=2, dim=1).flatten(2).transpose(1, 2)
        codes = F.normalize(vq.quantize.embedding.weight, p=2, dim=-1)
        return (latents[:, :, None, :].double() - codes.double()).square().sum(-1).numpy()

    @torch.inference_mode()
    def plain_hf_codes(self, pixels: Floats) -> Ids:
        return self.model.model.vqmodel.encode(torch.from_numpy(pixels)).image_tokens.reshape(len(pixels), -1).numpy()

    def prompt_embeds(self, ids: Ids, pixels: Floats | None = None) -> Floats:
        """Text embeddings with the pictures' features in place of the placeholders, in reading order."""
        embeds = self.text_embed(ids).copy()
        if pixels is not None:
            embeds[ids == self.special.image_placeholder] = self.vision(pixels).reshape(-1, self.width)
        return embeds

    # Loops

    def greedy_image(self, ids: Ids, guidance: float) -> tuple[Ids, float]:
        """janus.md 5.1 with argmax, a pair of rows computed anew each step -> ids, smallest lead of a winner."""
        rows = [self.text_embed(ids), self.text_embed(self.unconditional(ids))]
        drawn, lead = [], np.inf
        for _ in range(self.num_image_ids):
            conditional, unconditional = (self.head("image", self.hidden(row)[-1:])[0] for row in rows)
            scores = unconditional + np.float32(guidance) * (conditional - unconditional)
            lead = min(lead, _lead(scores))
            drawn.append(int(scores.argmax()))
            rows = [np.concatenate([row, self.image_embed(np.array(drawn[-1:]))]) for row in rows]
        return np.array(drawn), lead

    def hf_image(self, ids: Ids, guidance: float) -> Ids:
        """HF's own greedy image generation of one prompt."""
        s = self.special
        config = GenerationConfig(
            do_sample=False, bos_token_id=s.bos, eos_token_id=s.eos, pad_token_id=s.pad, guidance_scale=guidance,
            max_length=len(ids) + self.num_image_ids, generation_kwargs={"boi_token_id": s.begin_of_image},
        )  # fmt: skip
        tokens = _long(ids)[None]
        # Without a mask HF crashes in this mode, hence ones.
        drawn = self.model.generate(tokens, torch.ones_like(tokens), generation_mode="image", generation_config=config)
        return drawn[0].numpy()

    def greedy_text(self, ids: Ids, count: int, pixels: Floats | None = None, eos: int | None = None) -> tuple[Ids, float]:
        """HF's own greedy answer of at most `count` ids, EOS included where it comes -> ids, smallest lead of a winner."""
        s, tokens = self.special, _long(ids)[None]
        config = GenerationConfig(
            do_sample=False, bos_token_id=s.bos, eos_token_id=s.eos if eos is None else eos, pad_token_id=s.pad,
            max_length=len(ids) + count,
        )  # fmt: skip
        pictures = {} if pixels is None else {"pixel_values": torch.from_numpy(pixels)}
        answer = self.model.generate(tokens, torch.ones_like(tokens), generation_config=config, **pictures)[0, len(ids) :].numpy()
        embeds = np.concatenate([self.prompt_embeds(ids, pixels), self.text_embed(answer[:-1])])
        lead = min(_lead(scores) for scores in self.logits("text", embeds)[len(ids) - 1 :])
        return answer, lead


def example_images(seed: int, sizes: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """Pictures with structure at all scales: smooth colours with noise upon them."""
    rng = np.random.default_rng(seed)
    pictures = []
    for width, height in sizes:
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        smooth = np.asarray(corners.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-40, 41, smooth.shape, np.int16)
        pictures.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return pictures


def _long(ids: Ids) -> torch.Tensor:
    return torch.from_numpy(np.asarray(ids, np.int64))


def _lead(scores: Floats) -> float:
    second, first = np.partition(scores, -2)[-2:]
    return float(first - second)
