// Small things that several parts of the page need. Text of users and models is only ever set as text.

/** An element with properties, attributes (after "@") and children. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("@")) element.setAttribute(key.slice(1), value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

export function button(text, action, more = {}) {
  return make("button", { type: "button", textContent: text, onclick: action, ...more });
}

/** What somebody wrote, which may run from right to left. */
export function written(text, more = {}) {
  return make("p", { textContent: text, dir: "auto", ...more });
}

/** Enough of a text to name something by. */
export function short(text) {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

const notice = document.getElementById("notice");
const status = document.getElementById("status");

/** A sentence for everybody, with what can be done about it; or none. */
export function notify(text = "", ...buttons) {
  notice.replaceChildren(text, ...buttons);
  notice.hidden = !text;
}

/** A sentence for screen readers; said seldom. */
export function say(text) {
  status.textContent = text;
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The files that are pictures; says of the others that they are none. */
export async function picturesOf(files) {
  const pictures = [];
  for (const file of files) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (!bitmap) {
      notify(`${file.name || "That file"} is no picture that this browser can read. Choose a PNG, JPEG or WebP.`);
      continue;
    }
    bitmap.close();
    pictures.push(file);
  }
  // What went wrong before is over.
  if (pictures.length === files.length) notify();
  return pictures;
}
