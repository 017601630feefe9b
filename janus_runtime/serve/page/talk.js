// The conversation as it is shown.

import { button, make, say, written } from "./parts.js";

const list = document.getElementById("talk");

// How long a button says that it has copied.
const COPIED_MS = 2000;

export class Talk {
  /** `reference(blob)`: takes a photo into drawing, or null where the model cannot. */
  constructor(reference) {
    this.reference = reference;
  }

  get shown() {
    return [...list.children];
  }

  set shown(items) {
    list.replaceChildren(...items);
  }

  question(text, photos) {
    const item = make("li", { className: "user", "@aria-label": "You" });
    if (photos.length) item.append(make("div", { className: "photos" }, ...photos.map((photo) => this.#photo(photo))));
    item.append(written(text));
    list.append(item);
    return item;
  }

  #photo({ url, name, blob }) {
    const shown = make("div", {}, make("div", { className: "frame" }, make("img", { src: url, alt: name })));
    if (this.reference) shown.append(button("Draw from it", () => this.reference(blob)));
    return shown;
  }

  /** An answer without words yet. */
  answer() {
    const item = make("li", { className: "assistant", "@aria-label": "Answer" }, written("…"));
    list.append(item);
    return item;
  }

  /** An answer so far, or whole. */
  tell(item, text, isWhole) {
    item.firstChild.textContent = text.trim() || "…";
    if (isWhole) item.append(make("div", { className: "buttons" }, button("Copy", (event) => copy(item.firstChild, event.target))));
  }

  /** What went wrong, until it is dismissed or something else is asked. */
  complain(text) {
    this.forgive();
    const item = make("li", { className: "wrong" }, make("p", { textContent: text }));
    item.append(button("Dismiss", () => item.remove()));
    list.append(item);
    say(text);
  }

  forgive() {
    list.querySelector("li.wrong")?.remove();
  }
}

/** Copies the text of an element. */
function copy(element, pressed) {
  const selection = getSelection();
  selection.selectAllChildren(element);
  // navigator.clipboard is not there for a server that is asked by http from another machine.
  const done = document.execCommand("copy");
  selection.removeAllRanges();
  pressed.textContent = done ? "Copied" : "Select it and copy it";
  say(pressed.textContent);
  setTimeout(() => (pressed.textContent = "Copy"), COPIED_MS);
}
