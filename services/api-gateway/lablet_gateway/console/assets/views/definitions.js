// Lab definitions: what there is, what a file needs, how its topology looks, and publishing another.

import * as api from "../api.js";
import { h } from "../dom.js";
import { showTime } from "../time.js";
import { act, badge, bytes, check, confirmFirst, dialog, empty, facts, field, head, link, note, search, table, trouble, waiting } from "../ui.js";
import { booking } from "./booking.js";

const MARGIN = 60;

/** The lab drawn from its nodes' positions. */
function picture(graph) {
  if (!graph.nodes.length) return empty("The lab has no nodes.");
  const xs = graph.nodes.map((node) => node.x);
  const ys = graph.nodes.map((node) => node.y);
  const left = Math.min(...xs) - MARGIN;
  const top = Math.min(...ys) - MARGIN;
  const wide = Math.max(...xs) - left + MARGIN;
  const tall = Math.max(...ys) - top + MARGIN;
  const at = new Map(graph.nodes.map((node) => [node.id, node]));
  return h(
    "svg",
    { class: "topology", viewBox: `${left} ${top} ${wide} ${tall}`, role: "img", "aria-label": `${graph.nodes.length} nodes, ${graph.links.length} links: ${graph.nodes.map((node) => node.label).join(", ")}` },
    graph.links.map((line, number) => {
      const [one, other] = [at.get(line.a), at.get(line.b)];
      return one && other ? h("line", { key: `l${number}`, x1: one.x, y1: one.y, x2: other.x, y2: other.y }, h("title", {}, line.label)) : null;
    }),
    graph.nodes.map((node) =>
      h(
        "g",
        { key: node.id, class: `kind-${node.definition.replace(/[^a-z0-9]+/gi, "-")}` },
        h("title", {}, `${node.label}: ${node.definition}`),
        h("circle", { cx: node.x, cy: node.y, r: 20 }),
        h("text", { class: "short", x: node.x, y: node.y + 4 }, node.definition.slice(0, 6)),
        h("text", { x: node.x, y: node.y + 36 }, node.label),
      )),
  );
}

export function definitions({ live, who, draw }) {
  const mayPublish = ["admin", "instructor"].includes(who.role);
  let text = "";
  let all = false;
  let graph = { id: "" };

  const load = async (id) => {
    graph = { id };
    const [name, version] = id.split("@");
    try {
      graph = { id, ...(await api.get(`/definitions/${name}/versions/${version}/graph`)) };
    } catch (error) {
      graph = { id, trouble: error.message };
    }
    draw();
  };

  const publish = () => {
    const state = { name: "", file: null, error: null, busy: false };
    dialog("Publish a lab file", (again, close) =>
      h(
        "form",
        {
          onsubmit: async (event) => {
            event.preventDefault();
            state.busy = true;
            state.error = null;
            again();
            try {
              const { decided, resource } = await api.ask("POST", `/definitions?name=${encodeURIComponent(state.name)}`, { body: new Blob([await state.file.arrayBuffer()], { type: "application/yaml" }), headers: { "Content-Type": "application/yaml" }, wait: 20 });
              note(decided ? `${resource.metadata.id} is published` : "Accepted; the check goes on");
              close();
              if (decided) location.hash = `#/definitions/${encodeURIComponent(resource.metadata.id)}`;
            } catch (error) {
              state.error = error;
            }
            state.busy = false;
            again();
          },
        },
        field("Lab file", h("input", { type: "file", name: "file", accept: ".yaml,.yml,application/yaml", required: true, onchange: (event) => {
          [state.file] = event.target.files;
          if (state.file && !state.name) state.name = state.file.name.replace(/\.ya?ml$/i, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
          again();
        } }), "CML topology, YAML"),
        field("Name", h("input", { name: "name", required: true, value: state.name, oninput: (event) => {
          state.name = event.target.value;
          again();
        } }), "A changed file under a known name becomes its next version."),
        trouble(state.error),
        h("footer", {}, h("button", { type: "button", onclick: close }, "Back"), h("button", { class: "primary", disabled: state.busy || !state.file }, state.busy ? "Checking …" : "Publish")),
      ));
  };

  const detail = (id) => {
    const one = live.find("definition", id);
    if (!one) return h("div", { class: "view" }, link("definitions", "← Definitions"), empty(`There is no definition ${id}.`));
    const { spec } = one;
    return h(
      "div",
      { class: "view narrow" },
      link("definitions", "← Definitions"),
      h("h1", {}, id, " ", badge(one.status.phase)),
      spec.title || spec.description ? h("p", { class: "lead" }, [spec.title, spec.description].filter(Boolean).join(" – ")) : null,
      h(
        "div",
        { class: "actions" },
        one.status.phase === "Published" ? h("button", { type: "button", class: "primary", onclick: () => booking({ live, who }, { definition: id }) }, "Reserve seats") : null,
        who.role !== "learner" ? h("button", { type: "button", onclick: () => act("Saved", () => api.download(`/definitions/${spec.name}/versions/${spec.version}/topology`, `${spec.name}-${spec.version}.yaml`)) }, "Download") : null,
        mayPublish && one.status.phase === "Published" ? h("button", { type: "button", onclick: () => confirmFirst(`Deprecate ${id}?`, "New reservations that name no version get an older or newer one; what is booked stays.", "Deprecate", () => api.ask("POST", `/definitions/${spec.name}/versions/${spec.version}/deprecate`, { body: {} })) }, "Deprecate") : null,
      ),
      facts([
        ["One seat needs", `${spec.requirements.cpuCores} CPU cores, ${spec.requirements.memoryGb} GB of memory, ${spec.requirements.storageGb} GB of storage, ${spec.requirements.nodeCount} licensed nodes`],
        ["Ports", spec.ports.map((port) => `${port.name} (${port.protocol})`).join(", ") || "none"],
        ["Node definitions", spec.runtime.nodeDefinitions.join(", ")],
        ["Runtime", [spec.runtime.name, spec.runtime.minVersion && `from ${spec.runtime.minVersion}`, spec.runtime.maxVersion && `up to ${spec.runtime.maxVersion}`].filter(Boolean).join(" ")],
        ["Licences", spec.licenses.join(", ")],
        ["Longest slot", `${spec.maxDurationMinutes} minutes`],
        ["File", `${bytes(spec.topology.bytes)}, ${spec.topology.digest.slice(0, 12)}…`],
        ["Published", showTime(one.metadata.createdAt)],
      ]),
      h("h2", {}, "Topology"),
      graph.trouble ? h("p", { class: "dim" }, graph.trouble) : graph.nodes ? picture(graph) : waiting("The topology"),
    );
  };

  return {
    moved([id]) {
      if (id && id !== graph.id) void load(id);
    },
    again() {
      if (graph.trouble) void load(graph.id);
    },
    draw([id]) {
      if (id) return detail(id);
      const wanted = text.toLowerCase();
      const rows = live
        .of("definition")
        .filter((one) => all || one.status.phase === "Published")
        .filter((one) => `${one.metadata.id} ${one.spec.title} ${one.metadata.tenant}`.toLowerCase().includes(wanted))
        .sort((one, other) => one.metadata.id.localeCompare(other.metadata.id, undefined, { numeric: true }));
      return h(
        "div",
        { class: "view" },
        head(
          "Definitions",
          search(text, (words) => {
            text = words;
            draw();
          }),
          check("deprecated ones too", all, (on) => {
            all = on;
            draw();
          }),
          h("span", { class: "grow" }),
          mayPublish ? h("button", { type: "button", class: "primary", onclick: publish }, "Publish a lab file") : null,
        ),
        rows.length
          ? table(
              [
                { title: "Definition", of: (one) => one.metadata.id },
                { title: "Phase", of: (one) => badge(one.status.phase) },
                { title: "Nodes", of: (one) => one.spec.requirements.nodeCount, class: "number" },
                { title: "CPU", of: (one) => one.spec.requirements.cpuCores, class: "number" },
                { title: "Memory", of: (one) => `${one.spec.requirements.memoryGb} GB`, class: "number" },
                { title: "Ports", of: (one) => one.spec.ports.length, class: "number" },
                { title: "Tenant", of: (one) => one.metadata.tenant },
                { title: "Published", of: (one) => showTime(one.metadata.createdAt) },
              ],
              rows,
              { key: (one) => one.metadata.id, href: (one) => `#/definitions/${encodeURIComponent(one.metadata.id)}`, fresh: (one) => live.isFresh("definition", one.metadata.id), caption: "Definitions" },
            )
          : empty(mayPublish ? "Nothing is published yet: publish a lab file, and seats of it can be reserved." : "Nothing is published yet."),
      );
    },
  };
}
