// Asking: a conversation whose every turn sends all of it again.

import { stream } from "./api.js";
import { examplesOf, offer } from "./examples.js";
import { button, bytesOf, dataUrl, make, picturesOf, say, short } from "./parts.js";
import { keep, keepTyped, loadKept } from "./store.js";
import { Talk } from "./talk.js";

const form = document.getElementById("ask-form");
const { question } = form.elements;
const photosBox = document.getElementById("photos");
const beginning = document.getElementById("ask-begin");
const anew = document.getElementById("anew");
const stop = document.getElementById("stop");
const submit = form.querySelector("[type=submit]");

export class AskPanel {
  /** `model`: what the server said of it. `reference(blob)`: takes a photo into drawing, or null where the model cannot. */
  constructor(model, reference, undo) {
    this.undo = undo;
    this.talk = new Talk(reference);
    this.messages = [];
    this.photos = [];
    this.controller = null;
    this.reading = null;
    this.#offerExamples(model);
    this.save = keepTyped(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.elements.photo.addEventListener("change", () => {
      this.add([...form.elements.photo.files]);
      form.elements.photo.value = "";
    });
    anew.addEventListener("click", () => this.begin());
    stop.addEventListener("click", () => this.controller.abort());
  }

  #offerExamples(model) {
    const { sees, questions } = examplesOf(model);
    document.getElementById("sees").textContent = sees;
    question.placeholder = questions[0];
    offer(document.getElementById("questions"), questions, (text) => {
      const typed = question.value;
      this.#type(text);
      if (typed.trim() && !questions.includes(typed)) this.undo.offer("What you typed was replaced.", () => this.#type(typed));
    });
  }

  #type(text) {
    question.value = text;
    this.save();
    question.focus();
  }

  /** Brings back the conversation and the photos that were there before the page was loaded again. */
  async restore() {
    const [messages = [], photos = []] = [await loadKept("talk"), await loadKept("photos")];
    for (const { url, blob, name } of photos) this.#attach({ url, blob, name });
    for (const { role, content } of messages) {
      if (role === "user") {
        const urls = content.filter((part) => part.type === "image_url").map((part) => part.image_url.url);
        this.talk.question(content.at(-1).text, urls.map((url) => ({ url, name: "Photo", blob: blobOf(url) })));
      } else {
        this.talk.tell(this.talk.answer(), content, true);
      }
    }
    this.#remember(messages);
  }

  #remember(messages) {
    this.messages = messages;
    keep("talk", messages);
    this.#showBeginning();
  }

  /** What helps to begin, while nothing is asked. */
  #showBeginning() {
    beginning.hidden = this.talk.shown.length > 0;
    anew.hidden = !beginning.hidden;
  }

  /** Photos for the next question, of what was chosen, pasted or dropped. */
  async add(files) {
    for (const file of await picturesOf(files)) this.#attach({ url: await dataUrl(file), blob: file, name: short(file.name || "Photo") });
    question.focus();
  }

  #attach(photo) {
    const shown = make("div", {}, make("div", { className: "frame" }, make("img", { src: photo.url, alt: photo.name })));
    const remove = () => {
      this.#setPhotos(this.photos.filter((other) => other !== photo));
      shown.remove();
      question.focus();
    };
    shown.append(button("Remove", remove, { "@aria-label": `Remove ${photo.name}` }));
    photosBox.append(shown);
    this.#setPhotos([...this.photos, photo]);
  }

  #setPhotos(photos) {
    this.photos = photos;
    keep("photos", photos);
  }

  /** Starts a new conversation; the old one can be had back. */
  async begin() {
    this.controller?.abort();
    await this.reading;
    const { messages } = this;
    const { shown } = this.talk;
    question.focus();
    if (!shown.length) return;
    this.talk.shown = [];
    this.#remember([]);
    this.undo.offer("The conversation is cleared.", () => {
      this.talk.shown = shown;
      this.#remember(messages);
      question.focus();
    });
  }

  ask() {
    if (this.controller) return;
    const text = question.value.trim();
    if (!text) {
      question.setCustomValidity("Type a question.");
      question.reportValidity();
      question.addEventListener("input", () => question.setCustomValidity(""), { once: true });
      return;
    }
    this.undo.withdraw();
    this.talk.forgive();
    const { photos } = this;
    const content = [...photos.map(({ url }) => ({ type: "image_url", image_url: { url } })), { type: "text", text }];
    const turn = { text, photos, content, asked: this.talk.question(text, photos), answer: this.talk.answer() };
    photosBox.replaceChildren();
    this.#setPhotos([]);
    question.value = "";
    this.save();
    this.#showBeginning();
    form.scrollIntoView({ block: "nearest" });
    this.reading = this.#read(turn);
  }

  async #read(turn) {
    this.controller = new AbortController();
    const { signal } = this.controller;
    this.#swap(submit, stop);
    const messages = [...this.messages, { role: "user", content: turn.content }];
    let whole = "";
    try {
      for await (const event of stream("v1/chat/completions", { messages, stream: true }, signal)) {
        whole += event.choices?.[0]?.delta?.content ?? "";
        this.#tell(turn, whole);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#takeBack(turn);
        this.#complain(error.message);
        return;
      }
    } finally {
      this.controller = null;
      this.#swap(stop, submit);
    }
    if (!whole.trim()) {
      this.#takeBack(turn);
      if (!signal.aborted) this.#complain("The model had no answer. Ask in other words.");
      return;
    }
    this.#tell(turn, whole, true);
    this.#remember([...messages, { role: "assistant", content: whole }]);
    say(signal.aborted ? "Stopped." : whole);
  }

  /** Shows an answer so far. Who looks at its end goes on doing so, until its beginning would go. */
  #tell({ answer }, text, isWhole = false) {
    const seesEnd = form.getBoundingClientRect().bottom <= innerHeight + 1;
    this.talk.tell(answer, text, isWhole);
    if (seesEnd && answer.getBoundingClientRect().top > 0) form.scrollIntoView({ block: "nearest" });
  }

  /** Nothing typed is lost: the question goes back where it was. */
  #takeBack({ text, photos, asked, answer }) {
    asked.remove();
    answer.remove();
    question.value = [text, question.value].filter(Boolean).join("\n");
    this.save();
    for (const photo of photos) this.#attach(photo);
    this.#showBeginning();
  }

  /** Tells what went wrong, where it can be seen. */
  #complain(text) {
    this.talk.complain(text);
    form.scrollIntoView({ block: "nearest" });
  }

  /** One button gives way to the other, and the focus with it. */
  #swap(shown, next) {
    const focused = document.activeElement === shown;
    shown.hidden = true;
    next.hidden = false;
    if (focused) next.focus({ preventScroll: true });
  }
}

function blobOf(url) {
  const [head, base64] = url.split(",");
  return new Blob([bytesOf(base64)], { type: head.slice("data:".length).split(";")[0] });
}
