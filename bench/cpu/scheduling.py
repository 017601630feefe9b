"""What does it cost to share one model? Second questions, pictures at once, a question that comes while pictures are drawn.

    python -m bench.cpu.scheduling BUNDLE --image PHOTO --out bench/results/scheduling.json [--only reuse --only join …]

`reuse`: time to the first word of a question about a photo, of a second one about it, and of the next turn of a conversation that is
sent again whole. `company`: pictures a minute one after the other and 8 requests at once. `join`: time to the first word beside 8 pictures
that are being drawn, and how long those wait for their next step meanwhile. `pixels`: the same while pictures are decoded to be shown, in a
thread beside the steps as the scheduler does it, and between two steps. Times in seconds, medians.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors
from janus_runtime.drawing.drawing import shown_after
from janus_runtime.events import Progress, Said
from janus_runtime.janus import Janus, load
from janus_runtime.prompt import Message
from testing.collector import Collector
from testing.sessions import wait_until_idle

_PROMPT = "a red fox in the snow, looking at the camera"
_PICTURES = 8
_QUESTIONS = ("What is this?", "Which colours are in it?", "Is anybody there?")


class Bench:
    def __init__(self, janus: Janus, photo: Image.Image, rounds: int) -> None:
        self.janus, self.rounds = janus, rounds
        self._photo = np.asarray(photo.convert("RGB"))
        self._number = 0

    def new_photo(self) -> Image.Image:
        """One that the model has not seen yet, as large as the others."""
        self._number += 1
        return Image.fromarray(np.roll(self._photo, 37 * self._number, axis=1))

    def ask(self, *messages: Message, max_tokens: int = 8) -> Collector:
        collector = Collector()
        collector.handle = self.janus.submit_answer(messages, max_tokens=max_tokens, post=collector.post)
        return collector

    def draw(self, seed: int, **settings: Any) -> Collector:
        collector = Collector()
        collector.handle = self.janus.submit_drawing(_PROMPT, seed=seed, progress=True, post=collector.post, **settings)
        return collector

    def first_word(self, *messages: Message) -> tuple[float, str]:
        """Seconds until the first text of an answer, and all of it."""
        start = time.perf_counter()
        collector = self.ask(*messages).wait(600)
        if collector.error:
            raise collector.error
        return collector.first(Said) - start, collector.text

    def reuse(self) -> dict:
        found: dict[str, list[float]] = {"first": [], "second_question": [], "next_turn": []}
        for _ in range(self.rounds):
            photo = (self.new_photo(),)
            seconds, answer = self.first_word(Message("user", _QUESTIONS[0], photo))
            found["first"].append(seconds)
            found["second_question"].append(self.first_word(Message("user", _QUESTIONS[1], photo))[0])
            turns = [Message("user", _QUESTIONS[0], photo), Message("assistant", answer.strip() or "x"), Message("user", _QUESTIONS[2])]
            found["next_turn"].append(self.first_word(*turns)[0])
        medians = {name: statistics.median(seconds) for name, seconds in found.items()}
        return {"seconds": found, "of_the_first": {name: medians[name] / medians["first"] for name in ("second_question", "next_turn")}}

    def company(self) -> dict:
        start = time.perf_counter()
        self.draw(0).wait(600)
        alone = time.perf_counter() - start
        start = time.perf_counter()
        for collector in [self.draw(seed) for seed in range(_PICTURES)]:
            collector.wait(1200)
        together = time.perf_counter() - start
        return {
            "one_s": alone,
            "eight_s": together,
            "pictures_a_minute": {"one": 60 / alone, "eight": 60 * _PICTURES / together},
            "ratio": _PICTURES * alone / together,
        }

    def join(self) -> dict:
        alone = self.first_word(Message("user", _QUESTIONS[0], (self.new_photo(),)))[0]
        drawn = self._running(_PICTURES)
        before = self._gaps(drawn, time.perf_counter() - 5, time.perf_counter())
        began = time.perf_counter()
        joined = self.first_word(Message("user", _QUESTIONS[0], (self.new_photo(),)))[0]
        gaps = self._gaps(drawn, began, time.perf_counter())
        self._stop(drawn)
        return {"alone_s": alone, "joined_s": joined, "ratio": joined / alone, "step_s": before, "step_while_it_joins_s": gaps}

    def pixels(self) -> dict:
        """Four pictures go on while two others are shown half way, decoded beside the steps and between them."""
        beside = self.janus._scheduler._beside
        return {name: self._shown(executor) for name, executor in (("beside", beside["finish"]), ("between", _Between()))}

    def _shown(self, executor: Any) -> dict:
        beside, own = self.janus._scheduler._beside, self.janus._scheduler._beside["finish"]
        beside["finish"] = executor
        try:
            drawn = self._running(4, steps=5)
            shown = [self.draw(seed, partial_images=3) for seed in (90, 91)]
            # From the step before they are shown first to a step of the others after that.
            first = round(shown_after(3)[0] * self.janus.manifest.image_output.num_tokens)
            while not all(len(collector.progress) >= first - 1 for collector in shown):
                time.sleep(0.01)
            began = time.perf_counter()
            while not all(collector.partials for collector in shown):
                time.sleep(0.01)
            ended, seen = time.perf_counter(), len(drawn[0].progress)
            while len(drawn[0].progress) == seen:
                time.sleep(0.01)
            steps = sum(began < at < ended for at in self._steps(drawn[0]))
            gaps = self._gaps(drawn, began, ended)
            self._stop([*drawn, *shown])
        finally:
            beside["finish"] = own
        return {"seconds": ended - began, "steps_a_second": steps / (ended - began), "step_s": gaps}

    def _running(self, count: int, steps: int = 12) -> list[Collector]:
        drawn = [self.draw(seed) for seed in range(count)]
        while not all(len(collector.progress) > steps for collector in drawn):
            time.sleep(0.05)
        return drawn

    def _stop(self, drawn: list[Collector]) -> None:
        for collector in drawn:
            assert collector.handle is not None
            collector.handle.cancel()
        wait_until_idle(self.janus)

    @staticmethod
    def _steps(collector: Collector) -> list[float]:
        return [at for event, at in zip(collector.events, collector.times, strict=True) if isinstance(event, Progress)]

    def _gaps(self, drawn: list[Collector], began: float, ended: float) -> dict[str, float]:
        """Seconds between two steps of the pictures, from before `began` to after `ended`."""
        gaps: list[float] = []
        for collector in drawn:
            steps = self._steps(collector)
            gaps += [after - before for before, after in zip(steps, steps[1:], strict=False) if after > began and before < ended]
        return {"median": statistics.median(gaps), "most": max(gaps)}


class _Between:
    """In place of a thread of its own: at once, in the thread that steps."""

    def submit(self, work: Callable[[], None]) -> None:
        work()


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--image", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A photo.")
@click.option("--only", multiple=True, type=click.Choice(["reuse", "company", "join", "pixels"]), help="By default all.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(bundle: Path, image: Path, only: tuple[str, ...], rounds: int, out: Path, debug: bool) -> None:
    """Measure BUNDLE."""
    with report_errors(debug), load(bundle, "cpu", max_rows=2 * _PICTURES + 2) as janus:
        bench = Bench(janus, Image.open(image), rounds)
        # Graphs are opened before anything is timed.
        bench.first_word(Message("user", _QUESTIONS[0], (bench.new_photo(),)))
        bench._stop(bench._running(1, steps=2))
        report: dict[str, Any] = {"question": "what sharing a model costs", "bundle": janus.manifest.name, **where()}
        for name in only or ("reuse", "company", "join", "pixels"):
            report[name] = getattr(bench, name)()
            click.echo(f"{name}: {report[name]}")
        write_report(out, report)


if __name__ == "__main__":
    main()
