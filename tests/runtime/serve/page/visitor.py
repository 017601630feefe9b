"""Somebody who looks at the page, and what he does on it."""

import base64
import io
import json

import numpy as np
from PIL import Image

PATIENCE_MS = 30_000
RED = Image.new("RGB", (40, 30), "red")


class Visitor:
    """Pages of one browser's profile, and what must not happen on them."""

    def __init__(self, browser, server, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.server = server
        self.wrong, self.asked = [], []

    def open(self, ready=True):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", self._note)
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.server.url)
        if ready:
            page.wait_for_selector("body[data-ready]")
        return page

    def _note(self, message):
        # A refusal of the server is written there by the browser itself.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def num_asked(self, path):
        return sum(path in url for url in self.asked)

    @property
    def asked_elsewhere(self):
        return [url for url in self.asked if not url.startswith((self.server.url, "data:", "blob:"))]


def draw(page, prompt, n=1, seed=None, **fields):
    page.fill("[name=prompt]", prompt)
    page.select_option("[name=n]", str(n))
    page.fill("[name=seed]", "" if seed is None else str(seed))
    for name, value in fields.items():
        page.fill(f"[name={name}]", str(value))
    page.click("#draw-form .main")


def drawn(page, count):
    """The pictures of the gallery, the newest first, as [height, width, 3] pixels. Waits until nothing is being drawn."""
    done = "document.querySelectorAll('#gallery > li').length === count && !document.querySelector('#gallery > .job:not(:has(.wrong))')"
    page.wait_for_function(f"count => {done}", arg=count)
    urls = page.eval_on_selector_all("#gallery .frame img[src]", "images => images.map(image => image.src)")
    return [pixels_of(page, url) for url in urls]


def pixels_of(page, url):
    # The policy lets the page ask its server alone, so a picture of its own is read from a canvas.
    code = """url => new Promise(resolve => {
        const image = new Image();
        image.onload = () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
            canvas.getContext("2d").drawImage(image, 0, 0);
            resolve(canvas.toDataURL("image/png").split(",")[1]);
        };
        image.src = url;
    })"""
    with Image.open(io.BytesIO(base64.b64decode(page.evaluate(code, url)))) as image:
        return np.asarray(image.convert("RGB"))


def same(found, expected):
    """Whether these are the pixels of those pictures, in any order."""
    return {each.tobytes() for each in found} == {np.asarray(picture.image).tobytes() for picture in expected}


def to_ask(page):
    page.click("#tab-ask")


def ask(page, question):
    page.fill("[name=question]", question)
    page.click("#ask-form .main:visible")


def answers(page, count):
    """What was answered. Waits until so many answers are whole."""
    page.wait_for_function("count => document.querySelectorAll('#talk .assistant .buttons').length === count", arg=count)
    return page.eval_on_selector_all("#talk .assistant > p", "all => all.map(each => each.textContent)")


def choose_photo(page, file):
    page.set_input_files("[name=photo]", file)
    page.wait_for_selector("#photos img")


def answer_always(page, text):
    """Every question is answered by this, as a stream."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))


def list_model(page, **changed):
    """The server lists its model with other values."""

    def answer(route):
        models = route.fetch().json()
        models["data"][0].update(changed)
        route.fulfill(json=models)

    page.route("**/v1/models", answer)


def transfer(page, content, name="red.png", kind="image/png"):
    """A DataTransfer with a file in it, as pasting and dropping give."""
    code = """([base64, name, type]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], name, { type }));
        return transfer;
    }"""
    return page.evaluate_handle(code, [base64.b64encode(content).decode(), name, kind])


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
