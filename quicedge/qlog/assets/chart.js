// Charts over time that share one time line: axes, zoom, hover and keyboard.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 68, right: 12, top: 8, bottom: 22 };

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) {
    // Colours go through the style object: they are CSS variables, and change with the theme.
    if (key === "fill" || key === "stroke") element.style.setProperty(key, value);
    else element.setAttribute(key, value);
  }
  if (parent) parent.append(element);
  return element;
}

function html(name, properties, parent) {
  const element = document.createElement(name);
  Object.assign(element, properties || {});
  if (parent) parent.append(element);
  return element;
}

function label(parent, x, y, text, attributes) {
  const element = svg("text", { x, y, ...attributes }, parent);
  element.textContent = text;
  return element;
}

const units = {
  time(ms) {
    if (ms === null || ms === undefined) return "–";
    if (Math.abs(ms) >= 1000) return (ms / 1000).toFixed(2) + " s";
    return ms.toFixed(Math.abs(ms) < 100 ? 1 : 0) + " ms";
  },
  size(bytes) {
    if (bytes === null || bytes === undefined) return "–";
    const scale = bytes < 1e3 ? [1, "B"] : bytes < 1e6 ? [1e3, "kB"] : bytes < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
    const value = bytes / scale[0];
    return value.toFixed(scale[0] === 1 || value >= 100 ? 0 : value >= 10 ? 1 : 2) + " " + scale[1];
  },
  rate(bits) {
    if (!bits) return "–";
    const scale = bits < 1e6 ? [1e3, "kbit/s"] : bits < 1e9 ? [1e6, "Mbit/s"] : [1e9, "Gbit/s"];
    return Number((bits / scale[0]).toPrecision(3)) + " " + scale[1];
  },
  percent(part, whole) {
    if (!whole) return "–";
    const share = (100 * part) / whole;
    return (share >= 10 || share === 0 ? share.toFixed(0) : share.toPrecision(2)) + " %";
  },
};

// Round steps of which about `count` fit into the span.
function ticks(from, to, count) {
  const span = to - from;
  if (!(span > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= count);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to + step / 1e6; at += step) found.push(at);
  return found;
}

// The part of the time line that is shown, the same for every chart.
const view = {
  least: 0, most: 1, start: 0, end: 1, listeners: [], cursors: [],
  limits(least, most) {
    this.least = least;
    this.most = Math.max(most, least + 0.01);
    this.start = this.least;
    this.end = this.most;
  },
  set(start, end) {
    const width = Math.min(Math.max(end - start, 0.05), this.most - this.least);
    this.start = Math.min(Math.max(start, this.least), this.most - width);
    this.end = this.start + width;
    this.changed();
  },
  zoom(factor, around) {
    const centre = around === undefined ? (this.start + this.end) / 2 : around;
    this.set(centre - (centre - this.start) * factor, centre + (this.end - centre) * factor);
  },
  move(share) {
    const by = (this.end - this.start) * share;
    this.set(this.start + by, this.end + by);
  },
  reset() { this.set(this.least, this.most); },
  changed() { for (const listener of this.listeners) listener(); },
  cursor(time) { for (const listener of this.cursors) listener(time); },
};

const tip = {
  show(event, text) {
    const box = document.getElementById("tip");
    box.textContent = text;
    box.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = box;
    const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 16 : event.clientX + 16;
    box.style.left = Math.max(4, left) + "px";
    box.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4)) + "px";
  },
  hide() { document.getElementById("tip").hidden = true; },
};

function keyed(caption, keys) {
  for (const [name, colour, box] of keys || []) {
    const key = html("span", { className: "key" }, caption);
    const swatch = html("i", { className: box ? "box" : "" }, key);
    swatch.style.background = colour;
    key.append(name);
  }
}

// The last of `points` (arrays that begin with a time) at or before `time`.
function at(points, time) {
  let low = 0, high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= time) low = middle + 1; else high = middle;
  }
  return low ? points[low - 1] : null;
}

class TimeChart {
  // options: title, keys [[name, colour, box]], height, unit(value), most() or no y axis,
  // draw(chart), hover(time) → text, axis (whether to show times), describe() → text
  constructor(parent, options) {
    this.options = options;
    const figure = html("figure", {}, parent);
    this.caption = html("figcaption", {}, figure);
    html("b", { textContent: options.title }, this.caption);
    keyed(this.caption, options.keys);
    this.svg = svg("svg", { tabindex: 0, role: "img", focusable: "true" }, figure);
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("pointermove", (event) => this.pointer(event));
    this.svg.addEventListener("pointerleave", () => { view.cursor(null); tip.hide(); });
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("dblclick", () => view.reset());
    this.svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      view.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.time(event));
    }, { passive: false });
    view.listeners.push(() => this.draw());
    view.cursors.push((time) => this.cross(time));
    this.draw();
  }

  get height() { return this.options.height; }

  x(time) { return MARGIN.left + ((time - view.start) / (view.end - view.start)) * this.inner; }

  y(value) { return this.bottom - (value / this.top) * (this.bottom - MARGIN.top); }

  time(event) {
    const left = this.svg.getBoundingClientRect().left;
    const share = (event.clientX - left - MARGIN.left) / this.inner;
    return view.start + Math.min(1, Math.max(0, share)) * (view.end - view.start);
  }

  draw() {
    const width = Math.max(320, this.svg.parentNode.clientWidth);
    const axis = this.options.axis !== false;
    this.bottom = this.height - (axis ? MARGIN.bottom : 2);
    this.inner = width - MARGIN.left - MARGIN.right;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    this.svg.setAttribute("aria-label",
      this.options.title + ". " + (this.options.describe ? this.options.describe() : ""));
    this.svg.replaceChildren();
    this.width = width;
    const grid = svg("g", {}, this.svg);
    for (const time of ticks(view.start, view.end, width / 110)) {
      const x = this.x(time);
      svg("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: this.bottom }, grid);
      // The last label would be cut off at the edge of the picture.
      const anchor = x > width - 30 ? "end" : "middle";
      if (axis) label(grid, x, this.height - 6, timeLabel(time), { "text-anchor": anchor });
    }
    if (this.options.most) {
      this.top = this.options.most() * 1.06 || 1;
      for (const value of ticks(0, this.top, Math.max(2, this.height / 45))) {
        const y = this.y(value);
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }, grid);
        label(grid, MARGIN.left - 8, y + 4, this.options.unit(value), { "text-anchor": "end" });
      }
    }
    // What is drawn stays within the plot, however far the data goes beyond it.
    const id = "clip-" + (TimeChart.count = (TimeChart.count || 0) + 1);
    const clip = svg("clipPath", { id }, this.svg);
    svg("rect", { x: MARGIN.left, y: 0, width: this.inner, height: this.height }, clip);
    this.plot = svg("g", { "clip-path": `url(#${id})` }, this.svg);
    this.options.draw(this);
    this.line = svg("line", { class: "cross", y1: 0, y2: this.bottom, visibility: "hidden" }, this.svg);
  }

  cross(time) {
    if (time === null) { this.line.setAttribute("visibility", "hidden"); return; }
    this.line.setAttribute("x1", this.x(time));
    this.line.setAttribute("x2", this.x(time));
    this.line.setAttribute("visibility", "visible");
  }

  pointer(event) {
    if (this.dragging) return;
    const time = this.time(event);
    view.cursor(time);
    const text = this.options.hover ? this.options.hover(time, event) : "";
    tip.show(event, units.time(time) + (text ? "\n" + text : ""));
  }

  press(event) {
    if (event.button !== 0) return;
    const from = this.time(event);
    const box = svg("rect", { class: "select", y: 0, height: this.bottom }, this.svg);
    this.dragging = true;
    tip.hide();
    const drag = (moved) => {
      const [a, b] = [this.x(from), this.x(this.time(moved))];
      box.setAttribute("x", Math.min(a, b));
      box.setAttribute("width", Math.abs(b - a));
    };
    const drop = (ended) => {
      removeEventListener("pointermove", drag);
      removeEventListener("pointerup", drop);
      this.dragging = false;
      box.remove();
      const to = this.time(ended);
      if (Math.abs(this.x(to) - this.x(from)) > 5) view.set(Math.min(from, to), Math.max(from, to));
    };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", drop);
  }

  key(event) {
    const actions = {
      ArrowLeft: () => view.move(-0.2), ArrowRight: () => view.move(0.2),
      "+": () => view.zoom(0.6), "=": () => view.zoom(0.6), "-": () => view.zoom(1 / 0.6),
      0: () => view.reset(), Home: () => view.reset(),
    };
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  }

  // Points in view and one beyond each edge.
  within(points) {
    let first = points.findIndex((point) => point[0] >= view.start);
    if (first < 0) first = points.length;
    let last = points.findIndex((point) => point[0] > view.end);
    if (last < 0) last = points.length;
    return points.slice(Math.max(0, first - 1), last + 1);
  }

  // A line that keeps its value until the next point; `column` of each point is its value.
  steps(points, column, attributes, area) {
    const shown = this.within(points);
    if (!shown.length) return;
    let path = "";
    shown.forEach((point, index) => {
      const x = this.x(point[0]), y = this.y(point[column]);
      path += index ? `H${x}V${y}` : `M${x},${area ? this.y(0) : y}` + (area ? `V${y}` : "");
    });
    if (shown[shown.length - 1] === points[points.length - 1]) path += `H${this.x(this.end())}`;
    if (area) path += `V${this.y(0)}Z`;
    svg("path", { d: path, fill: "none", ...attributes }, this.plot);
  }

  end() { return this.options.end ? this.options.end() : view.most; }
}

function timeLabel(time) {
  const span = view.end - view.start;
  if (span >= 2000) return Number((time / 1000).toFixed(2)) + " s";
  return Number(time.toFixed(span < 20 ? 2 : 1)) + " ms";
}
