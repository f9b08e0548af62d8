// What a page owes to people who see badly, use no mouse, or hear it read: a list of what is wrong, empty when nothing is.
// Names of controls, roles, headings, tables, unique ids, contrast (WCAG 2.2 AA: 4.5, large letters 3, edges of controls 3),
// nothing wider than the window.
() => {
  const wrong = [];
  const say = (node, words) => wrong.push(`${node.tagName.toLowerCase()}${node.className?.baseVal ?? node.className ? `.${node.className?.baseVal ?? node.className}` : ""} "${(node.textContent ?? "").trim().slice(0, 40)}": ${words}`);
  const root = document.querySelector("dialog[open]") ?? document.body;
  const all = [...root.querySelectorAll("*")];
  const shown = (node) => {
    const box = node.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  };

  // names
  const byIds = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  const nameOf = (node) =>
    node.getAttribute("aria-label")
    || (node.hasAttribute("aria-labelledby") && byIds(node.getAttribute("aria-labelledby")))
    || (node.labels?.length && [...node.labels].map((one) => one.textContent).join(" "))
    || node.getAttribute("alt")
    || (node.matches("input, select, textarea, svg") ? "" : node.textContent)
    || node.getAttribute("title")
    || "";
  const named = "a[href], button, input, select, textarea, dialog, progress, [role=button], [role=img], [role=region], [role=group], nav, aside, iframe";
  for (const node of root.querySelectorAll(named)) if (!nameOf(node).trim()) say(node, "has no name");
  for (const node of root.querySelectorAll("img")) if (!node.hasAttribute("alt")) say(node, "has no alt");
  for (const node of root.querySelectorAll("svg")) if (!node.closest("[aria-hidden=true]") && !node.hasAttribute("role")) say(node, "is a picture without a role");
  for (const node of all) {
    for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
      for (const id of (node.getAttribute(name) ?? "").split(/\s+/).filter(Boolean)) if (!document.getElementById(id)) say(node, `${name} points to nothing (${id})`);
    }
    if (Number(node.getAttribute("tabindex")) > 0) say(node, "takes the keyboard out of order");
    if (node.matches("[onclick]") || (node.matches(".bar") && !node.hasAttribute("role"))) say(node, "can be clicked and has no role");
    if (node.closest("[aria-hidden=true]") && node.matches("a, button, input, select, [tabindex='0']")) say(node, "is hidden from readers and takes the keyboard");
  }
  const ids = all.map((node) => node.id).filter(Boolean);
  for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) wrong.push(`the id ${id} stands twice`);

  // structure
  if (root === document.body) {
    for (const part of ["main", "h1"]) if (root.querySelectorAll(part).length !== 1) wrong.push(`${root.querySelectorAll(part).length} ${part} on the page`);
    if (!document.documentElement.lang) wrong.push("the page has no language");
    if (!document.title.trim()) wrong.push("the page has no title");
    const levels = [...root.querySelectorAll("main :is(h1, h2, h3, h4)")].map((node) => Number(node.tagName[1]));
    levels.forEach((level, at) => at && level > levels[at - 1] + 1 && wrong.push(`a heading of level ${level} follows one of level ${levels[at - 1]}`));
  }
  for (const node of root.querySelectorAll("table")) {
    if (!node.caption?.textContent.trim()) say(node, "has no caption");
    for (const cell of node.querySelectorAll("th")) {
      if (!cell.hasAttribute("scope")) say(cell, "is a heading of neither row nor column");
      if (cell.closest("thead") && !cell.textContent.trim()) say(cell, "is an empty heading");
    }
  }
  for (const node of root.querySelectorAll("li")) if (!node.parentElement.matches("ul, ol, menu")) say(node, "is in no list");

  // contrast
  const parse = (text) => {
    const found = text.match(/^rgba?\(([\d.]+)[, ]+([\d.]+)[, ]+([\d.]+)(?:[,/ ]+([\d.]+))?\)$/);
    if (!found) throw new Error(`a colour that cannot be read: ${text}`);
    return [Number(found[1]), Number(found[2]), Number(found[3]), found[4] === undefined ? 1 : Number(found[4])];
  };
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3])).concat(1);
  const groundOf = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const faded = (node, colour) => {
    let alpha = colour[3];
    for (let at = node; at && at !== root; at = at.parentElement) alpha *= Number(getComputedStyle(at).opacity);
    return [...colour.slice(0, 3), alpha];
  };
  for (const node of all) {
    const own = [...node.childNodes].some((kid) => kid.nodeType === Node.TEXT_NODE && kid.data.trim());
    if (!own || !shown(node) || node.matches("title, option, :disabled") || node.closest(":disabled, .hidden, .skip")) continue;
    const style = getComputedStyle(node);
    const inPicture = node instanceof SVGElement;
    const surface = inPicture && node.closest(".bar")?.querySelector(".body");
    const ground = surface ? over(faded(surface, parse(getComputedStyle(surface).fill)), groundOf(node)) : groundOf(node);
    const ratio = contrast(over(faded(node, parse(inPicture ? style.fill : style.color)), ground), ground);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) say(node, `contrast ${ratio.toFixed(2)}`);
  }
  for (const node of root.querySelectorAll("input:not([type=checkbox], [type=radio]), select, button:not(.quiet, .primary, :disabled)")) {
    if (!shown(node)) continue;
    const ratio = contrast(parse(getComputedStyle(node).borderTopColor), groundOf(node.parentElement));
    if (ratio < 3) say(node, `the edge has contrast ${ratio.toFixed(2)}`);
  }

  // room
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) {
    wrong.push(`the page is ${wide} px wider than the window`);
    for (const node of all) if (node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".scroll, nav, .rows, .axis, pre")) say(node, "sticks out");
  }
  return [...new Set(wrong)].slice(0, 40);
}
