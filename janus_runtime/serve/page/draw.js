// Drawing: what is wished for, and a job for each picture.

import { examplesOf, offer } from "./examples.js";
import { Failures } from "./failures.js";
import { Job, unfinished } from "./job.js";
import { button, make, picturesOf, say } from "./parts.js";
import { keep, keepTyped, loadKept } from "./store.js";
import { Turns } from "./turns.js";

const form = document.getElementById("draw-form");
const settingsBox = document.getElementById("settings");
const referenceBox = document.getElementById("reference");
const referenceShown = document.getElementById("reference-shown");

// Random seeds lie below, short enough to be written down.
const SEEDS = 2 ** 32;
// A browser opens six connections to a server. Some are left for questions, which would wait for a picture otherwise.
const AT_ONCE = 4;

export class DrawPanel {
  /** `model`: what the server said of it. */
  constructor(model, gallery, undo) {
    this.model = model;
    this.gallery = gallery;
    this.undo = undo;
    this.failures = new Failures(document.getElementById("failed"));
    this.turns = new Turns(AT_ONCE);
    this.reference = null;
    this.#offerSettings();
    this.#offerExamples();
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
    // Where it could not be seen that a value is wrong, or which.
    form.addEventListener("invalid", () => (settingsBox.open = true), true);
    document.getElementById("random-seed").addEventListener("click", () => this.#set({ seed: "" }));
    form.elements.reference.addEventListener("change", () => {
      this.use([...form.elements.reference.files]);
      form.elements.reference.value = "";
    });
    if (model.edits) loadKept("reference").then((kept) => kept && this.#refer(kept));
  }

  #offerSettings() {
    const { size, guidance_scale, temperature, steps } = form.elements;
    const native = this.model.size.split("x")[0];
    const sides = [native, ...["512", "768", "1024"].filter((side) => Number(side) > Number(native))];
    size.replaceChildren(...sides.map((side) => make("option", { value: `${side}x${side}`, textContent: `${side} × ${side}` })));
    const { defaults } = this.model;
    const isFlow = defaults.steps !== null;
    guidance_scale.value = defaults.guidance_scale;
    temperature.value = defaults.temperature ?? "";
    steps.value = defaults.steps ?? "";
    for (const each of document.querySelectorAll(".of-ids")) each.hidden = isFlow;
    for (const each of document.querySelectorAll(".of-flow")) each.hidden = !isFlow;
    for (const each of document.querySelectorAll("[data-usual]")) each.textContent = defaults[each.dataset.usual] ?? "";
    document.getElementById("native-size").textContent = `${native} × ${native}`;
    referenceBox.hidden = !this.model.edits;
    // On a phone they would take all of it; who wants them opens them.
    settingsBox.open = matchMedia("(min-width: 32rem)").matches;
  }

  #offerExamples() {
    const { knows, prompts } = examplesOf(this.model);
    this.examples = prompts;
    document.getElementById("knows").textContent = knows;
    form.elements.prompt.placeholder = prompts[0];
    offer(document.getElementById("prompts"), prompts, (prompt) => this.#replace({ prompt }));
  }

  /** Draws from the first of these files, if one is a picture. */
  async use(files) {
    const [picture] = await picturesOf(files);
    if (picture) this.#refer(picture);
  }

  /** Draws from a picture, or from none. */
  #refer(picture) {
    this.reference = picture;
    keep("reference", picture);
    URL.revokeObjectURL(referenceShown.querySelector("img")?.src);
    referenceShown.replaceChildren();
    if (!picture) return;
    const image = make("img", { src: URL.createObjectURL(picture), alt: "Picture to draw from" });
    const remove = () => {
      this.#refer(null);
      form.elements.reference.focus();
    };
    referenceShown.append(make("div", { className: "frame" }, image), button("Remove", remove, { "@aria-label": "Remove the picture to draw from" }));
  }

  /** Puts the settings of a picture into the form. */
  reuse({ prompt, settings, reference }) {
    this.#replace({ prompt, ...settings });
    if (this.model.edits) this.#refer(reference ?? null);
    form.elements.prompt.focus();
  }

  /** Puts values into the form. What was typed there can be had back. */
  #replace(values) {
    const { prompt } = form.elements;
    const typed = prompt.value;
    const before = Object.fromEntries(Object.keys(values).map((name) => [name, form.elements[name].value]));
    this.#set(values);
    if (!typed.trim() || typed === prompt.value || this.examples.includes(typed)) return;
    this.undo.offer("What you typed was replaced.", () => {
      this.#set(before);
      prompt.focus();
    });
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
    this.undo.withdraw();
    this.gallery.undo.withdraw();
    const first = seed.value === "" ? Math.floor(Math.random() * SEEDS) : Number(seed.value);
    const settings = { size: size.value };
    if (guidance_scale.value !== "") settings.guidance_scale = Number(guidance_scale.value);
    if (this.model.defaults.steps === null && temperature.value !== "") settings.temperature = Number(temperature.value);
    if (this.model.defaults.steps !== null && steps.value !== "") settings.steps = Number(steps.value);
    say(`Drawing ${n.value === "1" ? "a picture" : `${n.value} pictures`}.`);
    const now = Date.now();
    // The newest come first, and of those begun together the first seed.
    const wishes = Array.from({ length: Number(n.value) }, (_, i) => ({
      prompt: prompt.value.trim(),
      settings: { ...settings, seed: first + i },
      reference: this.reference,
      at: now - i / 10,
    }));
    const jobs = wishes.map((wish) => new Job(this, wish));
    for (const job of jobs) this.gallery.put(job.item, job.wish.at);
    for (const job of jobs) job.run();
    // On a phone they are below what is shown.
    jobs[0].line.scrollIntoView({ block: "nearest" });
  }

  /** Shows pictures that a reload has interrupted. */
  resume() {
    for (const wish of unfinished()) {
      const job = new Job(this, wish);
      this.gallery.put(job.item, wish.at);
      job.fail(new Error("The page was loaded again before that."));
    }
  }
}
