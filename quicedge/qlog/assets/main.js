// Put the page together: facts at the top, then the graphs of the side chosen.

const report = JSON.parse(document.getElementById("data").textContent);
const both = report.sides.length === 2;
// What was sent shows most: the window and the losses are the sender's.
let chosen = both && report.sides[0].summary.direction === "received" && report.sides[1].summary.direction === "sent" ? 1 : 0;
const side = () => report.sides[chosen];
const byId = (id) => document.getElementById(id);

function facts() {
  const data = side(), summary = data.summary;
  byId("files").textContent = report.sides.map((one) => `${one.file}: ${one.summary.label}, qlog ${one.summary.qlog}`).join("   ·   ") +
    (summary.connection ? `   ·   connection ${summary.connection}` : "") + (summary.started ? `   ·   ${summary.started}` : "");
  byId("headline").textContent = summary.headline;
  const list = byId("findings");
  list.replaceChildren();
  for (const finding of summary.findings) html("li", { className: finding.level, textContent: finding.sentence }, list);
  if (data.breaks) html("li", { className: "bad", textContent: `The trace has ${data.breaks} parse error(s), first at ${data.broken[0]}.` }, list);
  const cards = byId("facts");
  cards.replaceChildren();
  const way = summary[summary.direction];
  const complete = summary.handshake.complete;
  for (const [name, value, more] of [
    ["Goodput", units.rate(way.goodput), `${units.size(way.stream_bytes)} ${summary.direction}`],
    ["Duration", units.time(summary.duration), `${summary.events} events`],
    ["RTT", `${units.time(summary.rtt.min)} min`, `median ${units.time(summary.rtt.p50)}, 95 % ${units.time(summary.rtt.p95)}`],
    summary.direction === "sent"
      ? ["Packets lost", `${summary.loss.lost} (${units.percent(summary.loss.lost, summary.sent.packets)})`,
        `${summary.loss.spurious} spurious, ${summary.loss.probe_timeouts} probe timeouts`]
      : ["Never arrived", `${summary.loss.never_received} (${units.percent(summary.loss.never_received, summary.loss.never_received + summary.received.packets)})`,
        `${summary.loss.reordered} reordered`],
    ["Congestion window", summary.congestion.window_max === null ? "–" : `${units.size(summary.congestion.window_max)} max`,
      `cut ${summary.congestion.window_cuts} times`],
    ["Handshake", summary.handshake.before_trace ? "before the trace" : units.time(complete), complete !== null && summary.rtt.min ? `${(complete / summary.rtt.min).toFixed(1)} × least RTT` : ""],
  ]) {
    const card = html("div", {}, cards);
    html("dt", { textContent: name }, card);
    const shown = html("dd", { textContent: value }, card);
    html("small", { textContent: more }, shown);
  }
}

function draw() {
  const { start, end } = view;
  view.listeners = [showRange];
  view.cursors = [];
  for (const id of ["graphs", "streams", "packets", "sequence"]) byId(id).replaceChildren();
  facts();
  drawGraphs(byId("graphs"), side);
  drawStreams(byId("streams"), side);
  drawPackets(byId("packets"), side);
  const aligned = both && report.aligned;
  drawSequence(byId("sequence"), aligned ? clientFirst() : [side()], aligned);
  view.set(start, end);
}

function clientFirst() {
  return report.sides[0].summary.vantage_point === "server" ? [report.sides[1], report.sides[0]] : report.sides;
}

function showRange() {
  byId("range").textContent = `${units.time(view.start)} – ${units.time(view.end)}`;
}

function chooseSides() {
  if (!both) return;
  const group = byId("sides");
  group.hidden = false;
  const buttons = report.sides.map((one, index) => {
    const button = html("button", { type: "button", textContent: `${one.summary.vantage_point} (${one.file})` }, group);
    button.addEventListener("click", () => { chosen = index; press(); draw(); });
    return button;
  });
  const press = () => buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
  press();
}

function themes() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  };
  set(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

themes();
chooseSides();
view.limits(Math.min(...report.sides.map((one) => one.start)), Math.max(...report.sides.map((one) => one.end)));
byId("zoom-in").addEventListener("click", () => view.zoom(0.6));
byId("zoom-out").addEventListener("click", () => view.zoom(1 / 0.6));
byId("zoom-reset").addEventListener("click", () => view.reset());
draw();
let resizing;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => view.changed(), 120); });
