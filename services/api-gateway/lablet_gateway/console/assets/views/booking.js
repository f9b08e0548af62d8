// Reserving seats, once or for a term: while one types, the what-if of the API tells whether it fits, why not, and the
// earliest slot.

import * as api from "../api.js";
import { h, whenQuiet } from "../dom.js";
import { iso, readSpan, readTime, showSlot, zone } from "../time.js";
import { REPEATS, onceOnly, ruleOf, termFields, termFit } from "../term.js";
import { dialog, field, note, trouble } from "../ui.js";
import { reasons } from "../words.js";

const PAUSE = 350;
const HEADS = { waitlisted: "Does not fit now: it would wait", rejected: "Cannot be placed" };

export function booking({ live, who }, given = {}) {
  const form = { definition: "", seats: "1", start: "in 30m", duration: "1h", pool: "", asap: false, roster: "", extendable: "0", ...onceOnly, ...given };
  const state = { fit: null, busy: false, error: null, checking: false };
  const names = [...new Set(live.of("definition").filter((one) => one.status.phase === "Published").map((one) => one.spec.name))].sort();
  if (!form.definition && names.length === 1) form.definition = names[0];
  let asked = new AbortController();
  let box;
  const again = () => box?.again();

  const body = () => {
    const faults = [];
    const duration = readSpan(form.duration);
    const asap = form.asap && !form.repeat;
    const start = asap ? null : readTime(form.start);
    let rule;
    if (!form.definition.trim()) faults.push("choose a definition");
    if (!asap && start === null) faults.push(`"${form.start}" is no time: write 14:30, tomorrow 09:00, in 2h or 2027-03-01 09:00`);
    if (!duration) faults.push(`"${form.duration}" is no length of time: write 90m, 1h30 or 2h`);
    if (!/^[1-9]\d?$|^100$/.test(form.seats.trim())) faults.push("seats: 1 to 100");
    try {
      rule = form.repeat ? ruleOf(form) : null;
    } catch (error) {
      faults.push(error.message);
    }
    if (faults.length) throw new Error(faults.join("; "));
    const users = form.roster.split(/[\s,;]+/).filter(Boolean);
    return {
      definition: form.definition.trim(),
      seats: Number(form.seats),
      durationMinutes: Math.round(duration / 60_000),
      ...(asap ? { asap: true } : { start: iso(start) }),
      ...(form.pool ? { pool: form.pool } : {}),
      ...(users.length ? { roster: users.map((user, at) => ({ seat: at + 1, user })) } : {}),
      ...(!form.repeat && Number(form.extendable) > 0 ? { extendableMinutes: Number(form.extendable) } : {}),
      ...(rule ? { rule, timezone: zone, mode: form.mode, exceptDates: form.except } : {}),
    };
  };

  const fitOf = async (wanted, signal) => {
    const headers = { "Idempotency-Key": api.randomKey() };
    if (wanted.rule) {
      const term = await (await api.call("POST", "/series?dryRun=true", { body: wanted, signal, headers })).json();
      return { term, kind: term.granted ? (term.dates.every((one) => one.fits) ? "placed" : "partly") : "rejected" };
    }
    const found = (await (await api.call("POST", "/reservations:simulate", { body: wanted, signal, headers })).json()).reservations[0];
    return { ...found, words: reasons(found.explanation), kind: found.outcome };
  };

  const check = whenQuiet(async () => {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    try {
      state.fit = await fitOf(body(), signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      state.fit = { words: [error.message, ...(error.errors ?? []).map((one) => `${one.path}: ${one.message}`)], kind: "unknown" };
    }
    state.checking = false;
    again();
  }, PAUSE);

  const put = (name, value) => {
    form[name] = value;
    state.checking = true;
    state.error = null;
    again();
    check();
  };
  const edit = (name) => (event) => put(name, event.target.type === "checkbox" ? event.target.checked : event.target.value);

  const send = async (event) => {
    event.preventDefault();
    state.busy = true;
    state.error = null;
    again();
    try {
      const wanted = body();
      const place = wanted.rule ? "series" : "reservations";
      const { decided, resource } = await api.ask("POST", `/${place}`, { body: wanted, wait: wanted.rule ? 25 : 10 });
      note(decided ? `${resource.metadata.id} is ${resource.status.phase}` : "Accepted; the decision follows");
      box.close();
      if (decided) location.hash = `#/${place}/${resource.metadata.id}`;
    } catch (error) {
      state.error = error;
    } finally {
      state.busy = false;
      again();
    }
  };

  const fitWords = () => {
    const { fit } = state;
    if (!fit) return h("p", {}, "Whether it fits is told here while you type.");
    if (fit.term) return termFit(fit.term, form, put);
    const earliest = fit.explanation?.earliest;
    return [
      h("b", { key: "head" }, fit.kind === "placed" ? `Fits: ${showSlot(fit.slot)}` : (HEADS[fit.kind] ?? "Not complete yet")),
      fit.words.map((line, at) => h("p", { key: at }, line)),
      fit.kind !== "placed" && earliest
        ? h("button", { type: "button", key: "use", onclick: () => {
            form.asap = false;
            put("start", earliest.start);
          } }, `Use ${showSlot(earliest)}`)
        : null,
    ];
  };

  const sendWords = () => {
    if (state.busy) return "…";
    if (form.repeat) return state.fit?.kind === "partly" ? "Book what fits" : "Book the series";
    return state.fit?.kind === "waitlisted" ? "Put on the wait list" : "Reserve";
  };

  box = dialog(
    "Reserve seats",
    (_, close) =>
      h(
        "form",
        { class: "booking", onsubmit: send },
        h(
          "div",
          { class: "columns" },
          field("Definition", h("input", { name: "definition", list: "definition-names", value: form.definition, required: true, autocomplete: "off", oninput: edit("definition") })),
          h("datalist", { id: "definition-names" }, names.map((name) => h("option", { key: name, value: name }))),
          field("Seats", h("input", { name: "seats", type: "number", min: 1, max: 100, value: form.seats, oninput: edit("seats") })),
          field("Starts", h("input", { name: "start", value: form.start, disabled: form.asap && !form.repeat, oninput: edit("start") }), "14:30, tomorrow 09:00, fri 10:00, in 2h"),
          field("Lasts", h("input", { name: "duration", value: form.duration, oninput: edit("duration") }), "90m, 1h30, 2h"),
          field("Pool", h("select", { name: "pool", value: form.pool, onchange: edit("pool") }, h("option", { value: "" }, "default"), live.of("pool").filter((one) => one.metadata.id !== "default").map((one) => h("option", { key: one.metadata.id, value: one.metadata.id }, one.metadata.id)))),
          field("Roster", h("input", { name: "roster", value: form.roster, oninput: edit("roster") }), "names in the order of the seats; may stay empty"),
          who?.role === "learner"
            ? null
            : field("Repeats", h("select", { name: "repeat", value: form.repeat, onchange: edit("repeat") }, Object.entries(REPEATS).map(([value, words]) => h("option", { key: value, value }, words)))),
          form.repeat ? null : field("Seats may ask for", h("select", { name: "extendable", value: form.extendable, onchange: edit("extendable") }, ["0", "15", "30", "60"].map((minutes) => h("option", { key: minutes, value: minutes }, minutes === "0" ? "no more time" : `${minutes} minutes more`)))),
        ),
        form.repeat
          ? termFields(form, put)
          : h("label", { class: "check-line", key: "asap" }, h("input", { type: "checkbox", checked: form.asap, onchange: edit("asap") }), " as soon as possible"),
        h("div", { class: `fit ${state.fit?.kind ?? "unknown"}`, role: "status", "aria-busy": state.checking ? "true" : "false" }, fitWords()),
        trouble(state.error),
        state.error?.explanation ? h("div", { class: "why" }, reasons(state.error.explanation).map((line, at) => h("p", { key: at }, line))) : null,
        h(
          "footer",
          {},
          h("button", { type: "button", onclick: close }, "Back"),
          h("button", { class: "primary", disabled: state.busy }, sendWords()),
        ),
      ),
    { ended: () => {
      asked.abort();
      check.cancel();
    } },
  );
  if (form.definition) check();
}
