// Asks for the API key, once for all who want it meanwhile.

const dialog = document.getElementById("key");
const field = dialog.querySelector("input");

let asking = null;

/** A key, or null where none is given. `refused`: the one before was wrong. */
export function askForKey(refused) {
  asking ??= new Promise((resolve) => {
    document.getElementById("key-refused").hidden = !refused;
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        resolve(dialog.returnValue === "ok" ? field.value.trim() : null);
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}
