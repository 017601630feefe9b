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

const notice = document.getElementById("notice");
const status = document.getElementById("status");

/** A sentence for everybody, or none. */
export function notify(text = "") {
  notice.textContent = text;
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

/** Pictures among what was chosen, pasted or dropped. */
export function picturesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}
