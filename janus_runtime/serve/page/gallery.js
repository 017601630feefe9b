// Pictures of this tab: those that are being drawn, and those that are done.

import { button, make } from "./parts.js";
import { deletePicture, loadPictures, savePicture } from "./store.js";

const list = document.getElementById("gallery");
const title = document.getElementById("gallery-title");
const large = document.getElementById("large");

/** `actions`: name and function of what can be done with a picture, of {blob, prompt, settings}; `offers(name)` tells whether it is. */
export class Gallery {
  constructor(actions) {
    this.actions = actions;
    large.addEventListener("click", (event) => event.target === large && large.close());
  }

  async load() {
    for (const picture of await loadPictures()) {
      title.hidden = false;
      list.prepend(this.#card(picture));
    }
  }

  /** Shows pictures that are being drawn, before all others. */
  begin(cards) {
    title.hidden = false;
    list.prepend(...cards);
  }

  /** Keeps a picture that was begun at `at`, milliseconds, and is done; shows it in place of `card`. */
  add(card, at, blob, prompt, settings) {
    const picture = { id: crypto.getRandomValues(new Uint32Array(4)).join("-"), at, blob, prompt, settings };
    savePicture(picture);
    card.replaceWith(this.#card(picture));
  }

  /** A card is gone. */
  remove(card) {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    // The next card moves under the pointer, and a second click of a double one is not for it.
    list.style.pointerEvents = "none";
    setTimeout(() => (list.style.pointerEvents = ""), 500);
    (next?.querySelector("button") ?? document.querySelector("#draw-form textarea")).focus({ preventScroll: true });
    title.hidden = !list.children.length;
  }

  #card(picture) {
    const url = URL.createObjectURL(picture.blob);
    const { prompt, settings } = picture;
    const image = make("img", { src: url, alt: prompt });
    const item = make(
      "li",
      {},
      make("button", { type: "button", className: "frame", onclick: () => this.#enlarge(picture, url), "@aria-label": `Enlarge: ${prompt}` }, image),
      make("p", { className: "said", textContent: prompt }),
      make("div", { className: "told" }, make("p", { textContent: describe(settings) })),
    );
    const buttons = this.#buttons(picture, url);
    buttons.append(
      button("Delete", () => {
        deletePicture(picture.id);
        this.remove(item);
        URL.revokeObjectURL(url);
      }),
    );
    item.append(buttons);
    return item;
  }

  #buttons(picture, url) {
    const name = `${picture.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40) || "picture"}-seed${picture.settings.seed}.png`;
    const buttons = make("div", { className: "buttons" }, make("a", { href: url, download: name, textContent: "Download" }));
    for (const [text, act] of Object.entries(this.actions)) {
      buttons.append(
        button(text, () => {
          if (large.open) large.close();
          act(picture);
        }),
      );
    }
    return buttons;
  }

  #enlarge(picture, url) {
    const [image, text, fields] = large.children;
    image.src = url;
    image.alt = picture.prompt;
    text.textContent = `${picture.prompt} · ${describe(picture.settings)}`;
    fields.replaceChildren(...this.#buttons(picture, url).children, button("Close", () => large.close(), { autofocus: true }));
    large.showModal();
  }
}

function describe(settings) {
  const names = { seed: "seed", size: "", guidance_scale: "guidance", temperature: "temp.", steps: "steps" };
  return Object.entries(names)
    .filter(([key]) => settings[key] !== undefined)
    .map(([key, name]) => `${name} ${settings[key]}`.trim())
    .join(" · ");
}
