// Pictures of this tab: those that are being drawn, and those that are done.

import { button, make, short, written } from "./parts.js";
import { deletePicture, loadPictures, savePicture } from "./store.js";

const list = document.getElementById("gallery");
const title = document.getElementById("gallery-title");
const large = document.getElementById("large");

export class Gallery {
  /** `actions`: name and function of what can be done with a picture. */
  constructor(actions, undo) {
    this.actions = actions;
    this.undo = undo;
    large.addEventListener("click", (event) => event.target === large && large.close());
  }

  async load() {
    for (const picture of await loadPictures()) this.put(this.#card(picture), picture.at);
  }

  /** Pictures that are being drawn, or wait. */
  get numDrawn() {
    return list.querySelectorAll(".job:not(:has(.wrong))").length;
  }

  /** Keeps a picture that is done, and shows it in place of the card of its job. */
  async add(job, picture) {
    picture.id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const card = this.#card(picture);
    card.dataset.at = picture.at;
    const focused = job.contains(document.activeElement);
    job.replaceWith(card);
    if (focused) card.querySelector("button").focus({ preventScroll: true });
    if (!(await savePicture(picture))) title.querySelector("small").textContent = "(kept until you leave the page: this browser has no room)";
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

  /** Shows a picture that was begun at `at`, in milliseconds. The newest come first. */
  put(card, at) {
    card.dataset.at = at;
    const older = [...list.children].find((other) => Number(other.dataset.at) < at);
    list.insertBefore(card, older ?? null);
    title.hidden = false;
  }

  #card(picture) {
    const url = URL.createObjectURL(picture.blob);
    const { prompt } = picture;
    const enlarge = () => this.#enlarge(picture, url);
    const image = make("img", { src: url, alt: short(prompt) });
    const item = make(
      "li",
      {},
      make("button", { type: "button", className: "frame", onclick: enlarge, "@aria-label": `Enlarge: ${short(prompt)}` }, image),
      written(prompt, { className: "said" }),
      make("div", { className: "told" }, make("p", { textContent: describe(picture) })),
    );
    const remove = button("Delete", () => {
      URL.revokeObjectURL(url);
      this.#delete(picture, item);
    });
    item.append(make("div", { className: "buttons" }, ...this.#buttons(picture, url), remove));
    return item;
  }

  #delete(picture, item) {
    deletePicture(picture.id);
    this.remove(item);
    this.undo.offer("The picture is deleted.", () => {
      savePicture(picture);
      const card = this.#card(picture);
      this.put(card, picture.at);
      card.querySelector("button").focus();
    });
  }

  #buttons(picture, url) {
    const words = picture.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40);
    const download = make("a", { href: url, download: `${words || "picture"}-seed${picture.settings.seed}.png`, textContent: "Download" });
    const others = Object.entries(this.actions).map(([text, act]) =>
      button(text, () => {
        if (large.open) large.close();
        act(picture);
      }),
    );
    return [download, ...others];
  }

  #enlarge(picture, url) {
    large.querySelector("img").src = url;
    large.querySelector("img").alt = short(picture.prompt);
    large.querySelector(".said").textContent = picture.prompt;
    large.querySelector(".hint").textContent = describe(picture);
    large.querySelector(".buttons").replaceChildren(...this.#buttons(picture, url), button("Close", () => large.close(), { autofocus: true }));
    large.showModal();
  }
}

function describe({ settings, reference }) {
  const { seed, size, guidance_scale, temperature, steps } = settings;
  const parts = [`seed ${seed}`, size.replace("x", " × ")];
  if (guidance_scale !== undefined) parts.push(`guidance ${guidance_scale}`);
  if (temperature !== undefined) parts.push(`temperature ${temperature}`);
  if (steps !== undefined) parts.push(`${steps} steps`);
  if (reference) parts.push("from a picture");
  // A line ends between two of them.
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
}
