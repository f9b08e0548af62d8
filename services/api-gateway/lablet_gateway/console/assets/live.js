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
const AWAY = 2_000;

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
    this.connected = false;
    this.listing = false;
    this.stale = false;
    this.readers = 0;
    this.gone = new Map();
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
            this.connected = true;
            clearTimeout(this.away);
            if (!this.lastId) void this.relist();
            else if (!this.listing) this.say("live");
          },
          told: (name, id, data) => this.take(name, id, data),
          passed: (id) => {
            this.lastId = id;
          },
        });
        // the server ends it when it stops, and when the token has had its time: the next attempt knows which
        this.away = setTimeout(() => this.say("lost", "the stream ended"), AWAY);
      } catch (error) {
        if (this.stopped.signal.aborted) return;
        if (error.status === 401) {
          this.refuse(error.message);
          return;
        }
        this.say("lost", error.name === "AbortError" ? "nothing is heard of the server" : error.message);
      }
      this.connected = false;
      await wait(pause);
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

  /** Lists everything anew, until that succeeds; what asks for it meanwhile has it done once more. */
  async relist() {
    this.stale = true;
    if (this.listing) return;
    this.listing = true;
    while (this.stale && !this.stopped.signal.aborted) {
      this.stale = false;
      try {
        await this.reading(() => this.list());
        if (this.connected) this.say("live");
        this.tell(new Set(this.kinds));
      } catch (error) {
        this.stale = true;
        if (error.status === 401) this.refuse(error.message);
        else this.say("lost", error.message);
        await wait(1_000);
      }
    }
    this.listing = false;
  }

  async list() {
    const lists = await Promise.all(this.kinds.map((kind) => api.list(LISTS[kind])));
    this.kinds.forEach((kind, at) => {
      const known = this.resources[kind];
      const listed = new Map(lists[at].items.filter((one) => !this.isGone(kind, one)).map((one) => [one.metadata.id, one]));
      for (const [id, one] of known) {
        const other = listed.get(id);
        if (version(one) > BigInt(lists[at].revision) && !(other && version(other) > version(one))) listed.set(id, one);
      }
      this.resources[kind] = listed;
    });
  }

  /** While something is read, what goes meanwhile is remembered: the answer may still have it. */
  async reading(work) {
    this.readers += 1;
    try {
      return await work();
    } finally {
      this.readers -= 1;
      if (!this.readers) this.gone.clear();
    }
  }

  isGone(kind, one) {
    return (this.gone.get(`${kind}/${one.metadata.id}`) ?? -1n) >= version(one);
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
    const [kind, ...rest] = (event.subject ?? "").split("/");
    const key = rest.join("/");
    const own = event.type.startsWith(`io.lablet.${kind}.`) && kind in this.resources;
    const known = own ? this.resources[kind].get(key) : null;
    const sequence = BigInt(event.sequence ?? event.data?.metadata?.resourceVersion ?? "0");
    if (!own || (known && version(known) >= sequence)) {
      this.tell(new Set());
      return;
    }
    if (event.type.endsWith(".deleted.v1")) {
      this.resources[kind].delete(key);
      if (this.readers) this.gone.set(`${kind}/${key}`, sequence);
      this.tell(new Set([kind]), event.data ?? null);
    } else if (event.data) {
      const { previousPhase, ...whole } = event.data;
      this.put(kind, { ...whole, metadata: { ...whole.metadata, resourceVersion: String(sequence) } });
    } else void this.read(kind, event.dataref);
  }

  /** Something that was too large to be told. */
  async read(kind, address) {
    try {
      const one = await this.reading(() => api.get(address.replace(api.PREFIX, "")));
      const known = this.resources[kind].get(one.metadata.id);
      if (!this.isGone(kind, one) && !(known && version(known) >= version(one))) this.put(kind, one);
    } catch (error) {
      if (error.status !== 404) void this.relist();
    }
  }

  put(kind, one) {
    const key = one.metadata.id;
    const at = performance.now();
    this.resources[kind].set(key, one);
    this.latest = at;
    this.changed.set(`${kind}/${key}`, at);
    setTimeout(() => {
      if (this.changed.get(`${kind}/${key}`) === at) this.changed.delete(`${kind}/${key}`);
      this.dispatchEvent(new Event("faded"));
    }, FRESH + 50);
    this.tell(new Set([kind]), one);
  }

  /** `one`: what has changed, where it is a single resource. */
  tell(kinds, one = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: { kinds, one } }));
  }
}

const version = (resource) => BigInt(resource.metadata.resourceVersion || "0");
const wait = (pause) => new Promise((done) => setTimeout(done, pause));
