// A small virtual DOM: views describe what should be there, and only what differs is touched, so that focus, scroll and
// half-typed input survive live updates. Children are matched by `key`, else by place and tag. A description that is the very
// same object as last time is not looked into: whoever draws much keeps what has not changed.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...kids) {
  return { tag, props: props ?? {}, kids: flatten(kids) };
}

function flatten(kids, into = []) {
  for (const kid of kids) {
    if (Array.isArray(kid)) flatten(kid, into);
    else if (kid !== null && kid !== undefined && kid !== false && kid !== true) {
      into.push(typeof kid === "object" ? kid : String(kid));
    }
  }
  return into;
}

/** Makes the children of `root` what is described. */
export function render(root, ...kids) {
  patchKids(root, flatten(kids), root.namespaceURI === SVG);
}

function keyOf(kid, at) {
  if (typeof kid === "string") return `#${at}`;
  return kid.props.key !== undefined ? `${kid.tag}:${kid.props.key}` : `${kid.tag}#${at}`;
}

function patchKids(parent, kids, svg) {
  const old = parent.lablet ?? new Map();
  const fresh = new Map();
  kids.forEach((kid, at) => {
    let key = keyOf(kid, at);
    while (fresh.has(key)) key += "'";
    let node = old.get(key);
    if (node) old.delete(key);
    else node = typeof kid === "string" ? document.createTextNode(kid) : create(kid, svg);
    if (typeof kid === "string") {
      if (node.data !== kid) node.data = kid;
    } else if (node.labletDrawn !== kid) {
      node.labletDrawn = kid;
      patchProps(node, kid.props);
      patchKids(node, kid.kids, svg || kid.tag === "svg");
      if (kid.tag === "select" && kid.props.value !== undefined) node.value = kid.props.value;
    }
    fresh.set(key, node);
  });
  for (const gone of old.values()) gone.remove();
  place(parent, fresh.values());
  parent.lablet = fresh;
}

/** Puts the children in their order. A node that is moved loses the focus, so the one that has it stays: others go around it. */
function place(parent, nodes) {
  let next = parent.firstChild;
  for (const node of nodes) {
    const stays = node === next || (node.parentNode === parent && node.contains(document.activeElement));
    if (stays) next = node.nextSibling;
    else parent.insertBefore(node, next);
  }
}

function create(kid, svg) {
  const node = svg || kid.tag === "svg" ? document.createElementNS(SVG, kid.tag) : document.createElement(kid.tag);
  if (kid.props.ref) kid.props.ref(node);
  return node;
}

function patchProps(node, props) {
  const old = node.labletProps ?? {};
  for (const name of Object.keys(old)) if (!(name in props)) set(node, name, undefined, old[name]);
  for (const [name, value] of Object.entries(props)) if (old[name] !== value) set(node, name, value, old[name]);
  node.labletProps = props;
}

function set(node, name, value, before) {
  if (name === "key" || name === "ref") return;
  if (name.startsWith("on")) {
    if (before) node.removeEventListener(name.slice(2), before);
    if (value) node.addEventListener(name.slice(2), value);
  } else if (name === "value") {
    if (node !== document.activeElement || node.value === "") node.value = value ?? "";
  } else if (name === "checked" || name === "disabled" || name === "open") {
    if (name === "open" && node instanceof HTMLDialogElement) return;
    node[name] = Boolean(value);
  } else if (name === "width%") {
    node.style.setProperty("width", value === undefined ? "" : `${value}%`);
  } else if (name === "top") {
    node.style.setProperty("top", value === undefined ? "" : `${value}px`);
  } else if (value === undefined || value === null || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : value);
  }
}

/** Runs `work` at most once a frame, however often it is asked for. */
export function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/** Runs `work` soon after it is asked for, and at most once in `pause` ms, however often that is. */
export function atMost(work, pause) {
  let timer;
  let last = -Infinity;
  const soon = () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      last = performance.now();
      work();
    }, Math.max(pause / 10, last + pause - performance.now()));
  };
  soon.cancel = () => {
    clearTimeout(timer);
    timer = undefined;
  };
  return soon;
}

/** Runs `work` when nobody has asked for it for a while (milliseconds), with the latest arguments. */
export function whenQuiet(work, pause) {
  let timer;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), pause);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
