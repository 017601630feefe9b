"""A scripted model: the loops are tested in microseconds, with every call recorded."""

import numpy as np

from janus_runtime.bundle.manifest import Graph, TensorSpec


class FakeEngine:
    """`answer(inputs, outputs)` -> dict of arrays; `calls` keeps copies of the inputs."""

    def __init__(self, name, answer, dtype="float32", cache="float32"):
        self.name = name
        inputs = {"ids": "int32", "embeds": dtype, "past_key_0": cache}
        self.spec = Graph(f"{name}.onnx", {name: TensorSpec(kind, ()) for name, kind in inputs.items()}, {}, 0)
        self.calls = []
        self._answer = answer

    def run(self, inputs):
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


def counting_model(num_ids=8, cache="float32"):
    """Engines whose hidden state is the sum of all ids seen so far: logits peak at that sum modulo `num_ids`.

    The "cache" of slot r keeps one number per position, so that what is read back depends on every write.
    """

    def embed(inputs, outputs):
        return {"embeds": inputs["ids"][..., None].astype(np.float32)}

    def language_model(inputs, outputs):
        embeds, lengths = inputs["embeds"][..., 0], inputs["seqlens_k"] + 1
        cache = outputs["present_key_0"][:, 0, :, 0]
        rows, tokens = embeds.shape
        new = inputs["last_row"] - np.arange(rows) * tokens + 1
        for row in range(rows):
            cache[row, lengths[row] - new[row] : lengths[row]] = embeds[row, : new[row]]
        return {"hidden": np.array([[cache[row, : lengths[row]].sum()] for row in range(rows)], np.float32)}

    def head(inputs, outputs):
        peak = inputs["hidden"][:, 0].astype(int) % num_ids
        return {"logits": np.eye(num_ids, dtype=np.float32)[peak]}

    names = {"embed": embed, "language_model": language_model, "head": head}
    engines = {name: FakeEngine(name, answer) for name, answer in names.items()}
    engines["language_model"] = FakeEngine("language_model", language_model, cache=cache)
    engines["embed"].spec = Graph("embed.onnx", {"ids": TensorSpec("int32", ("rows", "tokens"))}, {}, 0)
    return engines
