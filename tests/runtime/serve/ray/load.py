"""Requests of all kinds, what each is to be answered, and what came."""

import base64
import io
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

from janus_runtime.prompt import Message

PROMPTS = ("a red circle", "a small blue square left of a green triangle", "three yellow crosses on black", "a large purple cross")
QUESTIONS = ("What is this?", "What is left of the triangle?", "Which colour is it?")


def photo(janus):
    """A picture to ask about, as a data: URL and as it is read."""
    image = janus.generate("a small blue square left of a green triangle", seed=1)[0].image
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), image


@dataclass
class Expected:
    """What one process answers to request `number`, each drawn once."""

    janus: object
    url: str
    image: Image.Image
    known: dict = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, janus):
        return cls(janus, *photo(janus))

    def request(self, number):
        """-> path, body."""
        kind, which = number % 4, number // 4 % 10
        if kind in (0, 1):
            body = {"prompt": PROMPTS[which % 4], "seed": which, "stream": kind == 1}
            return "/v1/images/generations", body | ({"progress": True, "partial_images": 1} if kind == 1 else {})
        content = QUESTIONS[which % 3]
        if kind == 3:
            content = [{"type": "image_url", "image_url": {"url": self.url}}, {"type": "text", "text": content}]
        return "/v1/chat/completions", {
            "messages": [{"role": "user", "content": content}],
            "seed": which,
            "temperature": 1.0,
            "max_tokens": 24,
            "stream": kind == 3,
        }

    def answer(self, number):
        """Pixels of a picture, or the text."""
        kind, which = number % 4, number // 4 % 10
        key = (kind // 2 * (1 + kind % 2), which)
        with self.lock:
            if key not in self.known:
                if kind in (0, 1):
                    self.known[key] = self.janus.generate(PROMPTS[which % 4], seed=which)[0].image.tobytes()
                else:
                    images = (self.image,) if kind == 3 else ()
                    self.known[key] = said(self.janus, QUESTIONS[which % 3], images, which)
            return self.known[key]


def said(janus, question, images, seed):
    from janus_runtime.events import Failed, Finished, Said

    texts, done = [], threading.Event()

    def post(event):
        if isinstance(event, Said):
            texts.append(event.text)
        if isinstance(event, Finished | Failed):
            done.set()

    janus.submit_answer([Message("user", question, images)], post=post, max_tokens=24, temperature=1.0, seed=seed)
    assert done.wait(60)
    return "".join(texts)


def read(status, answer):
    """-> what was drawn or said; or the error's code, as ("error", code); or ("broken", why) where it is neither."""
    events = answer if isinstance(answer, list) else [answer]
    errors = [event["error"] for event in events if event.get("error")]
    if errors:
        error = errors[0]
        whole = set(error) == {"message", "type", "param", "code"} and error["message"]
        return ("error", error["code"]) if whole else ("broken", f"no error object: {error}")
    if status != 200:
        return "broken", f"{status} without an error"
    if not isinstance(answer, list):
        return pixels(answer["data"][0]["b64_json"]) if "data" in answer else answer["choices"][0]["message"]["content"]
    if any(event.get("type") == "image_generation.completed" for event in events):
        steps = [event["step"] for event in events if event.get("type") == "janus.progress"]
        partials = [event for event in events if event.get("type") == "image_generation.partial_image"]
        if steps != sorted(set(steps)) or len(partials) > 1:
            return "broken", f"a repeated event: steps {steps}, {len(partials)} partial pictures"
        return pixels(events[-1]["b64_json"])
    choices = [event["choices"][0] for event in events if event.get("choices")]
    if not choices or not choices[-1]["finish_reason"]:
        return "broken", f"a stream without an end: {events[-1:]}"
    return "".join(choice["delta"].get("content", "") for choice in choices)


def pixels(b64):
    return Image.open(io.BytesIO(base64.b64decode(b64))).convert("RGB").tobytes()


class Load:
    """`clients` threads that ask one request after another until `stop`; what came is in `outcomes`, as counts, and in `faults`."""

    def __init__(self, cluster, expected, clients, deadline_s):
        self.outcomes = Counter()
        self.faults = []
        self.longest_s = 0.0
        self._cluster, self._expected, self._deadline_s = cluster, expected, deadline_s
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stopping.is_set():
            self.one(next(self._numbers))

    def one(self, number):
        """Asks request `number` and notes what came -> the outcome."""
        path, body = self._expected.request(number)
        began = time.monotonic()
        try:
            got = read(*self._cluster.post(path, body, timeout_s=self._deadline_s))
        except Exception as error:
            got = ("broken", f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - began
        self.longest_s = max(self.longest_s, seconds)
        if isinstance(got, tuple):
            outcome = f"{got[0]} {got[1]}"
        else:
            outcome = "right" if got == self._expected.answer(number) else "wrong"
        self.outcomes[outcome] += 1
        if outcome == "wrong" or outcome.startswith("broken") or seconds > self._deadline_s:
            self.faults.append((number, body, outcome, round(seconds, 1)))
        return outcome

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(self._deadline_s + 30)
            assert not thread.is_alive(), "a request hangs"
