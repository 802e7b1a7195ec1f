// Put the page together: facts at the top, then the graphs of the side chosen.

const report = JSON.parse(document.getElementById("data").textContent);
const both = report.sides.length === 2;
// What was sent tells most: the window and the losses are the sender's.
let chosen = both && report.sides[0].summary.direction === "received" && report.sides[1].summary.direction === "sent" ? 1 : 0;
const side = () => report.sides[chosen];
const byId = (id) => document.getElementById(id);

function facts() {
  const data = side(), told = data.summary;
  byId("files").textContent = report.sides.map((one) => `${one.file}: ${one.summary.label}, qlog ${one.summary.qlog}`).join("   ·   ") +
    (told.connection ? `   ·   connection ${told.connection}` : "") + (told.started ? `   ·   ${told.started}` : "");
  byId("headline").textContent = told.headline;
  const list = byId("findings");
  list.replaceChildren();
  for (const finding of told.findings) html("li", { className: finding.level, textContent: finding.sentence }, list);
  if (data.breaks) html("li", { className: "bad", textContent: `The trace has ${data.breaks} parse error(s), first at ${data.broken[0]}.` }, list);
  const cards = byId("facts");
  cards.replaceChildren();
  const way = told[told.direction];
  const complete = told.handshake.complete;
  for (const [name, value, more] of [
    ["Goodput", units.rate(way.goodput), `${units.size(way.stream_bytes)} ${told.direction}`],
    ["Duration", units.time(told.duration), `${told.events} events`],
    ["RTT", `${units.time(told.rtt.min)} min`, `median ${units.time(told.rtt.p50)}, 95 % ${units.time(told.rtt.p95)}`],
    told.direction === "sent"
      ? ["Packets lost", `${told.loss.lost} (${units.percent(told.loss.lost, told.sent.packets)})`,
        `${told.loss.spurious} spurious, ${told.loss.probe_timeouts} probe timeouts`]
      : ["Never arrived", `${told.loss.never_received} (${units.percent(told.loss.never_received, told.loss.never_received + told.received.packets)})`,
        `${told.loss.reordered} reordered`],
    ["Congestion window", told.congestion.window_max === null ? "–" : `${units.size(told.congestion.window_max)} max`,
      `cut ${told.congestion.window_cuts} times`],
    ["Handshake", told.handshake.before_trace ? "before the trace" : units.time(complete), complete !== null && told.rtt.min ? `${(complete / told.rtt.min).toFixed(1)} × least RTT` : ""],
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
