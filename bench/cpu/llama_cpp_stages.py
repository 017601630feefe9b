"""llama.cpp on the stages that its decoder can do, for `bench.cpu.rivals`: a process with llama-cpp-python and gguf.

    python bench/cpu/llama_cpp_stages.py CHECKPOINT WEIGHTS SHAPE

Two models of the checkpoint's sizes, written here as GGUF with random weights: one with the text vocabulary, one with the codebook
in its place. Its head is one matrix and its embedding one table, where Janus has two matrices in each: a little less work. Every
matrix is stored in WEIGHTS, Q4_0 or Q8_0, for which llama.cpp has products that suit the processor. A stage is one `llama_decode`
(a prompt: as many as its batches need) with the logits of the last token of each row. The cache is whichever is fastest here, for
prompts and for steps: fp16, with flash attention or without, or 8 bits. SHAPE is that of `bench.cpu.rivals.shape_of`.
"""

import stage_process  # isort: skip

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp
import numpy as np


@dataclass(frozen=True)
class Cache:
    """`item_bytes`: of one number, scales included. `block`: how many numbers share a scale; they are of one head."""

    kind: int
    flash: int
    item_bytes: float
    block: int = 1


CACHES = {
    "fp16 cache": Cache(llama_cpp.GGML_TYPE_F16, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED, 2),
    "fp16 cache, flash attention": Cache(llama_cpp.GGML_TYPE_F16, llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, 2),
    "8-bit cache, flash attention": Cache(llama_cpp.GGML_TYPE_Q8_0, llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, 34 / 32, 32),
}
_ERROR = 4


@llama_cpp.llama_log_callback
def log(level: int, text: bytes, _: object) -> None:
    """llama.cpp says thousands of things while it starts."""
    if level == _ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


def head_sizes(text: dict) -> tuple[int, int]:
    """Heads of keys and values, and numbers in each."""
    heads = text["num_attention_heads"]
    return text.get("num_key_value_heads", heads), text.get("head_dim") or text["hidden_size"] // heads


def write_model(text: dict, vocabulary: int, weights: gguf.GGMLQuantizationType, path: Path) -> int:
    """A Llama without a tokenizer -> the bytes that every step reads, all but the embedding. Layers hold the same random numbers."""
    width, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    heads, (key_heads, head_size) = text["num_attention_heads"], head_sizes(text)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(text.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(text.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(0)
    read = 0

    def matrix(outputs: int, inputs: int) -> np.ndarray:
        return gguf.quants.quantize(random.standard_normal((outputs, inputs), np.float32) / np.float32(inputs**0.5), weights)

    def add(name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType | None = None) -> None:
        nonlocal read
        read += values.nbytes
        writer.add_tensor(name, values, raw_dtype=kind)

    add("token_embd.weight", matrix(vocabulary, width), weights)
    read = 0
    add("output.weight", matrix(vocabulary, width), weights)
    add("output_norm.weight", np.ones(width, np.float32))
    matrices = {
        "attn_q": matrix(heads * head_size, width),
        "attn_k": matrix(key_heads * head_size, width),
        "attn_v": matrix(key_heads * head_size, width),
        "attn_output": matrix(width, heads * head_size),
        "ffn_gate": matrix(inner, width),
        "ffn_up": matrix(inner, width),
        "ffn_down": matrix(width, inner),
    }
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        for name, values in matrices.items():
            add(f"blk.{layer}.{name}.weight", values, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


class Model:
    def __init__(self, path: Path, step_bytes: int) -> None:
        self.step_bytes = step_bytes
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.handle:
            sys.exit(f"llama.cpp did not open {path}; its error stands above")


class Sequences:
    """`rows` sequences in a cache of their own, which has room for one token more than `tokens`."""

    def __init__(self, model: Model, cache: Cache, rows: int, tokens: int) -> None:
        self._rows, self._tokens = rows, tokens
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = rows * (tokens + 1), rows
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        params.type_k = params.type_v = cache.kind
        params.flash_attn_type = cache.flash
        # Each row attends to its own keys alone.
        params.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            sys.exit("llama.cpp made no context; its error stands above")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._size = params.n_batch
        self._batch = llama_cpp.llama_batch_init(self._size, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def prefill(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)
        self._run(range(self._tokens))

    def fill(self) -> None:
        """One row is computed, and copied to the others."""
        llama_cpp.llama_memory_clear(self._memory, False)
        self._run(range(self._tokens), rows=1)
        for row in range(1, self._rows):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, row, -1, -1)

    def step(self) -> None:
        for row in range(self._rows):
            llama_cpp.llama_memory_seq_rm(self._memory, row, self._tokens, -1)
        self._run([self._tokens])

    def _run(self, positions: range | list[int], rows: int | None = None) -> None:
        """A token at each of these places of every row; logits of the last."""
        places = [(row, place) for row in range(rows or self._rows) for place in positions]
        for start in range(0, len(places), self._size):
            part = places[start : start + self._size]
            batch = self._batch
            batch.n_tokens = len(part)
            for index, (row, place) in enumerate(part):
                batch.token[index], batch.pos[index] = 1, place
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
                batch.logits[index] = place == positions[-1]
            if llama_cpp.llama_decode(self._context, batch):
                sys.exit("llama.cpp could not run a stage; its error stands above")
        llama_cpp.llama_synchronize(self._context)


def fastest_cache(model: Model, text: dict, rows: int, tokens: int, stage: str) -> str:
    """For `prefill` or `step`."""
    _, size = head_sizes(text)
    every = {name: Sequences(model, cache, rows, tokens) for name, cache in CACHES.items() if size % cache.block == 0}
    if stage == "step":
        for sequences in every.values():
            sequences.fill()
    best = stage_process.fastest({name: getattr(sequences, stage) for name, sequences in every.items()})
    for sequences in every.values():
        sequences.close()
    return best


def open_stages(models: dict[str, Model], text: dict, shape: dict) -> tuple[list[stage_process.Stage], dict[str, str]]:
    """The stages, and which cache prompts and steps have."""
    rows, length = shape["rows"], shape["text_tokens"]
    prompts = fastest_cache(models["text"], text, 1, length, "prefill")
    steps = fastest_cache(models["image"], text, rows, max(shape["image_steps"].values()), "step")
    heads, size = head_sizes(text)
    token_bytes = 2 * text["num_hidden_layers"] * heads * size * CACHES[steps].item_bytes

    def prefill(name: str, model: Model, rows: int, tokens: int) -> stage_process.Stage:
        return stage_process.Stage(name, Sequences(model, CACHES[prompts], rows, tokens).prefill)

    def step(name: str, model: Model, rows: int, tokens: int) -> stage_process.Stage:
        sequences = Sequences(model, CACHES[steps], rows, tokens)
        sequences.fill()
        return stage_process.Stage(name, sequences.step, model.step_bytes + int(rows * tokens * token_bytes))

    stages = [
        prefill("image prefill", models["image"], rows, shape["prompt_tokens"]),
        *(step(name, models["image"], rows, tokens) for name, tokens in shape["image_steps"].items()),
        prefill("text prefill", models["text"], 1, length),
        step("text step", models["text"], 1, length),
    ]
    return stages, {"prompts": prompts, "steps": steps}


def main() -> None:
    checkpoint, weights, shape = Path(sys.argv[1]), gguf.GGMLQuantizationType[sys.argv[2]], json.loads(sys.argv[3])
    config = json.loads((checkpoint / "config.json").read_text())
    text = config["text_config"]
    llama_cpp.llama_log_set(log, None)
    llama_cpp.llama_backend_init()
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for head, vocabulary in (("image", config["vq_config"]["num_embeddings"]), ("text", text["vocab_size"])):
            path = Path(folder, f"{head}.gguf")
            models[head] = Model(path, write_model(text, vocabulary, weights, path))
    stages, chosen = open_stages(models, text, shape)
    system = llama_cpp.llama_print_system_info().decode()
    stage_process.serve(stages, ["llama-cpp-python", "gguf"], chosen=chosen, system=system)


if __name__ == "__main__":
    main()
