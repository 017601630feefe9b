// The server's public routes, as any client of them would use them.

import { askForKey } from "./key.js";
import { note, recall } from "./store.js";

const KEY = "janus-key";

/** An answer that is no success; `message` is a plain sentence with what to do. */
export class Refused extends Error {
  constructor(message, { status = 0, code = "" }) {
    super(message);
    Object.assign(this, { status, code });
  }
}

function headers(more) {
  const key = recall(KEY);
  return { ...more, ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function request(path, options = {}) {
  for (;;) {
    const used = recall(KEY);
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Refused("The server does not answer. See that it runs, then try again; what you typed is still here.", { code: "gone" });
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // Somebody else on this page may have given a key meanwhile.
      if (recall(KEY) !== used) continue;
      const key = await askForKey(Boolean(used));
      if (!key) throw new Refused("This server wants an API key. Try again and enter it.", { status: 401 });
      note(KEY, key);
      continue;
    }
    throw await refusal(response);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const { message = `the server answered with status ${response.status}`, code = "" } = body.error ?? {};
  const seconds = Number(response.headers.get("retry-after"));
  const { status } = response;
  if (status === 429) return new Refused(`The server is busy. Try again ${seconds ? `in ${seconds} s` : "in a moment"}.`, { status, code: "busy" });
  if (status === 413) return new Refused(`That is too large for this server: ${sentence(message)}`, { status, code });
  return refused(message, code, status);
}

/** What the server says of a request, in words of somebody who looks at a page. */
function refused(message, code, status) {
  if (code === "stopping") return new Refused("The server is stopping. Start it again, then try again.", { status, code });
  return new Refused(sentence(message), { status, code });
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

export async function getJson(path) {
  return (await request(path)).json();
}

/** Posts JSON or a form and yields the data of each event of the answer. */
export async function* stream(path, body, signal) {
  const isForm = body instanceof FormData;
  const response = await request(path, {
    method: "POST",
    signal,
    body: isForm ? body : JSON.stringify(body),
    headers: isForm ? {} : { "content-type": "application/json" },
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new Refused("The server went away in the middle. Start it again, then try again.", { code: "gone" });
      }
      if (part.done) break;
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue;
        const data = line.slice(6);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw refused(event.error.message, event.error.code);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
