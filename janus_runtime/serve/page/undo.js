// Takes back what was deleted or replaced last, and then what was before it, until something new is begun.

import { button, make, say } from "./parts.js";

export class Undo {
  /** Offers it at the end of `place`. */
  constructor(place) {
    this.steps = [];
    this.text = make("span");
    this.box = make("div", { className: "undo", hidden: true }, this.text, button("Undo", () => this.#undo()));
    place.append(this.box);
  }

  /** `text`: what was done; `restore` takes it back. */
  offer(text, restore) {
    this.steps.push({ text, restore });
    this.#show();
    say(text);
  }

  /** Something new is begun. */
  withdraw() {
    this.steps = [];
    this.#show();
  }

  #undo() {
    this.steps.pop().restore();
    this.#show();
    say("Undone.");
  }

  #show() {
    const last = this.steps.at(-1);
    this.box.hidden = !last;
    this.text.textContent = last?.text ?? "";
  }
}
