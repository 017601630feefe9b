// Drawing: a request for each picture, shown while it is drawn.

import { stream } from "./api.js";
import { button, bytesOf, make, picturesOf, say } from "./parts.js";
import { keepTyped } from "./store.js";

const form = document.getElementById("draw-form");
const referenceBox = document.getElementById("reference");
const referenceShown = document.getElementById("reference-shown");

// Random seeds lie below, short enough to be written down.
const SEEDS = 2 ** 32;

export class DrawPanel {
  /** `model`: what the server said of it. */
  constructor(model, gallery) {
    this.model = model;
    this.gallery = gallery;
    this.reference = null;
    const native = model.size.split("x")[0];
    const sizes = [native, ...["512", "768", "1024"].filter((size) => Number(size) > Number(native))];
    form.elements.size.replaceChildren(...sizes.map((size, i) => make("option", { value: `${size}x${size}`, textContent: i ? `${size} × ${size}` : `${size} × ${size} (native)` })));
    form.elements.guidance_scale.value = model.defaults.guidance_scale;
    form.elements.temperature.value = model.defaults.temperature ?? "";
    form.elements.steps.value = model.defaults.steps ?? "";
    form.querySelector(".of-ids").hidden = model.defaults.steps !== null;
    form.querySelector(".of-flow").hidden = model.defaults.steps === null;
    referenceBox.hidden = !model.edits;
    this.save = keepTyped(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      // A double click is one wish.
      if (performance.now() - (this.started ?? -1000) < 500) return;
      this.start();
    });
    form.elements.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    document.getElementById("random-seed").addEventListener("click", () => this.#set({ seed: "" }));
    form.elements.reference.addEventListener("change", () => this.use(form.elements.reference.files[0] ?? null));
    referenceBox.addEventListener("dragover", (event) => event.preventDefault());
    referenceBox.addEventListener("drop", (event) => {
      event.preventDefault();
      this.use(picturesOf(event.dataTransfer)[0] ?? null);
    });
  }

  /** A picture to draw from, or none. */
  use(blob) {
    this.reference = blob;
    referenceShown.replaceChildren();
    if (!blob) return;
    const image = make("img", { src: URL.createObjectURL(blob), alt: "Picture to draw from", width: 96 });
    referenceShown.append(image, button("Take it out", () => this.use(null)));
  }

  /** Puts the settings of a picture into the form. */
  reuse({ prompt, settings }) {
    const { size, guidance_scale, temperature, steps, seed } = settings;
    this.#set({ prompt, size, guidance_scale, temperature, steps, seed });
    form.elements.prompt.focus();
  }

  #set(values) {
    for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== null) form.elements[name].value = value;
    this.save();
  }

  start() {
    const { prompt, n, size, guidance_scale, temperature, steps, seed } = form.elements;
    if (!prompt.value.trim()) {
      prompt.setCustomValidity("Say what to draw.");
      prompt.reportValidity();
      prompt.addEventListener("input", () => prompt.setCustomValidity(""), { once: true });
      return;
    }
    this.started = performance.now();
    const first = seed.value === "" ? Math.floor(Math.random() * SEEDS) : Number(seed.value);
    const settings = { size: size.value };
    if (guidance_scale.value !== "") settings.guidance_scale = Number(guidance_scale.value);
    if (this.model.defaults.steps === null && temperature.value !== "") settings.temperature = Number(temperature.value);
    if (this.model.defaults.steps !== null && steps.value !== "") settings.steps = Number(steps.value);
    say(`Drawing ${n.value === "1" ? "a picture" : `${n.value} pictures`}.`);
    const now = Date.now();
    // The newest come first, and of those begun together the first seed.
    const jobs = Array.from(
      { length: Number(n.value) },
      (_, i) => new Job(this, prompt.value.trim(), { ...settings, seed: first + i }, this.reference, now - i / 10),
    );
    this.gallery.begin(jobs.map((job) => job.item));
    for (const job of jobs) job.run();
  }

  /** Pictures that a reload has interrupted. */
  resume() {
    for (const { prompt, settings, at } of unfinished()) {
      const job = new Job(this, prompt, settings, null, at);
      this.gallery.begin([job.item]);
      job.fail(new Error("The page was loaded again while this was being drawn."));
    }
  }
}

/** One picture that is being drawn. */
class Job {
  constructor(panel, prompt, settings, reference, at) {
    Object.assign(this, { panel, prompt, settings, reference, at });
    this.image = make("img", { alt: "", hidden: true });
    this.bar = make("progress", { max: 1, "@aria-label": `Progress: ${prompt}` });
    this.bar.removeAttribute("value");
    this.line = make("p", { textContent: "Waiting for its turn…" });
    this.buttons = make("div", { className: "buttons" }, button("Cancel", () => this.cancel()));
    this.item = make(
      "li",
      { className: "job" },
      make("div", { className: "frame" }, this.image),
      make("p", { className: "said", textContent: prompt }),
      make("div", { className: "told" }, this.bar, this.line),
      this.buttons,
    );
  }

  async run() {
    this.controller = new AbortController();
    this.began = 0;
    this.line.className = "";
    remember(this);
    try {
      for await (const event of stream(...this.#request(), this.controller.signal)) this.#take(event);
      if (this.item.isConnected) throw new Error("The server ended without a picture. Try again.");
    } catch (error) {
      if (this.controller.signal.aborted) return;
      this.fail(error);
    }
  }

  #request() {
    const body = { prompt: this.prompt, ...this.settings, stream: true, partial_images: 3, progress: true };
    if (!this.reference) return ["v1/images/generations", body];
    const edit = new FormData();
    for (const [name, value] of Object.entries(body)) edit.append(name, value);
    edit.append("image", this.reference);
    return ["v1/images/edits", edit];
  }

  #take(event) {
    if (event.type === "janus.waiting") {
      this.line.textContent = event.ahead === 0 ? "Waiting: next in line…" : `Waiting: ${event.ahead} before it…`;
      return;
    }
    if (event.type === "janus.progress") {
      const now = performance.now();
      this.began ||= now - 1;
      this.firstStep ??= event.step;
      const left = event.step > this.firstStep ? ((now - this.began) / (event.step - this.firstStep)) * (event.total - event.step) : 0;
      this.bar.value = event.step / event.total;
      const share = `${Math.floor((100 * event.step) / event.total)} %`;
      this.line.textContent = event.step === event.total ? "Making the pixels…" : left ? `${share}, ${seconds(left)} left` : share;
      return;
    }
    const blob = new Blob([bytesOf(event.b64_json)], { type: `image/${event.output_format ?? "png"}` });
    if (event.type.endsWith(".completed")) {
      URL.revokeObjectURL(this.image.src);
      forget(this);
      this.panel.gallery.add(this.item, this.at, blob, this.prompt, { ...this.settings, seed: event.seed ?? this.settings.seed, size: event.size });
      say("A picture is done.");
    } else {
      URL.revokeObjectURL(this.image.src);
      this.image.src = URL.createObjectURL(blob);
      this.image.alt = "What is drawn so far";
      this.image.hidden = false;
      this.item.dataset.partials = Number(this.item.dataset.partials ?? 0) + 1;
    }
  }

  fail(error) {
    this.bar.hidden = true;
    this.line.className = "wrong";
    this.line.textContent = error.message;
    say(error.message);
    this.firstStep = undefined;
    this.buttons.replaceChildren(
      button("Try again", () => {
        this.bar.hidden = false;
        this.bar.removeAttribute("value");
        this.line.textContent = "Waiting for its turn…";
        this.buttons.replaceChildren(button("Cancel", () => this.cancel()));
        this.run();
      }),
      button("Remove", () => this.#close()),
    );
  }

  cancel() {
    this.controller.abort();
    this.#close();
    say("Cancelled.");
  }

  #close() {
    forget(this);
    URL.revokeObjectURL(this.image.src);
    this.panel.gallery.remove(this.item);
  }
}

const JOBS = "janus-jobs";

/** Jobs that were not done when the page was left, newest last. */
function unfinished() {
  try {
    return JSON.parse(sessionStorage.getItem(JOBS) ?? "[]").sort((a, b) => a.at - b.at);
  } catch {
    return [];
  }
}

function remember(job) {
  forget(job);
  // A reference picture would have to be chosen again.
  if (job.reference) return;
  const { prompt, settings, at } = job;
  sessionStorage.setItem(JOBS, JSON.stringify([...unfinished(), { prompt, settings, at }]));
}

function forget(job) {
  const left = unfinished().filter(({ at, settings }) => at !== job.at || settings.seed !== job.settings.seed);
  sessionStorage.setItem(JOBS, JSON.stringify(left));
}

function seconds(milliseconds) {
  const whole = Math.max(Math.round(milliseconds / 1000), 1);
  return whole < 90 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}
