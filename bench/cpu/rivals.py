"""What users run today, as the same stages that `janus_runtime.checks.latency` has for a bundle."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

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


class Process:
    """A system in a process of its own, which ends with the context; `bench/cpu/stage_process.py` is its far end and says what passes.

    `about` is what the process says of itself. Raises JanusError where it does not start or ends by itself: `needs` says what it wants.
    """

    def __init__(self, name: str, command: Sequence[str | Path], needs: str, environment: Mapping[str, str] | None = None) -> None:
        """`environment`: variables to set beside ours."""
        self.name = name
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
            )
        except OSError as error:
            raise JanusError(f"{name} did not start: {error}; {needs}") from None
        try:
            self.about: dict[str, Any] = json.loads(self._answer(f"before it was ready; {needs}"))
        except BaseException:
            self.close()
            raise
        self._stages = self.about.pop("stages")

    def stages(self) -> Iterator[Stage]:
        for index, stage in enumerate(self._stages):
            yield Stage(stage["name"], partial(self._run, index), stage["reads"])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, index: int) -> None:
        assert self._process.stdin is not None
        # A process that is gone shows when no answer comes.
        with suppress(BrokenPipeError):
            print(index, file=self._process.stdin, flush=True)
        self._answer(f"in the stage {self._stages[index]['name']}; see its error above, and run with fewer systems if memory is short")

    def _answer(self, then: str) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            code = self._process.wait()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise JanusError(f"{self.name}'s process {how} {then}")
        return line


def openvino(python: Path, checkpoint: Path, bits: int, rows: int) -> Process:
    """`python`: the interpreter of an environment that has optimum-intel."""
    command = [python, _script("openvino_stages.py"), checkpoint, str(bits), json.dumps(shape_of(checkpoint, rows))]
    return Process(f"OpenVINO int{bits}", command, f"{python} needs the packages of `make bench-rivals`")


def llama_cpp(python: Path, checkpoint: Path, weights: str, rows: int) -> Process:
    """`python`: the interpreter of an environment that has llama-cpp-python and gguf. `weights`: one of llama.cpp's formats."""
    command = [python, _script("llama_cpp_stages.py"), checkpoint, weights, json.dumps(shape_of(checkpoint, rows))]
    return Process(f"llama.cpp {weights}", command, f"{python} needs the packages of `make bench-rivals`")


def earlier(tree: Path, bundle: Path, rows: int) -> Process:
    """`tree`: a work tree of an earlier commit, whose version opens `bundle`; it runs in our environment."""
    if not (tree / "janus_runtime").is_dir():
        raise JanusError(f"{tree} has no folder janus_runtime; make a tree with 'git worktree add {tree} COMMIT'")
    try:
        precision = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JanusError(f"{bundle} is not a bundle ({error!r}); give one that {tree} exported") from None
    command = [sys.executable, _script("earlier_stages.py"), bundle, str(rows)]
    return Process(f"earlier {precision}", command, f"{bundle} must be a bundle that {tree} can open", {"PYTHONPATH": str(tree.resolve())})


def shape_of(checkpoint: Path, rows: int) -> dict[str, Any]:
    """Rows and tokens of the stages of a decoder, the same as in `janus_runtime.checks.latency`, for systems that cannot import it."""
    config = json.loads((checkpoint / "config.json").read_text())
    tokens = config["vq_config"]["num_patches"] ** 2
    lengths = {"early": 0, "middle": tokens // 2, "late": tokens - 1}
    return {
        "rows": rows,
        "prompt_tokens": PROMPT_TOKENS,
        "image_steps": {f"image step, {name}": PROMPT_TOKENS + done for name, done in lengths.items()},
        "text_tokens": min(
            config["vision_config"]["num_image_tokens"] + QUESTION_TOKENS, config["text_config"]["max_position_embeddings"] - 1
        ),
    }


def _script(name: str) -> Path:
    return Path(__file__).with_name(name)
