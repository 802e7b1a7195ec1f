"use strict";
// The dashboard. Untrusted text (names, paths, reasons) is only written through textContent.

const PERIOD = 1000, HISTORY = 300, ROWS = 50;
const $ = (id) => document.getElementById(id);

const el = (name, text, attributes = {}) => {
  const node = document.createElement(name);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

// --- formatting ------------------------------------------------------------------------------

const scaled = (value, units, step) => {
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) { value /= step; unit += 1; }
  return `${value >= 100 || value === Math.round(value) ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
};
const none = "–";
const known = (format) => (value) => (value === null || value === undefined ? none : format(value));
const bytes = known((value) => scaled(value, ["B", "KB", "MB", "GB", "TB"], 1000));
const rate = known((value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1000));
const ms = known((value) => (value < 0.01 ? `${(value * 1000).toFixed(2)} ms` : `${(value * 1000).toFixed(1)} ms`));
const count = known((value) => value.toLocaleString("en"));
const seconds = known((value) => (value < 60 ? `${value.toFixed(1)} s` : value < 7200 ? `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s` : `${(value / 3600).toFixed(1)} h`));
const plain = known(String);

// --- the API -----------------------------------------------------------------------------------

const api = async (path, body) => {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  const options = { headers, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["content-type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (answer.status === 401) { $("login").hidden = false; throw new Error("a token is needed"); }
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error || answer.statusText), { status: answer.status });
  return found;
};
const say = (id, text) => { $(id).textContent = text || ""; $(id).hidden = !text; };
/** What the last look at the edge found wrong; the next look replaces it. */
const notice = (text) => say("notice", text);
/** What became of a button that was pressed; it stays until the next one or another connection. */
const answered = (text) => say("answer", text);

// --- graphs ------------------------------------------------------------------------------------

const HEIGHT = 150, LEFT = 62, BOTTOM = 18;

/** Pixels a graph is wide: two stand side by side where there is room. */
const width = () => { const all = $("main").clientWidth; return Math.max(240, all < 957 ? all - 80 : all / 2 - 62); };

const frame = (title, most, format, WIDTH) => {
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title, preserveAspectRatio: "none" });
  for (const share of [0, 0.5, 1]) {
    const y = 6 + (1 - share) * (HEIGHT - BOTTOM - 6);
    root.append(svg("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    const label = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
    label.textContent = format(most * share);
    root.append(label);
  }
  return root;
};

/** Lines over time: `series` is [class, values]; null is a gap. `marks` has a truth a point. */
const lines = (title, series, format, marks = []) => {
  const most = (Math.max(0, ...series.flatMap(([, values]) => values.filter((v) => v !== null))) || 1) * 1.1;
  const WIDTH = width(), root = frame(title, most, format, WIDTH);
  const length = Math.max(2, ...series.map(([, values]) => values.length));
  const x = (index) => LEFT + (index / (length - 1)) * (WIDTH - LEFT);
  const y = (value) => 6 + (1 - value / most) * (HEIGHT - BOTTOM - 6);
  for (const [kind, values] of series) {
    let path = "", pen = "M";
    values.forEach((value, index) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    });
    root.append(svg("path", { d: path, class: kind, "vector-effect": "non-scaling-stroke" }));
  }
  marks.forEach((lost, index) => {
    if (lost) root.append(svg("rect", { x: x(index) - 1, y: HEIGHT - BOTTOM, width: 2.5, height: 6, class: "mark" }));
  });
  const label = svg("text", { x: LEFT, y: HEIGHT - 3 });
  label.textContent = `${Math.round(((length - 1) * PERIOD) / 1000)} s ago`;
  const now = svg("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" });
  now.textContent = "now";
  root.append(label, now);
  return root;
};

const bars = (title, values, labels) => {
  const most = Math.max(1, ...values), WIDTH = width();
  const root = frame(title, most, (value) => (value === Math.round(value) ? count(value) : ""), WIDTH);
  const step = (WIDTH - LEFT) / values.length;
  values.forEach((value, index) => {
    const height = (value / most) * (HEIGHT - BOTTOM - 6);
    root.append(svg("rect", { x: LEFT + index * step + 3, y: HEIGHT - BOTTOM - height, width: step - 6, height, rx: 2, class: "bar" }));
    const label = svg("text", { x: LEFT + (index + 0.5) * step, y: HEIGHT - 4, "text-anchor": "middle" });
    label.textContent = labels[index];
    root.append(label);
  });
  return root;
};

const figure = (title, keys, graph) => {
  const box = el("figure"), caption = el("figcaption"), legend = el("span");
  keys.forEach(([kind, text]) => legend.append(el("i", `— ${text}  `, { class: kind })));
  caption.append(el("span", title), legend);
  box.append(caption, graph);
  return box;
};

// --- overview ----------------------------------------------------------------------------------

const COLUMNS = [
  ["remote_address", "Client", plain, "text"], ["protocol", "Protocol", plain, "text"], ["sni", "Server name", plain, "text"], ["state", "State", plain, "text"],
  ["smoothed_rtt", "RTT", ms], ["min_rtt", "Min RTT", ms], ["congestion_window", "Window", bytes],
  ["bytes_in_flight", "In flight", bytes], ["delivery_rate", "Delivery", rate], ["packets_lost", "Lost", count],
  ["requests", "Requests", count], ["bytes_sent", "Sent", bytes], ["bytes_received", "Received", bytes],
  ["age_seconds", "Age", seconds],
];
const RTT_STEPS = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5];
const RTT_LABELS = ["<1 ms", "<5", "<20", "<50", "<100", "<200", "<500", "more"];
let sort = "-created_at", offset = 0, previous = null, rates = [];

// Workers that run, and what those had counted that have ended.
const counted = (status) => [...status.workers.flatMap((worker) => worker.stats || []), ...Object.values(status.ended.slots)];
const total = (status, key) => counted(status).reduce((sum, one) => sum + one[key], 0);
const reasons = (status, key) => counted(status).reduce((sum, one) => sum + Object.values(one[key]).reduce((a, b) => a + b, 0), 0);

const serverErrors = (status) => [...counted(status), status.ended].flatMap((one) => Object.values(one.metrics.routes))
  .flatMap((route) => Object.entries(route.statuses)).reduce((sum, [code, times]) => sum + (code.startsWith("5") ? times : 0), 0);

const showState = (status) => {
  $("state").textContent = status.state;
  $("state").className = `badge ${status.state === "running" ? "running" : "bad"}`;
  $("about").textContent = `${status.version} · ${status.listeners.map((one) => one.address).join(", ")} · up ${seconds(status.uptime_seconds)}`;
};

const showOverview = async () => {
  const query = new URLSearchParams({ sort, offset, limit: ROWS });
  for (const [key, value] of new FormData($("filter"))) if (value) query.set(key, value);
  const [status, page, comparison] = await Promise.all([
    api("/api/v1/status"), api(`/api/v1/connections?${query}`), api("/api/v1/comparison"),
  ]);
  showState(status);
  showVersions(comparison);
  showAltSvc(status.alt_svc);
  const now = {
    at: status.uptime_seconds, requests: total(status, "requests_total"), handshakes: total(status, "handshakes_completed"),
  };
  const passed = previous && now.at > previous.at ? now.at - previous.at : null;
  const each = (key) => (passed ? Math.max(0, now[key] - previous[key]) / passed : null);
  rates = [...rates, each("requests")].slice(-HISTORY);
  const tiles = [
    ["Connections", count(status.connections)],
    ["Requests per second", known((value) => value.toFixed(1))(each("requests"))],
    ["Handshakes per second", known((value) => value.toFixed(1))(each("handshakes"))],
    ["Total requests", count(now.requests)],
    ["5xx responses", count(serverErrors(status))],
    ["Failed handshakes", count(total(status, "handshakes_failed"))],
    ["Refused requests", count(reasons(status, "requests_refused"))],
    ["Dropped datagrams", count(reasons(status, "datagrams_dropped"))],
  ];
  previous = now;
  $("tiles").replaceChildren(...tiles.map(([name, value]) => {
    const tile = el("div", undefined, { class: "tile" });
    tile.append(el("b", value), el("span", name));
    return tile;
  }));
  $("rate-graph").replaceChildren(lines("Requests per second", [["one", rates]], (value) => value.toFixed(1)));
  const spread = RTT_LABELS.map(() => 0);
  page.connections.forEach((one) => {
    if (one.smoothed_rtt === null) return;
    const index = RTT_STEPS.findIndex((step) => one.smoothed_rtt < step);
    spread[index < 0 ? RTT_STEPS.length : index] += 1;
  });
  $("rtt-bars").replaceChildren(bars("Smoothed RTT of the listed connections", spread, RTT_LABELS));
  fill($("connections"), COLUMNS, page.connections, (one) => `#/c/${one.id}`, true);
  $("page").textContent = page.total ? `${offset + 1} to ${offset + page.connections.length} of ${page.total}` : "none";
  $("previous").disabled = offset === 0;
  $("next").disabled = offset + page.connections.length >= page.total;
  notice(page.unanswered.length ? `Worker ${page.unanswered.join(", ")} did not answer; its connections are missing.` : "");
};

// --- HTTP versions side by side --------------------------------------------------------------------

const VERSION_NAMES = { h3: "HTTP/3", h2: "HTTP/2", "http/1.1": "HTTP/1.1" };
const percent = known((value) => `${(100 * value).toFixed(value < 0.01 ? 2 : 1)} %`);
// Member, heading, format, what it means, and whether more is better.
const FIGURES = [
  ["smoothed_rtt", "RTT", ms, "Smoothed round-trip time.", false],
  ["handshake_seconds", "Handshake", ms, "From the first packet, the SYN on TCP, to a complete TLS handshake.", false],
  ["first_byte_seconds", "First byte", ms, "From the first packet to the head of the first response, the origin's time included.", false],
  ["goodput", "Goodput", rate, "Acknowledged bits per second of the time spent sending, of connections with at least 256 KB.", true],
  ["loss_ratio", "Loss", percent, "Packets lost, or segments retransmitted, of connections with at least 50 packets.", false],
];

const showVersions = ({ enough, protocols }) => {
  const table = $("versions"), head = el("tr");
  head.append(el("th", "Protocol", { scope: "col" }), el("th", "Connections", { scope: "col", title: "Recent ones that the figures are of." }));
  FIGURES.forEach(([, name, , title]) => head.append(el("th", name, { scope: "col", title })));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...protocols.map((one) => {
    const line = el("tr");
    line.append(el("th", VERSION_NAMES[one.protocol], { scope: "row" }), el("td", count(one.connections)));
    FIGURES.forEach(([key, , format, , more]) => {
      const { median, p95, connections, is_sparse } = one[key];
      const cell = el("td", format(median), { class: is_sparse ? "sparse" : "" });
      // Only figures that can be compared are: those of enough connections of at least two protocols.
      const rivals = protocols.map((each) => each[key]).filter((each) => !each.is_sparse);
      const medians = rivals.map((each) => each.median);
      if (!is_sparse && rivals.length > 1 && median === (more ? Math.max(...medians) : Math.min(...medians)) && new Set(medians).size > 1) cell.classList.add("best");
      if (connections) cell.append(el("i", `p95 ${format(p95)} · ${count(connections)}${is_sparse ? " (few)" : ""}`));
      line.append(cell);
    });
    return line;
  }));
  const few = protocols.filter((one) => one.connections && one.connections < enough).map((one) => `${VERSION_NAMES[one.protocol]} (${one.connections})`);
  $("versions-note").textContent = "Medians; below them the 95th percentile and of how many recent connections. " + (few.length
    ? `Too few connections to compare, fewer than ${enough}: ${few.join(", ")}.`
    : "Clients choose their protocol, so the groups differ in more than the protocol.");
};

const showAltSvc = (listeners) => {
  $("alt-svc").replaceChildren(...listeners.map((one) => {
    const counted = `clients reached: ${count(one.advertised)}, arrived: ${count(one.arrived)}, missing: ${count(one.missed)}`;
    if (one.state === "on") return el("li", `${one.listener}: HTTP/3 is advertised (Alt-Svc); ${counted}.`);
    const trial = one.state === "trial" ? "; advertised to a few clients again" : "";
    return el("li", `${one.listener}: HTTP/3 is not advertised since ${seconds(one.withdrawn_seconds)}: ${one.reason}; ${counted}, in ${one.networks_missing} networks${trial}.`, { class: "bad" });
  }));
};

const fill = (table, columns, rows, link, sortable) => {
  const head = el("tr");
  columns.forEach(([key, name, , kind]) => {
    const cell = el("th", sortable ? undefined : name, { scope: "col", class: kind || "" });
    if (sortable) {
      const way = sort.replace("-", "") === key ? (sort.startsWith("-") ? " ↓" : " ↑") : "";
      const button = el("button", name + way, { type: "button" });
      button.addEventListener("click", () => { sort = sort === `-${key}` ? key : `-${key}`; offset = 0; tick(); });
      cell.append(button);
      if (way) cell.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
    }
    head.append(cell);
  });
  // A focused heading must survive the refresh.
  const focused = [...table.tHead.querySelectorAll("button")].indexOf(document.activeElement);
  table.tHead.replaceChildren(head);
  if (focused >= 0) table.tHead.querySelectorAll("button")[focused].focus();
  const chosen = document.activeElement && document.activeElement.getAttribute("href");
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = el("tr");
    columns.forEach(([key, , format, kind], index) => {
      const cell = el("td", undefined, { class: kind || "" });
      const text = format(row[key]);
      if (index === 0 && link) cell.append(el("a", text, { href: link(row) })); else cell.textContent = text;
      if (key === "packets_lost" && row[key] > 0) cell.classList.add("bad");
      line.append(cell);
    });
    return line;
  }));
  if (chosen) { const again = [...table.querySelectorAll("a")].find((a) => a.getAttribute("href") === chosen); if (again) again.focus(); }
};

// --- one connection ----------------------------------------------------------------------------

const STREAMS = [
  ["stream_id", "Stream", plain], ["method", "Method", plain, "text"], ["path", "Path", plain, "text"], ["status", "Status", plain],
  ["bytes_received", "Received", bytes], ["bytes_sent", "Sent", bytes], ["send_buffered", "Waiting", bytes], ["age_seconds", "Age", seconds],
];
let watched = null, history = [];

// The states of quicedge/qlog/blocked_time.py.
const LIMITS = {
  handshake: "went into the handshake", loss_recovery: "probe timeouts expired unanswered",
  congestion_control: "the congestion window was full", pacing: "data waited for the pacer",
  connection_flow_control: "the client's flow control for the connection held it back",
  stream_flow_control: "the client's flow control for its streams held it back",
  path: "data was on its way to the client", send_buffer: "the kernel's send buffer was full",
  application: "there was nothing to send", receiving: "data was arriving",
  receive_window: "our flow control held the client back", peer: "nothing came from the client",
};

const verdict = (one) => {
  const spent = Object.entries(one[`${one.main_direction}_limited_seconds`]).filter(([state]) => state !== "idle");
  const all = spent.reduce((sum, [, value]) => sum + value, 0);
  spent.sort((a, b) => b[1] - a[1]);
  const lost = one.transport === "tcp" ? "segments retransmitted" : "packets lost";
  const share = one.packets_sent ? (100 * one.packets_lost) / one.packets_sent : 0;
  const held = all ? `${Math.round((100 * spent[0][1]) / all)} % of the time that was not idle ${LIMITS[spent[0][0]]}` : "Nothing sent yet";
  return `${held}. ${count(one.packets_lost)} of ${count(one.packets_sent)} ${lost} (${share.toFixed(2)} %). RTT ${ms(one.smoothed_rtt)}, at least ${ms(one.min_rtt)}.`;
};

const showConnection = async (id) => {
  if (watched !== id) { watched = id; history = []; $("report").hidden = true; $("trace").textContent = "Start qlog"; answered(""); }
  const status = await api("/api/v1/status");
  showState(status);
  $("tail-id").textContent = id;
  let one;
  try { one = await api(`/api/v1/connections/${id}`); } catch (error) {
    if (error.status !== 404) throw error;
    notice("This connection has ended; showing its last state.");
    return;
  }
  notice("");
  $("trace").hidden = one.transport !== "quic";
  $("trace").disabled = status.trace_directory === null;
  $("no-trace").hidden = status.trace_directory !== null || $("trace").hidden;
  history = [...history, one].slice(-HISTORY);
  const of = (key) => history.map((item) => item[key]);
  const growth = (key) => history.map((item, index) => {
    const before = history[index - 1], passed = before ? item.time - before.time : 0;
    return passed > 0 ? Math.max(0, item[key] - before[key]) / passed : null;
  });
  const lost = growth("packets_lost");
  $("title").textContent = `${one.remote_address} → ${one.sni || one.local_address}`;
  $("verdict").textContent = verdict(one);
  $("graphs").replaceChildren(
    figure("Round-trip time", [["one", "smoothed"], ["two", "min"]], lines("Round-trip time", [["one", of("smoothed_rtt")], ["two", of("min_rtt")]], ms)),
    figure("Congestion", [["one", "window"], ["two", "in flight"]], lines("Congestion window and bytes in flight", [["one", of("congestion_window")], ["two", of("bytes_in_flight")]], bytes, lost)),
    figure("Sent and received per second", [["one", "sent"], ["two", "received"]], lines("Bytes per second", [["one", growth("bytes_sent")], ["two", growth("bytes_received")]], bytes)),
    figure("Packets lost per second", [["one", "lost"]], lines("Packets lost", [["one", lost]], (value) => value.toFixed(1))),
  );
  fill($("streams"), STREAMS, one.streams || []);
  $("facts").replaceChildren(...facts(one));
};

// Members by topic; unlisted ones come last.
const SECTIONS = [
  ["Who", /^(id|worker|odcid|scids|dcid|transport|protocol|remote_address|local_address|path_validated|migrations|sni|routes)$/],
  ["Handshake", /^(version|tls_version|alpn|cipher|group|signature|hello_retry|retry|resumed|early_data|key_updates|handshake_seconds|first_byte_seconds)$/],
  ["Lifetime", /^(state|close_reason|created_at|age_seconds|idle_seconds)$/],
  ["Round-trip time and congestion", /rtt|congestion_|in_flight|ssthresh|^pto|_rate$|^mtu$|^reordering$/],
  ["Limited by", /^limited_by$|^main_direction$|_limited_seconds$/],
  ["Packets and bytes", /^(packets|bytes)_/],
  ["ECN", /^ecn_/],
  ["Streams and flow control", /streams|requests|resets|stop_sending|_window$|buffered/],
];
const words = (key) => key.replace(/_seconds$/, "").replaceAll("_", " ");
const fact = (key, value) => {
  if (key === "created_at") return new Date(value * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";
  if (Array.isArray(value)) return value.join(" ") || none;
  if (typeof value !== "number") return String(value);
  if (/_seconds$|rtt/.test(key)) return value < 1 ? ms(value) : seconds(value);
  if (/_rate$/.test(key)) return rate(value);
  if (/_packets$/.test(key)) return count(value);
  return /bytes|window|buffered|ssthresh/.test(key) ? bytes(value) : count(value);
};
const section = (title, entries) => {
  const box = el("section");
  box.append(el("h3", title));
  for (const [name, value] of entries) {
    const line = el("div");
    line.append(el("span", name), el("span", value));
    box.append(line);
  }
  return box;
};
const facts = (one) => {
  const rest = new Map(Object.entries(one).filter(([key, value]) => value !== null && !/^(time|streams|paths|.*_parameters)$/.test(key)));
  const boxes = [];
  for (const [title, about] of [...SECTIONS, ["More", /./]]) {
    const entries = [];
    for (const [key, value] of [...rest]) {
      if (!about.test(key)) continue;
      rest.delete(key);
      if (typeof value === "object" && !Array.isArray(value)) {
        for (const [name, each] of Object.entries(value)) entries.push([`${words(key)}: ${words(name)}`, fact(/_seconds$/.test(key) ? key : name, each)]);
      } else entries.push([words(key), fact(key, value)]);
    }
    if (entries.length) boxes.push(section(title, entries));
  }
  const all = (value) => Object.entries(value).map(([key, each]) => [words(key), fact(key, each)]);
  (one.paths || []).forEach((path, index) => boxes.push(section(`Path ${index + 1}`, all(path))));
  const rows = (value) => Object.entries(value || {}).map(([key, each]) => [words(key), typeof each === "number" ? count(each) : String(each)]);
  if (one.transport === "quic") boxes.push(section("Our transport parameters", rows(one.local_parameters)), section("The client's transport parameters", rows(one.remote_parameters)));
  return boxes;
};

$("trace").addEventListener("click", async () => {
  const action = $("trace").textContent.startsWith("Start") ? "start" : "stop";
  try {
    const { file } = await api(`/api/v1/connections/${watched}/qlog`, { action });
    $("trace").textContent = action === "start" ? "Stop qlog" : "Start qlog";
    if (file) { $("report").href = `/api/v1/qlog/${file}/report`; $("report").hidden = false; }
    answered("");
  } catch (error) { answered(`Cannot trace: ${error.message}`); }
});
$("close").addEventListener("click", async () => {
  if (!confirm("Close this connection?")) return;
  try { await api(`/api/v1/connections/${watched}/close`, { reason: "closed by operator" }); answered(""); } catch (error) { answered(`Cannot close: ${error.message}`); }
});

// --- the page ----------------------------------------------------------------------------------

let running = false;
const tick = async () => {
  if (running) return;
  running = true;
  const match = /^#\/c\/([0-9a-f]+)$/.exec(location.hash);
  $("overview").hidden = Boolean(match);
  $("connection").hidden = !match;
  try { await (match ? showConnection(match[1]) : showOverview()); } catch (error) { notice(`The edge does not answer: ${error.message}`); }
  running = false;
};
$("filter").addEventListener("input", () => { offset = 0; tick(); });
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("previous").addEventListener("click", () => { offset = Math.max(0, offset - ROWS); tick(); });
$("next").addEventListener("click", () => { offset += ROWS; tick(); });
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("login").hidden = true;
  tick();
});
window.addEventListener("hashchange", () => { notice(""); $("main").focus(); tick(); });
setInterval(() => { if (!document.hidden) tick(); }, PERIOD);
tick();
