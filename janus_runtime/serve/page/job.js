// One picture that is being drawn: its card, its request, and what becomes of it.

import { stream } from "./api.js";
import { button, bytesOf, make, say, written } from "./parts.js";
import { note, recall } from "./store.js";

export class Job {
  /** `wish`: the picture's { prompt, settings, reference, at }. `panel` has the gallery, the failures and the turns. */
  constructor(panel, wish) {
    this.panel = panel;
    this.wish = wish;
    this.image = make("img", { alt: "", hidden: true });
    this.bar = make("progress", { max: 1, "@aria-label": `Progress, seed ${wish.settings.seed}` });
    this.line = make("p");
    this.buttons = make("div", { className: "buttons" });
    this.item = make(
      "li",
      { className: "job" },
      make("div", { className: "frame" }, this.image),
      written(wish.prompt, { className: "said" }),
      make("div", { className: "told" }, this.bar, this.line),
      this.buttons,
    );
  }

  async run() {
    this.controller = new AbortController();
    this.began = 0;
    this.firstStep = undefined;
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    this.line.className = "";
    this.line.textContent = "Waiting for its turn…";
    this.#offer(button("Cancel", () => this.cancel()));
    remember(this.wish);
    await this.panel.turns.take();
    try {
      if (this.controller.signal.aborted) return;
      for await (const event of stream(...this.#request(), this.controller.signal)) this.#take(event);
      if (this.item.isConnected) throw new Error("The server ended without a picture. Try again.");
    } catch (error) {
      if (!this.controller.signal.aborted) this.fail(error);
    } finally {
      this.panel.turns.give();
    }
  }

  #request() {
    const { prompt, settings, reference } = this.wish;
    const body = { prompt, ...settings, stream: true, partial_images: 3, progress: true };
    if (!reference) return ["v1/images/generations", body];
    const edit = new FormData();
    for (const [name, value] of Object.entries(body)) edit.append(name, value);
    edit.append("image", reference);
    return ["v1/images/edits", edit];
  }

  #take(event) {
    if (event.type === "janus.waiting") {
      this.line.textContent = event.ahead === 0 ? "Waiting: next in line…" : `Waiting: ${event.ahead} ahead of it…`;
    } else if (event.type === "janus.progress") {
      this.#progress(event);
    } else if (event.type.endsWith(".completed")) {
      this.#finish(event);
    } else {
      URL.revokeObjectURL(this.image.src);
      this.image.src = URL.createObjectURL(pictureOf(event));
      this.image.alt = "What is drawn so far";
      this.image.hidden = false;
      this.item.dataset.partials = Number(this.item.dataset.partials ?? 0) + 1;
    }
  }

  #progress({ step, total }) {
    const now = performance.now();
    this.began ||= now - 1;
    this.firstStep ??= step;
    this.bar.value = step / total;
    const share = `${Math.floor((100 * step) / total)} %`;
    const left = step > this.firstStep ? ((now - this.began) / (step - this.firstStep)) * (total - step) : 0;
    this.line.textContent = step === total ? "Almost done…" : left ? `${share}, ${duration(left)} left` : share;
  }

  #finish(event) {
    const { prompt, settings, reference, at } = this.wish;
    URL.revokeObjectURL(this.image.src);
    forget(this.wish);
    const drawn = { ...settings, seed: event.seed ?? settings.seed, size: event.size };
    this.panel.gallery.add(this.item, { at, prompt, reference, settings: drawn, blob: pictureOf(event) });
    const left = this.panel.gallery.numDrawn;
    say(left ? `A picture is done, ${left} to go.` : "All pictures are done.");
  }

  /** The panel's failures then tell what went wrong. */
  fail(error) {
    this.bar.hidden = true;
    this.#offer(
      button("Try again", () => this.again()),
      button("Remove", () => this.close()),
    );
    this.panel.failures.add(this, error);
  }

  tell(text) {
    this.line.className = "wrong";
    this.line.textContent = text;
  }

  again() {
    this.panel.failures.remove(this);
    this.run();
  }

  cancel() {
    this.controller.abort();
    this.close();
    say("Cancelled.");
  }

  close() {
    this.panel.failures.remove(this);
    forget(this.wish);
    URL.revokeObjectURL(this.image.src);
    this.panel.gallery.remove(this.item);
  }

  /** What can be done now; the focus stays here. */
  #offer(...buttons) {
    const focused = this.buttons.contains(document.activeElement);
    this.buttons.replaceChildren(...buttons);
    if (focused) buttons[0].focus();
  }
}

function pictureOf(event) {
  return new Blob([bytesOf(event.b64_json)], { type: `image/${event.output_format ?? "png"}` });
}

function duration(milliseconds) {
  const seconds = Math.max(Math.round(milliseconds / 1000), 1);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

const WISHES = "janus-unfinished";

/** Wishes that were not fulfilled when the page was left, oldest first. */
export function unfinished() {
  return (recall(WISHES) ?? []).sort((a, b) => a.at - b.at);
}

function remember({ prompt, settings, reference, at }) {
  forget({ at });
  // A reference picture would have to be chosen again.
  if (!reference) note(WISHES, [...unfinished(), { prompt, settings, at }]);
}

function forget({ at }) {
  note(WISHES, unfinished().filter((wish) => wish.at !== at));
}
