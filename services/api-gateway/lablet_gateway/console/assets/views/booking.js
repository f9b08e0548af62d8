// Reserving seats: while one types, the what-if of the API tells whether it fits, why not, and the earliest slot.

import * as api from "../api.js";
import { h, whenQuiet } from "../dom.js";
import { iso, readSpan, readTime, showSlot } from "../time.js";
import { dialog, field, note, trouble } from "../ui.js";
import { reasons } from "../words.js";

const PAUSE = 350;

export function booking({ live }, given = {}) {
  const form = { definition: "", seats: "1", start: "in 30m", duration: "1h", pool: "", asap: false, roster: "", ...given };
  const state = { fit: null, busy: false, error: null, checking: false };
  const names = [...new Set(live.of("definition").filter((one) => one.status.phase === "Published").map((one) => one.spec.name))].sort();
  if (!form.definition && names.length === 1) form.definition = names[0];
  let asked = new AbortController();

  const body = () => {
    const faults = [];
    const duration = readSpan(form.duration);
    const start = form.asap ? null : readTime(form.start);
    if (!form.definition.trim()) faults.push("choose a definition");
    if (!form.asap && start === null) faults.push(`"${form.start}" is no time: write 14:30, tomorrow 09:00, in 2h or 2027-03-01 09:00`);
    if (!duration) faults.push(`"${form.duration}" is no length of time: write 90m, 1h30 or 2h`);
    if (!/^[1-9]\d?$|^100$/.test(form.seats.trim())) faults.push("seats: 1 to 100");
    if (faults.length) throw new Error(faults.join("; "));
    const users = form.roster.split(/[\s,;]+/).filter(Boolean);
    return {
      definition: form.definition.trim(),
      seats: Number(form.seats),
      durationMinutes: Math.round(duration / 60_000),
      ...(form.asap ? { asap: true } : { start: iso(start) }),
      ...(form.pool ? { pool: form.pool } : {}),
      ...(users.length ? { roster: users.map((user, at) => ({ seat: at + 1, user })) } : {}),
    };
  };

  dialog(
    "Reserve seats",
    (again, close) => {
      const check = whenQuiet(async () => {
        asked.abort();
        asked = new AbortController();
        const { signal } = asked;
        let wanted;
        try {
          wanted = body();
        } catch (error) {
          state.fit = { words: [error.message], kind: "unknown" };
          state.checking = false;
          again();
          return;
        }
        try {
          const answer = await api.call("POST", "/reservations:simulate", { body: wanted, signal, headers: { "Idempotency-Key": api.randomKey() } });
          const found = (await answer.json()).reservations?.[0];
          if (found) state.fit = { ...found, words: reasons(found.explanation), kind: found.outcome };
        } catch (error) {
          if (error.name === "AbortError") return;
          state.fit = { words: [error.message, ...(error.errors ?? []).map((one) => `${one.path}: ${one.message}`)], kind: "unknown" };
        }
        state.checking = false;
        again();
      }, PAUSE);
      const edit = (name) => (event) => {
        form[name] = event.target.type === "checkbox" ? event.target.checked : event.target.value;
        state.checking = true;
        state.error = null;
        again();
        check();
      };
      if (!state.begun) {
        state.begun = true;
        if (form.definition) check();
      }
      const earliest = state.fit?.explanation?.earliest;
      return h(
        "form",
        {
          class: "booking",
          onsubmit: async (event) => {
            event.preventDefault();
            try {
              state.busy = true;
              state.error = null;
              again();
              const { decided, resource } = await api.ask("POST", "/reservations", { body: body() });
              note(decided ? `${resource.metadata.id} is ${resource.status.phase}` : "Accepted; the decision follows");
              close();
              if (decided) location.hash = `#/reservations/${resource.metadata.id}`;
            } catch (error) {
              state.error = error;
            } finally {
              state.busy = false;
              again();
            }
          },
        },
        h(
          "div",
          { class: "columns" },
          field("Definition", h("input", { name: "definition", list: "definition-names", value: form.definition, required: true, oninput: edit("definition") })),
          h("datalist", { id: "definition-names" }, names.map((name) => h("option", { key: name, value: name }))),
          field("Seats", h("input", { name: "seats", type: "number", min: 1, max: 100, value: form.seats, oninput: edit("seats") })),
          field("Starts", h("input", { name: "start", value: form.start, disabled: form.asap, oninput: edit("start") }), "14:30, tomorrow 09:00, fri 10:00, in 2h"),
          field("Lasts", h("input", { name: "duration", value: form.duration, oninput: edit("duration") }), "90m, 1h30, 2h"),
          field("Pool", h("select", { name: "pool", value: form.pool, onchange: edit("pool") }, h("option", { value: "" }, "default"), live.of("pool").filter((one) => one.metadata.id !== "default").map((one) => h("option", { key: one.metadata.id, value: one.metadata.id }, one.metadata.id)))),
          field("Roster", h("input", { name: "roster", value: form.roster, oninput: edit("roster") }), "names in the order of the seats; may stay empty"),
        ),
        h("label", {}, h("input", { type: "checkbox", checked: form.asap, onchange: edit("asap") }), " as soon as possible"),
        h(
          "div",
          { class: `fit ${state.fit?.kind ?? "unknown"}`, role: "status", "aria-busy": state.checking ? "true" : "false" },
          state.fit
            ? [
                h("b", { key: "head" }, { placed: `Fits: ${showSlot(state.fit.slot)}`, waitlisted: "Does not fit now: it would wait", rejected: "Cannot be placed" }[state.fit.kind] ?? "Not complete yet"),
                state.fit.words.map((line, at) => h("p", { key: at }, line)),
                state.fit.kind !== "placed" && earliest
                  ? h("button", { type: "button", key: "use", onclick: () => {
                      form.start = earliest.start;
                      form.asap = false;
                      again();
                      check();
                    } }, `Use ${showSlot(earliest)}`)
                  : null,
              ]
            : h("p", {}, "Whether it fits is told here while you type."),
        ),
        trouble(state.error),
        state.error?.explanation ? h("div", { class: "why" }, reasons(state.error.explanation).map((line, at) => h("p", { key: at }, line))) : null,
        h(
          "footer",
          {},
          h("button", { type: "button", onclick: close }, "Back"),
          h("button", { class: "primary", disabled: state.busy }, state.busy ? "…" : state.fit?.kind === "waitlisted" ? "Put on the wait list" : "Reserve"),
        ),
      );
    },
    { ended: () => asked.abort() },
  );
}
