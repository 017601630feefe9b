"""`verify`: are the files what was exported, and does this backend compute what torch computed?

Goldens hold, for every graph, inputs and the outputs of the fp32 torch reference under
`<graph>/<tensor>`. `language_model` is checked the way it is used: `embeds` [k, T, D] with `lengths` [k]
as a ragged prefill, then `steps` [s, k, 1, D] one at a time -> `hidden` [1 + s, k, D]. So is `flow_step`: from `noise`
[1, c, s, s], over an embedded `prompt` [1, T, D], the `velocity` [s, 1, c, s, s] of the first steps of as many as the manifest says.
`image_preview` is compared with the fp32 decoder, and only where it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import GOLDENS
from ..decoding.engine import Modality
from ..decoding.engines import Engines
from ..decoding.sessions import open_session
from ..drawing.flow import FlowDrawer
from ..drawing.solver import make_steps
from ..errors import BundleError
from ..pictures.difference import rms
from .tolerances import tolerance


@dataclass(frozen=True)
class Check:
    """One graph against its golden. `difference` is max|Δ| / max|ref|; of ids, the share that differs; of a preview, whose reference is
    the fp32 decoder, the root mean square as a share of the range of pixels."""

    graph: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


# Of graphs that are checked the way they are used.
_USED = {"language_model": {"embeds", "lengths", "steps", "hidden"}, "flow_step": {"prompt", "noise", "cfg_weight", "velocity"}}


def verify_goldens(engines: Engines) -> Iterator[Check]:
    """Runs every graph of the bundle on its golden inputs. Raises BundleError if a golden is missing."""
    with engines.bundle.unchanged(GOLDENS):
        try:
            with np.load(engines.bundle.path / GOLDENS, allow_pickle=False) as file:
                goldens = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise BundleError(f"{engines.bundle.path / GOLDENS} cannot be read: {error}; export the bundle again") from None
    for name, graph in engines.manifest.graphs.items():
        kind = graph.kind
        if name != (engines.language_model.name if kind == "language_model" else engines.name_of(kind)):
            continue  # another backend's
        if kind == "image_preview" and engines.preview != kind:  # never run here
            continue
        golden = {key.removeprefix(f"{kind}/"): value for key, value in goldens.items() if key.startswith(f"{kind}/")}
        needed = _USED.get(kind) or set(_tensors(engines, name))
        if missing := sorted(needed - golden.keys()):
            raise BundleError(f"{engines.bundle.path / GOLDENS} lacks {', '.join(missing)} of {kind}; export the bundle again")
        if kind == "language_model":
            difference = relative_difference(_run_session(engines, golden), golden["hidden"])
        elif kind == "time_embed":
            difference = _run_times(engines, golden)
        elif kind == "flow_step":
            difference = relative_difference(_run_flow(engines, golden), golden["velocity"])
        elif kind == "image_preview":
            difference = rms(engines[name].run({"image_ids": golden["image_ids"]})["pixels"], golden["pixels"])
        else:
            difference = _run_graph(engines, name, golden)
        yield Check(name, difference, tolerance(kind, graph.format.weights))


def _tensors(engines: Engines, name: str) -> list[str]:
    graph = engines.bundle.graph(name)
    return [*graph.inputs, *graph.outputs]


def relative_difference(got: NDArray[Any], reference: NDArray[Any]) -> float:
    """max|got - reference| / max|reference|; inf where `got` is not finite or of another shape."""
    if got.shape != reference.shape or not np.isfinite(got).all():
        return float("inf")
    scale = np.abs(reference).max() or 1.0
    return float(np.abs(got.astype(np.float64) - reference).max() / scale)


def _run_graph(engines: Engines, name: str, golden: dict[str, NDArray[Any]]) -> float:
    engine = engines[name]
    inputs = {key: golden[key].astype(spec.dtype) for key, spec in engine.spec.inputs.items()}
    outputs = engine.run(inputs)
    return max(
        float(np.mean(got != golden[key])) if got.dtype.kind == "i" else relative_difference(got, golden[key])
        for key, got in outputs.items()
    )


def _run_times(engines: Engines, golden: dict[str, NDArray[Any]]) -> float:
    """At the times of this runtime, which must be the golden's."""
    flow = engines.manifest.flow
    assert flow is not None
    times = make_steps("euler", flow.solvers.euler).times
    return max(relative_difference(times, golden["times"]), _run_graph(engines, "time_embed", golden))


def _run_session(engines: Engines, golden: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The golden's prefill and steps over one cache -> hidden [1 + s, k, D]."""
    embeds, lengths, steps = golden["embeds"], golden["lengths"], golden["steps"]
    rows = len(lengths)
    kind: Modality = "text" if "understanding" in engines.manifest.tasks else "image"
    with open_session(engines, kind, rows, int(lengths.max()) + len(steps)) as session:
        every = range(rows)
        hidden = [session.fill([row[:length] for row, length in zip(embeds, lengths, strict=True)], every)]
        dtype = engines.language_model.spec.inputs["embeds"].dtype
        hidden += [session.fill(list(step.astype(dtype)), every) for step in steps]
    return np.stack(hidden).astype(np.float32)


def _run_flow(engines: Engines, golden: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The golden's prompt and noise -> velocities of the first steps [steps, 1, c, s, s]."""
    drawer = FlowDrawer(engines)
    steps, cfg_weight = make_steps("euler", drawer.flow.solvers.euler), float(golden["cfg_weight"][0])
    taken = drawer.integrate(golden["noise"], drawer.prefix(list(golden["prompt"])), steps, cfg_weight)
    return np.stack([velocity for _, velocity in islice(taken, len(golden["velocity"]))])
