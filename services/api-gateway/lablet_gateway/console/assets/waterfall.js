// What each service did for a reservation: one chapter a trace, bars on one scale within it. The same as `lablet trace`.

import { h } from "./dom.js";

const MS = 1e6;

/** Traces in the order in which they began, each as rows `{span, depth}`. */
export function chapters(spans) {
  const byTrace = new Map();
  for (const span of [...spans].sort((one, other) => one.start - other.start)) {
    if (!byTrace.has(span.traceId)) byTrace.set(span.traceId, []);
    byTrace.get(span.traceId).push(span);
  }
  return [...byTrace.values()].map((found) => {
    const known = new Set(found.map((span) => span.spanId));
    const rows = [];
    const walk = (parent, depth) => {
      for (const span of found) {
        if ((known.has(span.parentId) ? span.parentId : null) !== parent) continue;
        rows.push({ span, depth });
        walk(span.spanId, depth + 1);
      }
    };
    walk(null, 0);
    return { id: found[0].traceId, start: found[0].start, end: Math.max(...found.map((span) => span.end)), rows };
  });
}

export const waterfall = (spans) =>
  h(
    "div",
    { class: "waterfall" },
    chapters(spans).map((chapter) => {
      const whole = Math.max(1, chapter.end - chapter.start);
      const began = new Date(chapter.start / MS).toLocaleTimeString(undefined, { hourCycle: "h23" });
      return h(
        "details",
        { key: chapter.id, open: true },
        h("summary", {}, h("b", {}, chapter.rows[0].span.name), ` ${began}, ${(whole / MS).toFixed(1)} ms, ${chapter.rows.length} spans`),
        h(
          "ol",
          {},
          chapter.rows.map(({ span, depth }) => {
            const words = `${span.service}: ${span.name}, ${((span.end - span.start) / MS).toFixed(1)} ms${span.error ? ", failed" : ""}`;
            return h(
              "li",
              { key: span.spanId, title: `${words}\n${Object.entries(span.attributes).map(([name, value]) => `${name} = ${value}`).join("\n")}` },
              h("span", { class: "dim" }, span.service),
              h("span", { class: span.error ? "warning" : undefined }, `${"\u2003".repeat(depth)}${span.name}`),
              h(
                "svg",
                { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": words },
                h("rect", { class: `kind-${span.kind}${span.error ? " failed" : ""}`, x: (100 * (span.start - chapter.start)) / whole, y: 2, width: Math.max(0.4, (100 * (span.end - span.start)) / whole), height: 6 }),
              ),
              h("span", { class: "number" }, `${((span.end - span.start) / MS).toFixed(1)} ms`),
            );
          }),
        ),
      );
    }),
  );
