"""Draws pictures and answers questions with a Janus bundle, written from docs/bundle.md alone.

    python contract/reader.py draw BUNDLE PROMPT --seed 7 --out picture.png
    python contract/reader.py ask BUNDLE IMAGE QUESTION

`draw` prints {"image_ids": [...]}, or {"latents": [...]} of JanusFlow in order; `ask` prints {"text": ...}. An error is one line on
stderr and exit code 1. The graphs run in ONNX Runtime on the CPU, the language model in its flavour `gqa`.
"""

import argparse
import json
import os
import sys
from pathlib import Path, PurePosixPath

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

FORMAT = 7
GRID = 32  # a prompt is cut at multiples of so many tokens, counted from its row's start
PADDING = 64  # JanusFlow's prompts are padded to multiples of it
MASKED = -30000
LOW_32_BITS = 0xFFFFFFFF


class ReaderError(Exception):
    """What the user gave cannot be used; the text says why."""


class Bundle:
    """A folder's manifest, tokenizer and graphs; a graph is loaded when it first runs."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise ReaderError(f"{folder}: manifest.json is not of format {FORMAT}")
        for name, entry in self.manifest["files"].items():
            self._check_file(name, entry["bytes"])
        self.ids = {name: token["id"] for name, token in self.manifest["tokens"].items()}
        self.texts = {name: token["text"] for name, token in self.manifest["tokens"].items()}
        self.template = self.manifest["template"]
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._sessions = {}

    def _check_file(self, name, size):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ReaderError(f"{self.folder}: the manifest names a file outside the bundle: {name}")
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise ReaderError(f"{path} is missing or does not have the {size} bytes that the manifest says")

    def require(self, task):
        if task not in self.manifest["tasks"]:
            raise ReaderError(f"{self.folder}: the bundle is not for {task}")

    def session(self, graph):
        """The graph, in the form for CPUs if there is one."""
        graph = f"{graph}.cpu" if f"{graph}.cpu" in self.manifest["graphs"] else graph
        if graph not in self._sessions:
            path = self.folder / self.manifest["graphs"][graph]["file"]
            options = ort.SessionOptions()
            options.add_session_config_entry("session.x64quantprecision", "1")
            self._sessions[graph] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return self._sessions[graph]

    def run(self, graph, **inputs):
        """The output of a graph that has one."""
        return self.session(graph).run(None, inputs)[0]

    def embed(self, ids):
        return self.run("text_embed", text_ids=np.array(ids, np.int32))

    def check(self, text):
        """Refuses what no prompt or question may be."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        speakers = self.template["user"], self.template["assistant"]
        reserved = [token.content for token in added if token.special or token.content in speakers]
        for token in [*self.texts.values(), *reserved]:
            if token in text:
                raise ReaderError(f"the text holds the reserved token {token}")
        if not text.strip():
            raise ReaderError("the text is empty")

    def turn(self, text):
        """What the user says, up to where the model speaks."""
        return self.template["user"] + ": " + text + self.template["after_user"] + self.template["assistant"] + ":"

    def encode(self, text):
        return [self.ids["bos"], *self.tokenizer.encode(text, add_special_tokens=False).ids]


class LanguageModel:
    """Sequences of one length with their keys and values, which the graph reads and writes in place."""

    def __init__(self, bundle, rows, max_length):
        self.session = bundle.session("language_model.gqa")
        graph = bundle.manifest["graphs"]["language_model.gqa"]
        self.cache, self.rows, self.length = graph["cache"], rows, 0
        sizes = {"rows": rows, "max_length": max_length}
        shapes = [[sizes.get(size, size) for size in graph["inputs"][name]["shape"]] for name in self.cache["inputs"]]
        self.memory = [np.zeros(shape, self.cache["dtype"]) for shape in shapes]

    def append(self, embeds):
        """Takes embeddings [rows, tokens, hidden_size] and gives the last hidden state of each row."""
        begin, self.length = self.length, self.length + embeds.shape[1]
        cuts = [*range(begin // GRID * GRID + GRID, self.length, GRID), self.length]
        # All rows take one token together; of a prompt each row is computed by itself, from cut to cut.
        rows = [slice(0, self.rows)] if embeds.shape[1] == 1 else [slice(row, row + 1) for row in range(self.rows)]
        parts = list(zip([begin, *cuts], cuts, strict=False))
        return np.concatenate([[self._call(embeds[row, a - begin : b - begin], row, b) for a, b in parts][-1] for row in rows])

    def _call(self, embeds, row, length):
        rows, tokens, _ = embeds.shape
        binding = self.session.io_binding()
        binding.bind_cpu_input("embeds", np.ascontiguousarray(embeds))
        binding.bind_cpu_input("places", np.arange(1, rows + 1, dtype=np.int32) * tokens - 1)
        binding.bind_cpu_input("seqlens_k", np.full(rows, length - 1, np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(length, np.int32))
        binding.bind_output("hidden")
        for past, present, memory in zip(self.cache["inputs"], self.cache["outputs"], self.memory, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(memory[row])
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()


def philox(seed, step, count):
    """`count` words of Philox4x32-10, as uint64."""
    zeros = np.zeros((count + 3) // 4, np.uint64)
    words = [zeros + np.uint64(step), np.arange(zeros.size, dtype=np.uint64), zeros, zeros]
    low, high, shift = seed & LOW_32_BITS, seed >> 32, np.uint64(32)
    for _ in range(10):
        first, second = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words[0] = (second >> shift) ^ words[1] ^ np.uint64(low)
        words[2] = (first >> shift) ^ words[3] ^ np.uint64(high)
        words[1], words[3] = second & np.uint64(LOW_32_BITS), first & np.uint64(LOW_32_BITS)
        low, high = (low + 0x9E3779B9) & LOW_32_BITS, (high + 0xBB67AE85) & LOW_32_BITS
    return np.stack(words, axis=1).reshape(-1)[:count]


def uniform(seed, step, count):
    return ((philox(seed, step, count) >> np.uint64(8)).astype(np.float64) + 0.5) / 2**24


def gumbel(seed, step, count):
    return (-np.log(-np.log(uniform(seed, step, count)))).astype(np.float32)


def normal(seed, shape):
    count = int(np.prod(shape))
    first, second = uniform(seed, 0, count + count % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(-1)[:count].reshape(shape).astype(np.float32)


def draw_id(scores, options, step):
    """The id that is drawn at `step` of fp32 scores, which guidance has made."""
    if options.temperature == 0:
        return int(scores.argmax())
    scores = scores / np.float32(options.temperature)
    if 0 < options.top_k < scores.size:
        scores[scores < np.sort(scores)[-options.top_k]] = -np.inf
    if options.top_p < 1:
        order = np.argsort(-scores, kind="stable")
        likely = np.exp(scores[order].astype(np.float64) - scores[order[0]])
        reached = np.cumsum(likely / likely.sum()) >= options.top_p
        scores[order[1:][reached[:-1]]] = -np.inf
    return int((scores + gumbel(options.seed, step, scores.size)).argmax())


def draw(bundle, options):
    """Text to image."""
    sizes = bundle.manifest["image_output"]
    bundle.require("generation")
    bundle.check(options.prompt)
    if sizes["num_ids"] is None:
        return draw_by_flow(bundle, options)
    if options.solver or options.steps is not None:
        raise ReaderError(f"{bundle.folder}: solver and steps are JanusFlow's, and this model draws ids")
    ids = bundle.encode(bundle.turn(options.prompt.strip()).strip() + bundle.texts["begin_of_image"])
    length = len(ids) + sizes["num_tokens"]
    if length > bundle.manifest["language_model"]["max_length"]:
        raise ReaderError(f"the prompt has {len(ids)} tokens, too many for the model beside a picture")
    blank = [ids[0], *[bundle.ids["pad"]] * (len(ids) - 2), ids[-1]]
    model = LanguageModel(bundle, rows=2, max_length=length)
    hidden = model.append(bundle.embed([ids, blank]))
    weight, image_ids = np.float32(options.cfg_weight), []
    while True:
        conditional, unconditional = bundle.run("image_head", hidden=hidden)
        scores = unconditional + weight * (conditional - unconditional)
        image_ids.append(draw_id(scores, options, len(image_ids)))
        if len(image_ids) == sizes["num_tokens"]:
            break
        hidden = model.append(bundle.run("image_embed", image_ids=np.full((2, 1), image_ids[-1], np.int32)))
    if options.out:
        decode_picture(bundle, image_ids=np.array([image_ids], np.int32)).save(options.out, format="PNG")
    return {"image_ids": image_ids}


def flow_steps(solver, count, shift):
    """When each of `count` steps begins, 0 to 1000, and its two factors, fp32."""
    k = np.arange(count + 1)
    d = shift * count - (shift - 1) * k
    length, back = shift * count / (d[:-1] * d[1:]), np.zeros(count)
    if solver == "ab2":
        back[1:] = length[1:] * (d[:-2] / d[2:]) / 2
    return [each.astype(np.float32) for each in (1000 * k[:-1] / d[:-1], length + back, back)]


def draw_by_flow(bundle, options):
    """Text to latents to image."""
    flow, model = bundle.manifest["flow"], bundle.manifest["language_model"]
    solver = options.solver or "euler"
    schedule = flow["solvers"][solver]
    count, shift = schedule["steps"] if options.steps is None else options.steps, schedule["shift"]
    ids = bundle.encode(bundle.turn(options.prompt.strip()).strip())
    limit = model["max_length"] - bundle.manifest["image_output"]["num_tokens"] - 1
    if len(ids) > limit or not 1 <= count <= 10000 or options.temperature != 1 or options.top_k or options.top_p != 1:
        raise ReaderError(f"expected at most {limit} tokens, got {len(ids)}; 1 to 10000 steps; no temperature, top-k and top-p")
    places = min(-(-len(ids) // PADDING) * PADDING, limit)
    embeds = bundle.embed([ids])
    prefix = np.zeros((1, 2, places, model["hidden_size"]), embeds.dtype)
    prefix[0, 0, : len(ids)], prefix[0, 1, 0] = embeds[0], embeds[0, 0]
    seen = np.full((1, 2, places), MASKED, embeds.dtype)
    seen[0, 0, : len(ids)] = seen[0, 1, 0] = 0
    nothing, hidden = np.zeros((1, 2, 1, model["hidden_size"]), embeds.dtype), np.full((1, 2, 1), MASKED, embeds.dtype)
    session, names = bundle.session("flow_step"), bundle.manifest["graphs"]["flow_step"]["cache"]
    cache = [np.zeros((1, 2, model["num_heads"], 1, model["head_size"]), names["dtype"])] * len(names["inputs"])
    times, dt, back = flow_steps(solver, count, shift)
    time_embeds, conditions = bundle.session("time_embed").run(["time_embeds", "conditions"], {"times": times})
    common = {"first_position": np.array([len(ids)], np.int32), "cfg_weight": np.array([options.cfg_weight], np.float32)}
    latents, before = normal(options.seed, (1, flow["latent_channels"], flow["latent_size"], flow["latent_size"])), None
    for step in range(count):
        prompt = (prefix, seen, hidden) if step == 0 else (nothing, hidden, seen)
        now = {"time_embeds": time_embeds[step][None], "conditions": conditions[step][None], "dt": dt[step][None]}
        inputs = {"latents": latents, **dict(zip(("prefix_embeds", "prefix_mask", "past_mask"), prompt, strict=True)), **now, **common}
        inputs.update(zip(names["inputs"], cache, strict=True))
        latents, velocity, *new = session.run(["next_latents", "velocity", *names["outputs"]], inputs)
        cache = new if step == 0 else cache
        latents = latents - back[step] * before if back[step] else latents
        before = velocity
    if options.out:
        decode_picture(bundle, latents=latents).save(options.out, format="PNG")
    return {"latents": latents.ravel().tolist()}


def decode_picture(bundle, **drawn):
    pixels = bundle.run("image_decoder", **drawn)[0]
    scaled = np.clip((pixels + np.float32(1)) / np.float32(2) * np.float32(255), 0, 255)
    return Image.fromarray(np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0)))


def load_rgb(path):
    """An upright RGB picture of 8 bits a channel."""
    with Image.open(path) as stored:
        image = ImageOps.exif_transpose(stored)
    if image.mode == "F":
        raise ReaderError(f"{path}: a picture of floats does not say what is white")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or 0 < values.max() < 2**8 or values.max() >= 2**16):
            raise ReaderError(f"{path}: a picture of 32-bit numbers that are not 16-bit grey")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    return image.convert("RGB")


def encoder_pixels(image, settings):
    """What the vision encoder gets of an RGB picture: fp32 [3, size, size]."""
    size, longest = settings["size"], max(image.size)
    width, height = (max(int(side / longest * size), settings["min_size"]) for side in image.size)
    wide = image.resize((width, image.height), Image.Resampling.BICUBIC)  # one call would choose the order of its passes itself
    scaled = wide.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), tuple(settings["background"]))
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    numbers = (np.asarray(square) * np.float64(1 / 255)).astype(np.float32)
    return ((numbers - np.array(settings["mean"], np.float32)) / np.array(settings["std"], np.float32)).transpose(2, 0, 1)


def ask(bundle, options):
    """Image to text: one turn of one picture."""
    bundle.require("understanding")
    bundle.check(options.question)
    settings, template = bundle.manifest["image_input"], bundle.template
    system = template["system"] + template["after_system"] if template["system"] else ""
    question = bundle.texts["image_placeholder"] + "\n" + options.question
    ids = bundle.encode((system + bundle.turn(question.strip())).strip())
    place, features, includes_begin = ids.index(bundle.ids["image_placeholder"]), settings["num_tokens"], settings["includes_begin"]
    placeholders = [bundle.ids["image_placeholder"]] * (features - includes_begin)
    ids[place : place + 1] = [bundle.ids["begin_of_image"], *placeholders, bundle.ids["end_of_image"]]
    limit = min(options.max_tokens, bundle.manifest["language_model"]["max_length"] - len(ids))
    if limit < 1:
        raise ReaderError(f"the question has {len(ids)} tokens with its picture, which leaves no room for an answer")
    embeds = bundle.embed([ids])
    first = place if includes_begin else place + 1
    pixels = encoder_pixels(load_rgb(options.image), settings)
    embeds[0, first : first + features] = bundle.run("vision_encoder", pixels=np.ascontiguousarray(pixels[None]))[0]
    model = LanguageModel(bundle, rows=1, max_length=len(ids) + limit)
    hidden, answer = model.append(embeds), []
    while True:
        text_id = draw_id(bundle.run("text_head", hidden=hidden)[0], options, len(answer))
        if text_id == bundle.ids["eos"]:
            break
        answer.append(text_id)
        if len(answer) == limit:
            break
        hidden = model.append(bundle.embed([[text_id]]))
    return {"text": bundle.tokenizer.decode(answer, skip_special_tokens=True)}


def parse_arguments(arguments=None):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("bundle")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--temperature", type=float, help="0 is greedy; default: the model's for draw, 0 for ask")
    common.add_argument("--top-k", type=int, default=0, help="0 keeps all")
    common.add_argument("--top-p", type=float, default=1.0, help="1 keeps all")
    parser = argparse.ArgumentParser(description="Run a Janus bundle; written from docs/bundle.md alone.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("draw", parents=[common], help="print the ids or latents of a picture of a prompt")
    command.add_argument("prompt")
    command.add_argument("--solver", choices=["euler", "ab2"], help="of JanusFlow; default: euler")
    command.add_argument("--steps", type=int, help="of JanusFlow; default: the bundle's for the solver")
    command.add_argument("--cfg-weight", type=float, help="guidance")
    command.add_argument("--out", metavar="FILE.png", help="write the picture too")
    command.set_defaults(run=draw, max_tokens=None)
    command = commands.add_parser("ask", parents=[common], help="print the answer to a question about a picture")
    command.add_argument("image")
    command.add_argument("question")
    command.add_argument("--max-tokens", type=int, help="longest answer")
    command.set_defaults(run=ask, cfg_weight=None)
    return parser.parse_args(arguments)


def complete(options, defaults):
    """Fills in what the user did not name, and checks the numbers."""
    if options.run is ask and options.temperature is None:
        options.temperature = 0.0
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not 0 <= options.seed < 2**64 or options.top_k < 0 or not 0 < options.top_p <= 1 or options.max_tokens < 1:
        raise ReaderError("expected a seed of 64 bits, top-k of at least 0, top-p above 0 and at most 1, max-tokens of at least 1")
    if not (options.temperature == 0 or 0.0001 <= options.temperature <= 1e6) or not -1000 <= options.cfg_weight <= 1000:
        raise ReaderError("expected a temperature of 0 or of 0.0001 to 1000000, and a cfg-weight of -1000 to 1000")


def main():
    options = parse_arguments()
    try:
        bundle = Bundle(options.bundle)
        complete(options, bundle.manifest["defaults"])
        result = options.run(bundle, options)
    except (ReaderError, OSError, ValueError) as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
