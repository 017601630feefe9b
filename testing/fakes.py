"""A scripted model: the loops are tested in microseconds, with every call recorded."""

from types import SimpleNamespace

import numpy as np

from janus_runtime.bundle.interface import KvCache, NumberFormat, TensorSpec
from janus_runtime.bundle.manifest import Graph, LanguageModel


def fake_graph(kind, inputs, cache=None):
    """A manifest entry with these inputs, name -> dtype."""
    specs = {name: TensorSpec(dtype, ()) for name, dtype in inputs.items()}
    return Graph(kind, None, f"{kind}.onnx", NumberFormat("float32", "float32"), specs, {}, cache, 0)


class FakeEngine:
    """`answer(inputs, outputs)` -> dict of arrays; `calls` keeps copies of the inputs."""

    def __init__(self, name, answer, spec=None):
        self.name = name
        self.spec = spec or fake_graph(name, {"ids": "int32", "embeds": "float32"})
        self.calls = []
        self._answer = answer

    def run(self, inputs, stop=None):
        return self.bind({}, {}).run(inputs)

    def bind(self, inputs, outputs):
        return FakeBinding(self, inputs, outputs)

    def close(self):
        pass


class FakeBinding:
    def __init__(self, engine, inputs, outputs):
        self._engine, self._inputs, self._outputs = engine, inputs, outputs

    def run(self, inputs):
        everything = {**self._inputs, **inputs}
        self._engine.calls.append({name: np.array(value) for name, value in everything.items()})
        return self._engine._answer(everything, self._outputs)


class CountingModel:
    """`Engines` whose hidden state is the sum of all ids seen so far: logits peak at that sum modulo the vocabulary.

    The "cache" of a slot keeps one number per place, so that what is read back depends on every write. Text has ids of its own: they
    count double, and there are 5 more of them.
    """

    def __init__(self, num_ids=8, cache="float32"):
        names = KvCache(cache, ("past_key_0",), ("present_key_0",), in_place=True, ragged_append=False)
        decoder = fake_graph("language_model", {"embeds": "float32"}, names)
        self.manifest = SimpleNamespace(language_model=LanguageModel(1, 1, 1, 1, num_ids, 64))
        self.language_model = FakeEngine("language_model", self._decode, decoder)
        self.embed = {"image": FakeEngine("image_embed", self._embed(1)), "text": FakeEngine("text_embed", self._embed(2))}
        self.head = {"image": FakeEngine("image_head", self._predict(num_ids)), "text": FakeEngine("text_head", self._predict(num_ids + 5))}

    def embed_ids(self, modality, ids):
        return self.embed[modality].run({"ids": ids})["embeds"]

    def predict(self, modality, hidden):
        return self.head[modality].run({"hidden": hidden})["logits"], self.head[modality].name

    @staticmethod
    def _embed(each):
        return lambda inputs, outputs: {"embeds": each * inputs["ids"][..., None].astype(np.float32)}

    @staticmethod
    def _predict(num_ids):
        return lambda inputs, outputs: {"logits": np.eye(num_ids, dtype=np.float32)[inputs["hidden"][:, 0].astype(int) % num_ids]}

    @staticmethod
    def _decode(inputs, outputs):
        embeds, lengths = inputs["embeds"][..., 0], inputs["seqlens_k"] + 1
        cache = outputs["present_key_0"][:, 0, :, 0]
        rows, tokens = embeds.shape
        new = inputs["places"] - np.arange(rows) * tokens + 1
        for row in range(rows):
            cache[row, lengths[row] - new[row] : lengths[row]] = embeds[row, : new[row]]
        return {"hidden": np.array([[cache[row, : lengths[row]].sum()] for row in range(rows)], np.float32)}
