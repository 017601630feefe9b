"""What users run today, as the same stages that `janus_runtime.checks.latency` has for a bundle."""

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache, JanusForConditionalGeneration

from janus_runtime.checks.latency import PROMPT_TOKENS, QUESTION_TOKENS, Stage
from janus_runtime.errors import JanusError


class Transformers:
    """transformers' Janus in the calls of the published scripts: its image loop grows a DynamicCache by a token a step."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype) -> None:
        self.model = JanusForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).eval()
        self.dtype = dtype

    def stages(self, rows: int) -> Iterator[Stage]:
        """The same names, shapes and lengths as ours. Weights and cache a step reads are those of ours in this dtype."""
        model, config = self.model.model, self.model.config
        vq, vision, text = config.vq_config, config.vision_config, config.text_config
        tokens = vq.num_patches**2
        rng = np.random.default_rng(0)
        prompt = self._embeds(rows, PROMPT_TOKENS)
        drawn = torch.tensor(rng.integers(0, vq.num_embeddings, (rows, 1)))

        def image_logits(embeds: torch.Tensor, cache: DynamicCache) -> object:
            hidden = model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
            return model.generation_head(hidden[:, -1])

        yield Stage("image prefill", self._quiet(lambda: image_logits(prompt, DynamicCache(config=text))))
        for name, done in (("early", 0), ("middle", tokens // 2), ("late", tokens - 1)):
            length = PROMPT_TOKENS + done
            filled = self._filled(rows, length)

            def step(cache: DynamicCache = filled) -> object:
                logits = image_logits(self.model.prepare_embeddings_for_image_generation(drawn), cache)
                cache.crop(-1)
                return logits

            reads = self._bytes(model.language_model.layers, model.language_model.norm, model.generation_head)
            yield Stage(f"image step, {name}", self._quiet(step), reads + rows * length * self._token_bytes())
        picture = torch.tensor(rng.integers(0, vq.num_embeddings, (1, tokens)))
        yield Stage("image decode", self._quiet(lambda: self.model.decode_image_tokens(picture)))

        pixels = torch.tensor(rng.uniform(-1, 1, (1, 3, vision.image_size, vision.image_size))).to(self.dtype)
        length = min(vision.num_image_tokens + QUESTION_TOKENS, text.max_position_embeddings - 1)
        question, said = self._embeds(1, length), torch.zeros(1, 1, dtype=torch.long)
        cache = self._filled(1, length)

        def text_logits(embeds: torch.Tensor, cache: DynamicCache) -> object:
            hidden = model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
            return self.model.lm_head(hidden[:, -1])

        def text_step() -> object:
            logits = text_logits(self.model.get_input_embeddings()(said), cache)
            cache.crop(-1)
            return logits

        yield Stage("vision encode", self._quiet(lambda: model.aligner(model.vision_model(pixels).last_hidden_state)))
        yield Stage("text prefill", self._quiet(lambda: text_logits(question, DynamicCache(config=text))))
        reads = self._bytes(model.language_model.layers, model.language_model.norm, self.model.lm_head)
        yield Stage("text step", self._quiet(text_step), reads + length * self._token_bytes())

    def _embeds(self, rows: int, tokens: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, self.model.config.text_config.vocab_size, (1, tokens), generator=generator)
        with torch.inference_mode():
            return self.model.get_input_embeddings()(ids).repeat(rows, 1, 1)

    def _filled(self, rows: int, length: int) -> DynamicCache:
        """A cache of `length` tokens a row; what it holds does not matter for time."""
        text = self.model.config.text_config
        cache = DynamicCache(config=text)
        shape = (rows, text.num_key_value_heads, length, text.head_dim)
        for layer in range(text.num_hidden_layers):
            cache.update(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype), layer)
        return cache

    def _token_bytes(self) -> int:
        text = self.model.config.text_config
        return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * self.dtype.itemsize

    @staticmethod
    def _bytes(*parts: torch.nn.Module) -> int:
        return sum(parameter.nbytes for part in parts for parameter in part.parameters())

    @staticmethod
    def _quiet(call: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(call)


class OpenVINO:
    """Image steps of a decoder of the checkpoint's sizes, in a process of another environment, which ends with the context.

    `about` is what the process says of itself. Raises JanusError where it fails.
    """

    def __init__(self, python: Path, checkpoint: Path, bits: int, rows: int) -> None:
        """`python`: the interpreter of an environment that has optimum-intel."""
        config = json.loads((checkpoint / "config.json").read_text())
        self._text, self._vq = config["text_config"], config["vq_config"]
        self._rows, tokens = rows, self._vq["num_patches"] ** 2
        self._lengths = [PROMPT_TOKENS + done for done in (0, tokens // 2, tokens - 1)]
        decoder = {**self._text, "vocab_size": self._vq["num_embeddings"], "pad_token_id": None, "tie_word_embeddings": False}
        arguments = [json.dumps(decoder), str(bits), str(rows), *map(str, self._lengths)]
        script = Path(__file__).with_name("openvino_steps.py")
        self._process = subprocess.Popen([python, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.about = json.loads(self._answer())
        except (JanusError, ValueError):
            self.close()
            raise JanusError(f"OpenVINO did not start; {python} needs optimum-intel[openvino]") from None

    def stages(self) -> Iterator[Stage]:
        # Of the weights it reads all but the embedding, which is 8 bits wide in either precision; its cache is, too.
        weights = self.about["weights"] - self._vq["num_embeddings"] * self._text["hidden_size"]
        token = 2 * self._text["num_hidden_layers"] * self._text["hidden_size"]
        for index, (name, length) in enumerate(zip(("early", "middle", "late"), self._lengths, strict=True)):
            yield Stage(f"image step, {name}", partial(self._step, index), weights + self._rows * length * token)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "OpenVINO":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _step(self, index: int) -> None:
        assert self._process.stdin is not None
        try:
            print(index, file=self._process.stdin, flush=True)
        except OSError:
            raise JanusError("OpenVINO's process is gone; perhaps memory was short") from None
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise JanusError("OpenVINO's process is gone; perhaps memory was short")
        return line
