// The fleet: phases, what is taken, and what operators do with a worker.

import * as api from "../api.js";
import { atMost, h, whenQuiet } from "../dom.js";
import { addDays, dayOf, iso, ms, now, readSpan, readTime, showAgo, showSlot, showTime } from "../time.js";
import { act, badge, check, confirmFirst, empty, facts, field, head, link, meter, moves, note, search, table } from "../ui.js";
import { runsFleet } from "../words.js";

export function workers({ live, who, draw }) {
  const mayOperate = runsFleet(who);
  let calendars = new Map();
  const loads = new Map();
  let text = "";

  const load = async () => {
    const from = iso(dayOf(now()));
    const to = iso(addDays(dayOf(now()), 1));
    const found = new Map();
    for (const pool of live.of("pool")) {
      try {
        const calendar = await api.get(`/pools/${pool.metadata.id}/calendar?from=${from}&to=${to}`);
        calendar.workers.forEach((one) => found.set(one.worker, one));
      } catch (error) {
        note(`The calendar of ${pool.metadata.id}: ${error.message}`, "bad");
      }
    }
    calendars = found;
    draw();
  };
  const soon = atMost(load, 2_000);
  soon();

  const drain = (name) => {
    const wanted = { at: "", until: "", deadline: "", message: "", force: false };
    const state = { plan: null, words: "" };
    const body = () => {
      const found = { message: wanted.message, force: wanted.force };
      for (const edge of ["at", "until"]) {
        if (!wanted[edge].trim()) continue;
        const at = readTime(wanted[edge]);
        if (at === null) throw new Error(`"${wanted[edge]}" is no time: write 14:30, tomorrow 09:00 or in 2h`);
        found[edge] = iso(at);
      }
      if (wanted.deadline.trim()) {
        const span = readSpan(wanted.deadline);
        if (span === null) throw new Error(`"${wanted.deadline}" is no length of time: write 4h or 30m`);
        found.deadlineMinutes = Math.round(span / 60_000);
      }
      return found;
    };
    const look = whenQuiet(async (again) => {
      try {
        state.plan = await (await api.call("POST", `/workers/${name}/drain?dryRun=true`, { body: body() })).json();
        state.words = "";
      } catch (error) {
        state.plan = null;
        state.words = error.message;
      }
      again();
    }, 350);
    const input = (key, label, hint) => (again) =>
      field(label, h("input", { name: key, value: wanted[key], oninput: (event) => {
        wanted[key] = event.target.value;
        again();
        look(again);
      } }), hint);
    const fields = [input("at", "From", "empty: now"), input("until", "Until", "empty: until it is ended by hand"), input("deadline", "Labs may run on for", "4h, 30m; empty: as the template says"), input("message", "Message")];
    confirmFirst(
      `Drain ${name}`,
      "Nothing new is placed in that span. Labs run to their end or the deadline; their work is collected. Bookings in the span move.",
      "Drain",
      async () => {
        await api.ask("POST", `/workers/${name}/drain`, { body: body() });
        note(`${name} is being drained`);
      },
      {
        fields: (again) => {
          if (!state.begun) {
            state.begun = true;
            look(again);
          }
          return [
            h("div", { class: "columns" }, fields.map((one) => one(again))),
            check("end running labs now, after collecting", wanted.force, (on) => {
              wanted.force = on;
              look(again);
            }),
            h("div", { class: "fit", role: "status" }, state.plan ? planWords(state.plan) : h("p", {}, state.words || "What would happen is told here.")),
          ];
        },
      },
    );
  };

  const planWords = (plan) => {
    const fates = [["moves", "to be moved"], ["stays", "running to their end"], ["ends", "ended at the deadline"]];
    const counted = fates.map(([fate, words]) => [plan.seats.filter((seat) => seat.fate === fate).length, words]).filter(([count]) => count);
    return [
      h("b", { key: "head" }, plan.seats.length ? `${plan.seats.length} ${plan.seats.length === 1 ? "seat is" : "seats are"} on it: ${counted.map(([count, words]) => `${count} ${words}`).join(", ")}` : "Nothing is on it then."),
      h("p", { key: "span" }, `${showSlot({ start: plan.from, end: plan.to })}${plan.deadline ? `; what still runs ends by ${showTime(plan.deadline)}` : "; no lab is ended"}`),
    ];
  };

  /** How far a drain is: the labs that are left, and how long they may go on. */
  const progress = (one, labs) => {
    const span = one.spec.maintenance.find((rest) => ms(rest.from) <= now() && now() < ms(rest.to));
    if (one.status.phase !== "Draining" && !(span && labs.length)) return null;
    const began = ms(span?.from ?? one.status.history.findLast((move) => move.to === "Draining")?.at ?? now());
    const deadline = span?.deadline ?? one.status.deadline;
    const last = labs.length ? Math.max(...labs.map((lab) => ms(lab.spec.end))) : now();
    const end = Math.min(deadline ? ms(deadline) : Infinity, last);
    return h(
      "div",
      { class: "drain" },
      h("p", { class: "warning" }, labs.length ? `${labs.length} ${labs.length === 1 ? "lab" : "labs"} still on it, the last until ${showTime(end)}${deadline ? `; the deadline is ${showTime(deadline)}, ${showAgo(deadline)}` : ""}` : "It is empty and goes off."),
      h("progress", { max: 100, value: labs.length ? Math.min(99, Math.round((100 * (now() - began)) / Math.max(1, end - began))) : 100, "aria-label": `Drain of ${one.metadata.id}` }),
    );
  };

  const cordon = (name) => {
    const wanted = { reason: "" };
    confirmFirst(`Cordon ${name}`, "Nothing new is placed on it; what runs or is booked stays.", "Cordon", async () => {
      await api.ask("POST", `/workers/${name}/cordon`, { body: { reason: wanted.reason } });
      note(`${name} is cordoned`);
    }, { fields: (again) => field("Reason", h("input", { name: "reason", required: true, value: wanted.reason, oninput: (event) => {
      wanted.reason = event.target.value;
      again();
    } })) });
  };

  const post = (name, verb, words) => act(words, () => api.ask("POST", `/workers/${name}/${verb}`, { body: {} }));

  const actions = (one) => {
    if (!mayOperate) return null;
    const name = one.metadata.id;
    return h(
      "div",
      { class: "actions" },
      one.status.phase === "Draining" || one.spec.maintenance.length
        ? h("button", { type: "button", onclick: () => post(name, "cancel-drain", "The drain is cancelled") }, "Cancel drain")
        : h("button", { type: "button", onclick: () => drain(name) }, "Drain"),
      one.spec.unschedulable
        ? h("button", { type: "button", onclick: () => post(name, "uncordon", `${name} takes seats again`) }, "Uncordon")
        : h("button", { type: "button", onclick: () => cordon(name) }, "Cordon"),
      h("button", { type: "button", onclick: () => confirmFirst(`Replace ${name}?`, "It is drained, then gets a new machine.", "Replace", () => api.ask("POST", `/workers/${name}/replace`, { body: {} })) }, "Replace"),
    );
  };

  const bars = (one) => {
    const taken = calendars.get(one.metadata.id)?.allocated ?? { cpuCores: 0, memoryGb: 0, nodes: 0 };
    return [
      meter("CPU", taken.cpuCores, one.spec.capacity.cpuCores),
      meter("Memory", taken.memoryGb, one.spec.capacity.memoryGb, " GB"),
      meter("Nodes", taken.nodes, Math.min(one.spec.maxNodes, licence(one)?.nodeQuota ?? one.spec.maxNodes)),
    ];
  };

  const licence = (one) => one.status.license ?? one.status.lastLicense;

  const licenceWords = (one) => {
    const known = licence(one);
    if (!known) return one.spec.license;
    const nodes = known.nodeQuota ? `, ${known.nodeQuota} nodes` : "";
    return `${one.spec.license}: ${known.status}${nodes}${one.status.license ? "" : `, seen ${showAgo(known.seenAt)}`}`;
  };

  /** What the machine itself says that it uses, labs or not. */
  const loadWords = ({ load }) => {
    if (!load) return null;
    const share = ({ used, total }) => `${total ? Math.round((100 * used) / total) : 0} %`;
    return `processors ${share(load.cpuCores)}, memory ${share(load.memoryGb)}, disk ${share(load.storageGb)}, ${load.nodes} ${load.nodes === 1 ? "node runs" : "nodes run"}; told ${showAgo(load.at)}`;
  };

  /** While a worker is shown, now and then; each answer draws it anew, which asks again. */
  let shown = null;
  const askLoad = atMost(async () => {
    try {
      loads.set(shown, await api.get(`/workers/${shown}/load`));
      draw();
    } catch (error) {
      note(`The load of ${shown}: ${error.message}`, "bad");
    }
  }, 10_000);

  const onIt = (name) => live.of("instance").filter((one) => one.spec.worker === name && one.status.phase !== "Terminated");

  const detail = (name) => {
    const one = live.find("worker", name);
    if (!one) return h("div", { class: "view" }, link("workers", "← Workers"), empty(`There is no worker ${name}.`));
    const labs = onIt(name);
    const bookings = calendars.get(name)?.bookings ?? [];
    shown = name;
    askLoad();
    return h(
      "div",
      { class: "view narrow" },
      link("workers", "← Workers"),
      h("h1", {}, name, " ", badge(one.status.phase)),
      actions(one),
      progress(one, labs),
      one.spec.unschedulable ? h("p", { class: "warning" }, `Cordoned by ${one.spec.unschedulable.by}: ${one.spec.unschedulable.reason}${one.spec.unschedulable.until ? `, until ${showTime(one.spec.unschedulable.until)}` : ""}`) : null,
      bars(one),
      facts([
        ["Pool", one.spec.pool],
        ["Template", one.spec.template],
        ["Licence", licenceWords(one)],
        ["Load", loads.has(name) ? loadWords(loads.get(name)) : null],
        ["Version", one.status.version],
        ["Machine", one.status.machine?.id],
        ["Address", one.status.address],
        ["Power", one.status.scaling ? [`${one.status.scaling.direction} (${one.status.scaling.rule}), ${showAgo(one.status.scaling.at)}`, one.status.scaling.message].filter(Boolean).join(": ") : null],
        ["Reason", one.status.message ?? one.status.reason],
      ]),
      h("h2", {}, "Maintenance"),
      one.spec.maintenance.length ? h("ul", {}, one.spec.maintenance.map((span) => h("li", { key: span.from }, `${showSlot({ start: span.from, end: span.to })} ${span.reason ?? ""}`))) : h("p", { class: "dim" }, "None booked."),
      h("h2", {}, "Labs on it"),
      labs.length ? h("ul", { class: "plain" }, labs.map((lab) => h("li", { key: lab.metadata.id }, link(`instances/${lab.metadata.id}`, lab.metadata.id), " ", badge(lab.status.phase), ` until ${showTime(lab.spec.end)}`))) : h("p", { class: "dim" }, "None."),
      h("h2", {}, "Booked today"),
      bookings.length ? h("ul", { class: "plain" }, bookings.map((seat, at) => h("li", { key: at }, `${showSlot(seat)} `, seat.reservation ? link(`reservations/${seat.reservation}`, `${seat.definition} seat ${seat.seat}`) : "another tenant"))) : h("p", { class: "dim" }, "Nothing."),
      h("h2", {}, "Story"),
      moves(one.status.history),
    );
  };

  return {
    changed(kinds) {
      if (kinds.has("reservation") || kinds.has("worker") || kinds.has("pool")) soon();
    },
    gone: () => {
      soon.cancel();
      askLoad.cancel();
    },
    draw([name]) {
      if (name) return detail(name);
      askLoad.cancel();
      const wanted = text.toLowerCase();
      const rows = live.of("worker").filter((one) => `${one.metadata.id} ${one.spec.pool} ${one.status.phase} ${one.spec.template}`.toLowerCase().includes(wanted)).sort((one, other) => (one.metadata.id < other.metadata.id ? -1 : 1));
      return h(
        "div",
        { class: "view" },
        head("Workers", search(text, (words) => {
            text = words;
            draw();
          }), h("span", { class: "dim" }, `${rows.filter((one) => one.status.phase === "Ready").length} ready of ${rows.length}`)),
        rows.length
          ? table(
              [
                { title: "Worker", of: (one) => one.metadata.id },
                { title: "Phase", of: (one) => [badge(one.status.phase), one.spec.unschedulable ? h("span", { class: "badge phase-cordoned", title: one.spec.unschedulable.reason }, "Cordoned") : null, progress(one, onIt(one.metadata.id))] },
                { title: "Pool", of: (one) => one.spec.pool },
                { title: "Taken now", of: bars, class: "bars" },
                { title: "Labs", of: (one) => onIt(one.metadata.id).length, class: "number" },
                { title: "Power", of: (one) => (one.status.scaling ? `${one.status.scaling.direction}: ${one.status.scaling.rule}, ${showAgo(one.status.scaling.at)}` : "–") },
                ...(mayOperate ? [{ title: "What can be done", hidden: true, of: actions }] : []),
              ],
              rows,
              { key: (one) => one.metadata.id, href: (one) => `#/workers/${one.metadata.id}`, fresh: (one) => live.isFresh("worker", one.metadata.id), caption: "Workers" },
            )
          : empty("There is no worker. A pool makes them: lablet apply -f pool.yaml"),
      );
    },
  };
}
