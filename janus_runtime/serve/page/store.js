// What survives a reload of this tab: what was typed, and the pictures, where the browser has room.

const TAB = "janus-tab";

function tab() {
  let name = sessionStorage.getItem(TAB);
  if (!name) {
    name = crypto.getRandomValues(new Uint32Array(3)).join("-");
    sessionStorage.setItem(TAB, name);
  }
  return name;
}

/** Keeps what is typed into a form's fields, files excepted. */
export function keepTyped(form) {
  const name = `janus-typed-${form.id}`;
  const fields = [...form.elements].filter((field) => field.name && field.type !== "file");
  try {
    const kept = JSON.parse(sessionStorage.getItem(name) ?? "{}");
    for (const field of fields) if (field.name in kept) field.value = kept[field.name];
  } catch {
    sessionStorage.removeItem(name);
  }
  const save = () => {
    try {
      sessionStorage.setItem(name, JSON.stringify(Object.fromEntries(fields.map((field) => [field.name, field.value]))));
    } catch {
      // No room: it stays on the page until the tab is closed.
    }
  };
  form.addEventListener("input", save);
  return save;
}

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("janus", 2);
    asked.onupgradeneeded = () => {
      for (const [name, keyPath] of [["pictures", "id"], ["talks", "tab"]]) {
        if (!asked.result.objectStoreNames.contains(name)) asked.result.createObjectStore(name, { keyPath });
      }
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

async function run(mode, work, name = "pictures") {
  try {
    const store = (await database()).transaction(name, mode).objectStore(name);
    return await new Promise((resolve, reject) => {
      const asked = work(store);
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
  } catch {
    // A browser without room, or in private mode: pictures last as long as the page.
    return null;
  }
}

const LONGEST_MS = 7 * 24 * 3600 * 1000;

/** Pictures of this tab, oldest first; those of tabs that are long gone are forgotten. */
export async function loadPictures() {
  const all = (await run("readonly", (pictures) => pictures.getAll())) ?? [];
  for (const picture of all) if (Date.now() - picture.at > LONGEST_MS) deletePicture(picture.id);
  return all.filter((picture) => picture.tab === tab()).sort((a, b) => a.at - b.at);
}

export function savePicture(picture) {
  return run("readwrite", (pictures) => pictures.put({ ...picture, tab: tab() }));
}

export function deletePicture(id) {
  return run("readwrite", (pictures) => pictures.delete(id));
}

/** The conversation of this tab, as it is sent to the server. */
export async function loadTalk() {
  return (await run("readonly", (talks) => talks.get(tab()), "talks"))?.messages ?? [];
}

export function saveTalk(messages) {
  return run("readwrite", (talks) => talks.put({ tab: tab(), messages }), "talks");
}
