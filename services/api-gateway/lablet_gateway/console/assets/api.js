// The public API, with the caller's token. Errors are problem documents; a failed connection says so.

import * as session from "./session.js";

export const PREFIX = "/api/v1";

export class Problem extends Error {
  constructor(status, document, retryAfter) {
    super(document.detail || document.title || `the server answered ${status}`);
    this.status = status;
    this.document = document;
    this.errors = document.errors ?? [];
    this.explanation = document.explanation;
    this.retryAfter = retryAfter;
  }
}

export class Unreachable extends Error {
  constructor() {
    super("the server cannot be reached");
  }
}

export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The raw answer; raises Problem or Unreachable. */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (body !== undefined && !(body instanceof Blob)) {
    body = JSON.stringify(body);
    sent["Content-Type"] = "application/json";
  }
  const send = async () => {
    try {
      const token = await session.bearer();
      if (token) sent.Authorization = `Bearer ${token}`;
      return await fetch(PREFIX + path, { method, body, headers: sent, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable();
    }
  };
  let answer = await send();
  if (answer.status === 401 && (await session.another())) answer = await send();
  if (answer.ok) return answer;
  const text = await answer.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    document = { title: text.slice(0, 200) || answer.statusText };
  }
  throw new Problem(answer.status, document, answer.headers.get("Retry-After"));
}

export const get = async (path, options) => (await call("GET", path, options)).json();

/** Everything of a list, page by page; with the revision that the first page was read at. */
export async function list(path, params = {}) {
  const items = [];
  let cursor = "";
  let revision = "0";
  do {
    const query = new URLSearchParams({ limit: "500", ...params, ...(cursor ? { cursor } : {}) });
    const page = await get(`${path}?${query}`);
    items.push(...page.items);
    if (!cursor && page.resourceVersion) revision = page.resourceVersion;
    cursor = page.nextCursor ?? "";
  } while (cursor);
  return { items, revision };
}

/** Asks for a change and waits for its decision. Gives `{resource, request}`; a refusal raises its Problem. */
export async function ask(method, path, { body, version, headers = {}, wait = 10 } = {}) {
  const answer = await call(method, path, {
    body,
    headers: {
      Prefer: `wait=${wait}`,
      "Idempotency-Key": randomKey(),
      ...(version ? { "If-Match": `"${version}"` } : {}),
      ...headers,
    },
  });
  const text = await answer.text();
  return { decided: answer.status !== 202, location: answer.headers.get("Location"), resource: text ? JSON.parse(text) : null };
}

/** Saves an object of the store as a file. */
export async function download(path, name) {
  const answer = await call("GET", path);
  const address = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  URL.revokeObjectURL(address);
}

/** One connection to the event stream. Calls `opened` at its first sign of life, then `told(event name, id, data)` for
 * each message and `passed(id)` for a place without one; returns when it ends. `silence` is the longest pause (ms) before it
 * counts as dead. */
export async function stream(path, { lastId, opened, told, passed, signal, silence }) {
  const control = new AbortController();
  signal.addEventListener("abort", () => control.abort(), { once: true });
  let watchdog = setTimeout(() => control.abort(), silence);
  try {
    const answer = await call("GET", path, {
      headers: { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) },
      signal: control.signal,
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let open = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => control.abort(), silence);
      if (!open) {
        open = true;
        opened();
      }
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const message = { event: "message", id: "", data: "" };
        for (const line of block.split("\n")) {
          const at = line.indexOf(":");
          if (at > 0) message[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
        }
        if (message.data) told(message.event, message.id, message.data);
        else if (message.id) passed(message.id);
      }
    }
  } finally {
    clearTimeout(watchdog);
  }
}
