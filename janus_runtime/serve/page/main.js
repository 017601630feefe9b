// The page: which half is shown, what the bundle can, and where photos go that are pasted or dropped.

import { getJson } from "./api.js";
import { AskPanel } from "./ask.js";
import { DrawPanel } from "./draw.js";
import { Gallery } from "./gallery.js";
import { button, notify, short } from "./parts.js";
import { forgetOld, note, recall } from "./store.js";
import { Undo } from "./undo.js";

const SHOWN = "janus-shown";
// How long until a server that does not answer is asked again.
const PAUSE_MS = 3000;

const tabs = [...document.querySelectorAll("[role=tab]")];
const [drawTab, askTab] = tabs;

function choose(tab, focus = true) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  note(SHOWN, tab.id);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const shown = tabs.filter((other) => !other.hidden);
    // There are two: the next one is also the one before.
    choose(shown[(shown.indexOf(tab) + 1) % shown.length]);
  });
}

/** Until the server says what it has; it may be started later than the page. */
async function findModel() {
  let told;
  for (;;) {
    try {
      const [model] = (await getJson("v1/models")).data;
      notify();
      return model;
    } catch (error) {
      if (error.status === 401) {
        await new Promise((resolve) => notify("This server wants an API key. ", button("Enter it", resolve)));
        continue;
      }
      // Said again, it would be read out again.
      if (error.message !== told) notify((told = error.message));
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

const model = await findModel();
document.getElementById("model").textContent = model.id;
document.title = `${model.id} · janus-rt`;
const canDraw = model.tasks.includes("generation");
const canAsk = model.tasks.includes("understanding");
drawTab.hidden = !canDraw;
askTab.hidden = !canAsk;

await forgetOld();

let draw = null;
let ask = null;
if (canDraw) {
  const actions = { "Reuse settings": (picture) => draw.reuse(picture) };
  if (canAsk) {
    actions["Ask about it"] = ({ blob, prompt }) => {
      choose(askTab, false);
      ask.add([new File([blob], short(prompt), { type: blob.type })]);
    };
  }
  if (model.edits) actions["Draw from it"] = ({ blob }) => draw.use([blob]);
  const gallery = new Gallery(actions, new Undo(document.getElementById("gallery-head")));
  draw = new DrawPanel(model, gallery, new Undo(document.getElementById("typed")));
  await gallery.load();
  draw.resume();
}
if (canAsk) {
  const reference = (blob) => {
    choose(drawTab, false);
    draw.use([blob]);
  };
  ask = new AskPanel(model, canDraw && model.edits ? reference : null, new Undo(document.getElementById("ask")));
  await ask.restore();
}

/** Takes photos to where they can be used. */
function take(files) {
  if (!files.length) return;
  if (model.edits && !document.getElementById("draw").hidden) draw.use(files);
  else if (canAsk) {
    choose(askTab, false);
    ask.add(files);
  } else notify("This model draws only; it cannot look at photos.");
}

function dragging(event) {
  const isFile = event.dataTransfer.types.includes("Files");
  // Else the browser would show a dropped file in place of the page.
  if (isFile) event.preventDefault();
  document.body.classList.toggle("dropping", isFile && event.type === "dragover");
}

document.addEventListener("dragover", dragging);
document.addEventListener("dragleave", dragging);
document.addEventListener("drop", (event) => {
  dragging(event);
  take([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])]));

const kept = document.getElementById(recall(SHOWN));
choose(kept && !kept.hidden ? kept : canDraw ? drawTab : askTab, false);
// Where there is a keyboard: on a phone it would cover the page.
if (matchMedia("(pointer: fine)").matches) document.querySelector("[role=tabpanel]:not([hidden]) textarea").focus();
document.body.dataset.ready = "yes";
