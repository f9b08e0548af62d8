// What the console knows: one map per kind, filled by lists and kept current by one event stream. An event that is not
// newer than what is known is dropped. When the stream is lost it is taken up where it was; where that is not possible
// any more, everything is listed again.

import * as api from "./api.js";

const LISTS = {
  reservation: "/reservations",
  instance: "/instances",
  definition: "/definitions",
  worker: "/workers",
  pool: "/pools",
  template: "/templates",
  series: "/series",
};
const STAFF_ONLY = new Set(["worker", "pool", "template", "series"]);
const SILENCE = 45_000;
const FRESH = 2_500;
const TAIL = 1_000;

export class Live extends EventTarget {
  constructor(staff) {
    super();
    this.kinds = Object.keys(LISTS).filter((kind) => staff || !STAFF_ONLY.has(kind));
    this.resources = Object.fromEntries(Object.keys(LISTS).map((kind) => [kind, new Map()]));
    this.changed = new Map();
    this.latest = -FRESH;
    this.tail = [];
    this.state = "connecting";
    this.problem = "";
    this.lastId = "";
    this.stopped = new AbortController();
    this.cut = new AbortController();
    globalThis.addEventListener("offline", () => this.cut.abort());
  }

  of(kind) {
    return [...this.resources[kind].values()];
  }

  find(kind, id) {
    return this.resources[kind].get(id);
  }

  /** Whether nothing has changed for so long that nothing is highlighted. */
  quiet() {
    return performance.now() - this.latest > FRESH;
  }

  /** Whether it changed just now, and so is to be highlighted. */
  isFresh(kind, id) {
    return performance.now() - (this.changed.get(`${kind}/${id}`) ?? -FRESH) < FRESH;
  }

  stop() {
    this.stopped.abort();
  }

  async run() {
    let pause = 250;
    while (!this.stopped.signal.aborted) {
      try {
        await api.stream("/events/stream", {
          lastId: this.lastId,
          silence: SILENCE,
          signal: AbortSignal.any([this.stopped.signal, (this.cut = new AbortController()).signal]),
          opened: () => {
            pause = 250;
            if (this.lastId) this.say("live");
            else void this.relist();
          },
          told: (name, id, data) => this.take(name, id, data),
        });
        this.say("lost", "the stream ended");
      } catch (error) {
        if (this.stopped.signal.aborted) return;
        if (error.status === 401) {
          this.refuse(error.message);
          return;
        }
        this.say("lost", error.message);
      }
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 2, 5_000);
    }
  }

  /** Whoever this is may not read on. */
  refuse(problem) {
    this.stop();
    this.say("refused", problem);
  }

  say(state, problem = "") {
    if (this.state === state || this.state === "refused") return;
    this.state = state;
    this.problem = problem;
    this.dispatchEvent(new Event("state"));
  }

  async relist() {
    try {
      const lists = await Promise.all(this.kinds.map((kind) => api.list(LISTS[kind])));
      this.kinds.forEach((kind, at) => {
        const known = this.resources[kind];
        const listed = new Map(lists[at].items.map((one) => [one.metadata.id, one]));
        for (const [id, one] of known) {
          const other = listed.get(id);
          if (version(one) > BigInt(lists[at].revision) && !(other && version(other) > version(one))) listed.set(id, one);
        }
        this.resources[kind] = listed;
      });
      this.say("live");
      this.tell(new Set(this.kinds));
    } catch (error) {
      this.say("lost", error.message);
      setTimeout(() => this.stopped.signal.aborted || this.relist(), 1_000);
    }
  }

  take(name, id, text) {
    if (id) this.lastId = id;
    if (name === "reset") {
      void this.relist();
      return;
    }
    const event = JSON.parse(text);
    this.tail.push(event);
    if (this.tail.length > TAIL) this.tail.splice(0, this.tail.length - TAIL);
    if (event.dataref && !event.data) void this.relist(); // too large to be told
    const resource = event.data;
    const kind = resource?.kind?.replace(/^Worker(Pool|Template)$/, "$1").toLowerCase();
    if (!kind || !(kind in this.resources)) {
      this.tell(new Set());
      return;
    }
    const { previousPhase, ...whole } = resource;
    const key = whole.metadata.id;
    const sequence = BigInt(event.sequence ?? whole.metadata.resourceVersion ?? "0");
    const known = this.resources[kind].get(key);
    if (known && version(known) >= sequence) {
      this.tell(new Set());
      return;
    }
    if (event.type.endsWith(".deleted.v1")) this.resources[kind].delete(key);
    else {
      whole.metadata = { ...whole.metadata, resourceVersion: String(sequence) };
      this.resources[kind].set(key, whole);
      this.latest = performance.now();
      this.changed.set(`${kind}/${key}`, this.latest);
      setTimeout(() => this.dispatchEvent(new Event("faded")), FRESH + 50);
    }
    this.tell(new Set([kind]), whole);
  }

  /** `one`: what has changed, where it is a single resource. */
  tell(kinds, one = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: { kinds, one } }));
  }
}

const version = (resource) => BigInt(resource.metadata.resourceVersion || "0");
