// The server's public routes, as any client of them would use them.

const KEY = "janus-key";

/** An answer that is no success; `message` is a plain sentence with what to do. */
export class Refused extends Error {
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

let askForKey = async () => null;

/** `ask(refused)` gives a key, or null where none is given. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return { ...more, ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function request(path, options = {}) {
  for (;;) {
    const used = sessionStorage.getItem(KEY);
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
      if (sessionStorage.getItem(KEY) !== used) continue;
      const key = await askForKey(Boolean(used));
      if (!key) throw new Refused("This server wants an API key. Try again and enter it.", { status: 401 });
      sessionStorage.setItem(KEY, key);
      continue;
    }
    throw await refusal(response);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const said = body.error?.message ?? `The server answered with status ${response.status}.`;
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  const more = { status: response.status, code: body.error?.code ?? "", retryAfter };
  if (response.status === 429) return new Refused(`The server is busy. Try again${retryAfter ? ` in ${retryAfter} s` : " in a moment"}.`, more);
  if (response.status === 503) return new Refused("The server is stopping. Start it again, then try again.", more);
  if (response.status === 413) return new Refused(`That is too large for this server: ${said}`, more);
  return new Refused(sentence(said), more);
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
        if (event.error) throw new Refused(sentence(event.error.message), { code: event.error.code ?? "" });
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
