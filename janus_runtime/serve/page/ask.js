// Asking: a conversation whose every turn sends all of it again.

import { stream } from "./api.js";
import { button, bytesOf, dataUrl, make, notify, picturesOf, say } from "./parts.js";
import { keepTyped, loadTalk, saveTalk } from "./store.js";

const form = document.getElementById("ask-form");
const talk = document.getElementById("talk");
const photos = document.getElementById("photos");
const stop = document.getElementById("stop");

export class AskPanel {
  /** `reference(blob)`: takes a photo into drawing, or null where the model cannot. */
  constructor(reference) {
    this.messages = [];
    this.photos = [];
    this.reference = reference;
    this.controller = null;
    this.save = keepTyped(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    form.elements.question.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.elements.photo.addEventListener("change", () => {
      this.add(picturesOf(form.elements.photo));
      form.elements.photo.value = "";
    });
    const panel = document.getElementById("ask");
    document.addEventListener("paste", (event) => {
      if (!panel.hidden) this.add(picturesOf(event.clipboardData));
    });
    panel.addEventListener("dragover", (event) => {
      event.preventDefault();
      form.classList.add("dropping");
    });
    panel.addEventListener("dragleave", () => form.classList.remove("dropping"));
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      form.classList.remove("dropping");
      this.add(picturesOf(event.dataTransfer));
    });
    document.getElementById("anew").addEventListener("click", () => this.begin());
    stop.addEventListener("click", () => this.controller?.abort());
    loadTalk().then((messages) => this.#restore(messages));
  }

  /** Shows a conversation that was there before the page was loaded again. */
  #restore(messages) {
    if (this.messages.length || talk.children.length) return;
    this.messages = messages;
    for (const { role, content } of messages) {
      if (role === "user") {
        const urls = content.filter((part) => part.type === "image_url").map((part) => part.image_url.url);
        const shown = urls.map((url) => ({ url, name: "photo", blob: new Blob([bytesOf(url.split(",")[1])], { type: url.slice(5).split(";")[0] }) }));
        this.#show("user", content.find((part) => part.type === "text").text, shown);
      } else {
        const [item, text] = this.#answer();
        text.textContent = content.trim();
        item.append(copyButton(content));
      }
    }
  }

  /** Photos for the next question. */
  async add(files) {
    if (files.length) notify();
    for (const file of files) {
      const bitmap = await createImageBitmap(file).catch(() => null);
      if (!bitmap) {
        notify(`${file.name || "That file"} is no picture that this browser can read. Choose a PNG, JPEG or WebP.`);
        continue;
      }
      bitmap.close();
      const photo = { url: await dataUrl(file), blob: file, name: file.name || "photo" };
      this.photos.push(photo);
      const shown = make("div", {}, make("div", { className: "frame" }, make("img", { src: photo.url, alt: photo.name })));
      const take = () => {
        this.photos = this.photos.filter((other) => other !== photo);
        shown.remove();
        form.elements.question.focus();
      };
      shown.append(button("Remove", take, { "@aria-label": `Remove ${photo.name}` }));
      photos.append(shown);
    }
    if (files.length) form.elements.question.focus();
  }

  /** Starts a new conversation. */
  begin() {
    this.controller?.abort();
    this.messages = [];
    saveTalk([]);
    talk.replaceChildren();
    form.elements.question.focus();
  }

  async ask() {
    const question = form.elements.question.value.trim();
    if (this.controller) return;
    if (!question) {
      complain("Type a question.");
      return;
    }
    // What went wrong before is over.
    for (const old of talk.querySelectorAll("li.wrong")) old.remove();
    const parts = [...this.photos.map((photo) => ({ type: "image_url", image_url: { url: photo.url } })), { type: "text", text: question }];
    const asked = { photos: this.photos, question };
    const turn = { role: "user", content: parts };
    const shown = this.#show("user", question, this.photos);
    const [answer, text] = this.#answer();
    this.#clear();
    await this.#read([...this.messages, turn], turn, text, answer, shown, asked);
  }

  async #read(messages, turn, text, answer, shown, asked) {
    this.controller = new AbortController();
    this.#busy(true);
    let whole = "";
    try {
      const body = { messages, stream: true };
      for await (const event of stream("v1/chat/completions", body, this.controller.signal)) {
        whole += event.choices?.[0]?.delta?.content ?? "";
        text.textContent = whole.trimStart();
      }
      say(whole || "No answer.");
    } catch (error) {
      if (!this.controller.signal.aborted) {
        this.#fail(error, shown, answer, asked);
        return;
      }
      say("Stopped.");
    } finally {
      this.controller = null;
      this.#busy(false);
    }
    // A conversation that was begun anew meanwhile is another one.
    if (!answer.isConnected) return;
    if (!whole.trim()) {
      text.textContent = "(no answer)";
      return;
    }
    this.messages = [...messages, { role: "assistant", content: whole }];
    saveTalk(this.messages);
    answer.append(copyButton(whole));
  }

  /** Nothing typed is lost: the question goes back where it was. */
  #fail(error, shown, answer, asked) {
    shown.remove();
    answer.classList.add("wrong");
    answer.replaceChildren(make("p", { className: "wrong", textContent: error.message }), button("Dismiss", () => answer.remove()));
    say(error.message);
    if (!form.elements.question.value) form.elements.question.value = asked.question;
    this.add(asked.photos.map((photo) => photo.blob));
    this.save();
  }

  #busy(busy) {
    stop.hidden = !busy;
    form.querySelector("[type=submit]").disabled = busy;
  }

  #clear() {
    this.photos = [];
    photos.replaceChildren();
    form.elements.question.value = "";
    this.save();
  }

  #show(role, text, shown) {
    const item = make("li", { className: role, "@aria-label": "You" });
    const row = make("div", { className: "photos" });
    for (const photo of shown) {
      const each = make("div", {}, make("div", { className: "frame" }, make("img", { src: photo.url, alt: photo.name })));
      if (this.reference) each.append(button("Draw from it", () => this.reference(photo.blob)));
      row.append(each);
    }
    if (shown.length) item.append(row);
    item.append(make("p", { textContent: text }));
    talk.append(item);
    return item;
  }

  #answer() {
    const text = make("p", { textContent: "…" });
    const item = make("li", { className: "assistant", "@aria-label": "Answer" }, text);
    talk.append(item);
    return [item, text];
  }
}

function copyButton(text) {
  return make("div", { className: "buttons" }, button("Copy", () => navigator.clipboard?.writeText(text.trim())));
}

/** A sentence at the question's field, until something is typed. */
function complain(text) {
  const field = form.elements.question;
  field.setCustomValidity(text);
  field.reportValidity();
  field.addEventListener("input", () => field.setCustomValidity(""), { once: true });
  say(text);
}
