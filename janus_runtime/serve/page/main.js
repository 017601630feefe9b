// The page: which half is shown, what the bundle can, and the key that the server may want.

import { getJson, onKeyWanted } from "./api.js";
import { AskPanel } from "./ask.js";
import { DrawPanel } from "./draw.js";
import { Gallery } from "./gallery.js";
import { notify } from "./parts.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const keyDialog = document.getElementById("key");

function choose(tab, focus = true) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  sessionStorage.setItem("janus-shown", tab.id);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const shown = tabs.filter((other) => !other.hidden);
    choose(shown[(shown.indexOf(tab) + (event.key === "ArrowRight" ? 1 : shown.length - 1)) % shown.length]);
  });
}

let asking = null;

onKeyWanted((refused) => {
  asking ??= new Promise((resolve) => {
    document.getElementById("key-refused").hidden = !refused;
    const field = keyDialog.querySelector("input");
    field.value = "";
    keyDialog.returnValue = "";
    keyDialog.addEventListener(
      "close",
      () => {
        asking = null;
        resolve(keyDialog.returnValue === "ok" ? field.value.trim() : null);
      },
      { once: true },
    );
    keyDialog.showModal();
  });
  return asking;
});

/** Until the server says what it has; it may be started later than the page. */
async function findModel() {
  for (;;) {
    try {
      const [model] = (await getJson("v1/models")).data;
      notify();
      return model;
    } catch (error) {
      notify(error.message);
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}

const model = await findModel();
document.getElementById("model").textContent = model.id;
document.title = `${model.id} · janus-rt`;
const [drawTab, askTab] = tabs;
const canDraw = model.tasks.includes("generation");
const canAsk = model.tasks.includes("understanding");
drawTab.hidden = !canDraw;
askTab.hidden = !canAsk;

let draw = null;
let ask = null;
if (canDraw) {
  const actions = { "Use its settings": (picture) => draw.reuse(picture) };
  if (canAsk) {
    actions["Ask about it"] = ({ blob, prompt }) => {
      choose(askTab, false);
      ask.add([new File([blob], prompt, { type: blob.type })]);
    };
  }
  if (model.edits) actions["Draw from it"] = ({ blob }) => draw.use(blob);
  const gallery = new Gallery(actions);
  draw = new DrawPanel(model, gallery);
  gallery.load().then(() => draw.resume());
  const shapes = Number(model.size.split("x")[0]) <= 64;
  document.querySelector("[name=prompt]").placeholder = shapes ? "a red circle left of a blue square" : "a red fox in the snow";
}
if (canAsk) {
  const reference = (blob) => {
    choose(drawTab, false);
    draw.use(blob);
  };
  ask = new AskPanel(canDraw && model.edits ? reference : null);
}
const kept = document.getElementById(sessionStorage.getItem("janus-shown"));
choose(kept && !kept.hidden ? kept : canDraw ? drawTab : askTab, false);
// Where there is a keyboard: on a phone it would cover the page.
if (matchMedia("(pointer: fine)").matches) document.querySelector("[role=tabpanel]:not([hidden]) textarea").focus();
document.body.dataset.ready = "yes";
