// What survives a reload of this tab: what was typed, and pictures and photos where the browser has room.

const memory = {};

/** A small value of this tab, or null. */
export function recall(name) {
  if (name in memory) return memory[name];
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

export function note(name, value) {
  memory[name] = value;
  try {
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing, or has no room: it lasts as long as the page.
  }
}

function tab() {
  if (!recall("janus-tab")) note("janus-tab", crypto.getRandomValues(new Uint32Array(3)).join("-"));
  return recall("janus-tab");
}

/** Keeps what is typed into a form's fields, files excepted, where it differs from what the form has now. */
export function keepTyped(form) {
  const name = `janus-typed-${form.id}`;
  const fields = [...form.elements].filter((field) => field.name && field.type !== "file");
  const original = new Map(fields.map((field) => [field, field.value]));
  const kept = recall(name) ?? {};
  for (const field of fields) {
    if (!(field.name in kept)) continue;
    field.value = kept[field.name];
    // The server may have another model since, which does not offer it.
    if (field.value !== kept[field.name]) field.value = original.get(field);
  }
  const save = () => {
    const changed = fields.filter((field) => field.value !== original.get(field));
    note(name, Object.fromEntries(changed.map((field) => [field.name, field.value])));
  };
  form.addEventListener("input", save);
  return save;
}

const STORES = ["pictures", "kept"];

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("janus-rt", 1);
    asked.onupgradeneeded = () => {
      for (const name of STORES) asked.result.createObjectStore(name, { keyPath: "id" }).createIndex("at", "at");
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

/** Whether it could be done, and what it gave. */
async function run(name, mode, work) {
  try {
    const store = (await database()).transaction(name, mode).objectStore(name);
    const result = await new Promise((resolve, reject) => {
      const asked = work(store);
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
    return [true, result];
  } catch {
    return [false, null];
  }
}

const LONGEST_MS = 7 * 24 * 3600 * 1000;

/** Forgets what tabs kept that are long gone. */
export async function forgetOld() {
  const old = IDBKeyRange.upperBound(Date.now() - LONGEST_MS);
  for (const name of STORES) {
    const [, ids] = await run(name, "readonly", (store) => store.index("at").getAllKeys(old));
    for (const id of ids ?? []) run(name, "readwrite", (store) => store.delete(id));
  }
}

/** Pictures of this tab. */
export async function loadPictures() {
  const [, all] = await run("pictures", "readonly", (store) => store.getAll());
  return (all ?? []).filter((picture) => picture.tab === tab());
}

/** Whether the browser had room. */
export async function savePicture(picture) {
  return (await run("pictures", "readwrite", (store) => store.put({ ...picture, tab: tab() })))[0];
}

export function deletePicture(id) {
  run("pictures", "readwrite", (store) => store.delete(id));
}

/** A large value of this tab, such as its conversation, or undefined. */
export async function loadKept(name) {
  const [, kept] = await run("kept", "readonly", (store) => store.get(`${tab()} ${name}`));
  return kept?.value;
}

export function keep(name, value) {
  run("kept", "readwrite", (store) => store.put({ id: `${tab()} ${name}`, at: Date.now(), value }));
}
