"""Does a bundle predict what another does, step for step, when both are fed the same picture?

    python -m bench.quality.agreement FP32_BUNDLE INT4_BUNDLE --out bench/results/agreement.json

BASELINE draws under guidance; its ids are fed to the others as well (teacher forcing), so that a difference early on cannot
hide what comes later. Of every step: whether the likeliest id is the same, and the Kullback-Leibler divergence of the
distributions in nats, KL(baseline || bundle); from the prompt's row alone and under guidance.
"""

from contextlib import closing
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import janus_runtime
from bench.bundles import open_manifests
from bench.machine import where, write_report
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.console.commands import FiniteFloat
from janus_runtime.console.errors import report_errors
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import JanusError
from janus_runtime.janus import Janus
from janus_runtime.sampling.guidance import Pairs, pair
from janus_runtime.sampling.noise import Noise
from janus_runtime.sampling.sampler import Floats, Ids, Sampler
from testing.sessions import prefill, step


def predict(janus: Janus, prompt: str, seed: int, cfg_weight: float, fed: Ids | None = None) -> tuple[Ids, Floats]:
    """-> the ids [N] of one picture, drawn by the host or as `fed`, and the logits [N, 2, V] before each."""
    output, engines = janus.manifest.image_output, janus._engines
    text_ids = janus._prompter.image(prompt)
    sampler, noise, guidance = Sampler(), Noise([seed], output.num_ids), Pairs(cfg_weight)
    ids = np.zeros(output.num_tokens, np.int32) if fed is None else fed
    with closing(open_session(engines, "image", 2, len(text_ids) + output.num_tokens)) as session:
        logits = prefill(session, [engines.embed_text(row) for row in pair([text_ids], [janus._prompter.blank(text_ids)])], "image")
        seen = np.empty((output.num_tokens, *logits.shape), np.float32)
        for number in range(output.num_tokens):
            seen[number] = logits
            if fed is None:
                (ids[number],) = sampler(guidance.mix(logits), noise(number))
            if number + 1 < output.num_tokens:
                logits = step(session, np.full(2, ids[number], np.int32))
    return ids, seen


def compare(ours: Floats, theirs: Floats) -> dict[str, float]:
    """Scores [n, V] of a bundle and of the baseline."""
    q, p = _log_softmax(ours), _log_softmax(theirs)
    divergence = (np.exp(p) * (p - q)).sum(-1)
    return {
        "top1": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        "kl_mean": float(divergence.mean()),
        "kl_p95": float(np.percentile(divergence, 95)),
        "kl_last_tenth": float(divergence[-max(1, len(divergence) // 10) :].mean()),
    }


def _log_softmax(scores: Floats) -> NDArray[np.float64]:
    wide = scores.astype(np.float64) - scores.max(-1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result


@click.command()
@click.argument("baseline")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--prompt", default="a red fox in the snow", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--cfg-weight", type=FiniteFloat(), default=5.0, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(baseline: str, bundles: tuple[str, ...], prompt: str, seed: int, cfg_weight: float, out: Path | None, debug: bool) -> None:
    """Compare each BUNDLE with BASELINE over all steps of one picture."""
    with report_errors(debug):
        manifest = Bundle.open(baseline).manifest
        others = open_manifests(bundles)
        with janus_runtime.load(baseline, "cpu") as janus:
            ids, theirs = predict(janus, prompt, seed, cfg_weight)
        results = {}
        for bundle, other in zip(bundles, others, strict=True):
            if any(getattr(other, part) != getattr(manifest, part) for part in ("family", "source", "image_output")):
                raise JanusError(f"{bundle} is not the same model as {baseline}")
            with janus_runtime.load(bundle, "cpu") as janus:
                _, ours = predict(janus, prompt, seed, cfg_weight, fed=ids)
            results[other.precision] = {
                "prompt": compare(ours[:, 0], theirs[:, 0]),
                "guided": compare(*(Pairs(cfg_weight).mix(logits.reshape(-1, logits.shape[-1])) for logits in (ours, theirs))),
            }
            for what, row in results[other.precision].items():
                click.echo(f"{other.precision:6}{what:8}{row['top1']:8.1%} same, KL {row['kl_mean']:.2e} (95 %: {row['kl_p95']:.2e})")
        if out:
            report = {
                "question": f"agreement with {manifest.precision} over all steps of one picture, teacher-forced",
                "model": manifest.source.name, "random_weights": manifest.random_weights, **where(),
                "prompt": prompt, "seed": seed, "cfg_weight": cfg_weight, "steps": len(ids), "results": results,
            }  # fmt: skip
            write_report(out, report)


if __name__ == "__main__":
    main()
