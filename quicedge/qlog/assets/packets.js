// Packets: their sizes and contents, and the sequence diagram between the two ends.

const PAGE = 80;
const PACKET_COLOURS = { initial: "#8a6fb0", handshake: "#b37400", "0RTT": "#009e73", "1RTT": "var(--window)", retry: "#b3261e" };

function drawPackets(parent, side) {
  const data = side();
  const box = html("div", { className: "two" }, parent);
  for (const way of ["sent", "received"]) histogram(box, data, way);
  const facts = html("div", { className: "two" }, parent);
  for (const way of ["sent", "received"]) contents(facts, data, way);
}

function histogram(parent, data, way) {
  const { sizes, step } = data.packets[way];
  const figure = html("figure", {}, parent);
  const caption = html("figcaption", {}, figure);
  const facts = data.summary[way];
  html("b", { textContent: `Packet sizes ${way}` }, caption);
  caption.append(`${facts.packets} packets, ${units.size(facts.bytes)}, median ${units.size(facts.size_p50)}`);
  if (!sizes.length) return;
  const width = 560, height = 150, bottom = height - 22;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram of the sizes of packets ${way}: ` + sizes.map(([size, count]) => `${count} from ${size}`).slice(0, 30).join(", ") }, figure);
  const last = Math.max(1500, sizes[sizes.length - 1][0] + step);
  const most = Math.max(...sizes.map(([, count]) => count));
  const x = (size) => 48 + (size / last) * (width - 60);
  for (const size of ticks(0, last, 8)) label(picture, x(size), height - 6, `${size} B`, { "text-anchor": "middle" });
  for (const count of ticks(0, most, 4)) {
    const y = bottom - (count / most) * (bottom - 8);
    svg("line", { class: "grid", x1: 48, x2: width, y1: y, y2: y }, picture);
    label(picture, 42, y + 4, String(count), { "text-anchor": "end" });
  }
  for (const [size, count] of sizes) {
    const tall = Math.max(1.5, (count / most) * (bottom - 8));
    const bar = svg("rect", { x: x(size), y: bottom - tall, width: Math.max(2, x(size + step) - x(size) - 1), height: tall, fill: "var(--window)" }, picture);
    bar.addEventListener("pointermove", (event) => tip.show(event, `${size} to ${size + step - 1} B\n${count} packets (${units.percent(count, facts.packets)})`));
    bar.addEventListener("pointerleave", tip.hide);
  }
}

function contents(parent, data, way) {
  const facts = data.summary[way];
  const again = facts.retransmitted || 0;
  const box = html("div", {}, parent);
  const rows = [
    ["stream data", units.size(facts.stream_bytes), units.percent(facts.stream_bytes, facts.bytes)],
    ...(way === "sent" ? [["stream data again", units.size(again), units.percent(again, facts.bytes)]] : []),
    ["headers, tags and control", units.size(Math.max(0, facts.bytes - facts.stream_bytes - again)), units.percent(Math.max(0, facts.bytes - facts.stream_bytes - again), facts.bytes)],
    ["packets of ACKs alone", String(facts.ack_only), units.percent(facts.ack_only, facts.packets)],
  ];
  table(box, [`Bytes ${way}`, "", ""], rows);
  const kinds = Object.entries(facts.types).map(([kind, count]) => `${kind || "unknown"} ${count}`).join(", ");
  const framed = Object.entries(facts.frames).sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind || "unnamed"} ${count}`).join(", ");
  html("p", { className: "note", textContent: `Packets: ${kinds || "none"}. Frames: ${framed || "none"}.` }, box);
}

const space = (type) => (type === "initial" || type === "handshake" ? type : "application");

// One arrow per packet: [sent at, received at or null, left to right?, packet, lost?]
function arrows(sides, both) {
  const found = [];
  const one = (sender, receiver, rightward) => {
    const arrived = new Map();
    if (receiver) for (const packet of receiver.packets.received.details) arrived.set(space(packet[1]) + packet[2], packet[0]);
    const details = receiver ? receiver.packets.received.details : [];
    const seenUntil = receiver && !receiver.packets.received.complete && details.length ? details[details.length - 1][0] : Infinity;
    for (const packet of sender.packets.sent.details) {
      const key = space(packet[1]) + packet[2];
      const got = packet[2] === null ? undefined : arrived.get(key);
      const lost = receiver && packet[2] !== null && got === undefined && packet[0] < Math.min(seenUntil, receiver.end);
      found.push({ sent: packet[0], received: got === undefined ? null : got, rightward, packet, lost });
    }
  };
  if (both) {
    one(sides[0], sides[1], true);
    one(sides[1], sides[0], false);
  } else {
    one(sides[0], null, true);
    for (const packet of sides[0].packets.received.details) found.push({ sent: null, received: packet[0], rightward: false, packet, lost: false });
  }
  const moment = (arrow) => (arrow.sent === null ? arrow.received : arrow.sent);
  return found.sort((a, b) => moment(a) - moment(b)).map((arrow) => ({ ...arrow, at: moment(arrow) }));
}

function drawSequence(parent, sides, both) {
  const all = arrows(sides, both);
  if (!all.length) {
    html("p", { className: "note", textContent: "The trace shows no packets." }, parent);
    return;
  }
  const truncated = sides.some((side) => !side.packets.sent.complete || !side.packets.received.complete);
  const bar = html("div", { className: "bar" }, parent);
  const controls = html("div", { className: "controls" }, bar);
  const back = html("button", { type: "button", textContent: "← Earlier" }, controls);
  const on = html("button", { type: "button", textContent: "Later →" }, controls);
  const shown = html("output", {}, controls);
  const lossButton = html("button", { type: "button", textContent: "Next loss" }, controls);
  lossButton.hidden = !all.some((arrow) => arrow.lost);
  html("p", { className: "note", textContent: both
    ? "Both ends on one clock (the fastest packet each way is taken to have had the same delay). A cross is a packet that never arrived; long gaps are shortened."
    : "One end only: what happened at the other is not in this trace. Give both traces to see packets arrive and get lost." }, bar);
  if (truncated) html("p", { className: "note", textContent: "Only the first packets are kept one by one; quicedge qlog report --from shows others." }, parent);
  const box = html("div", { className: "scroll" }, parent);
  box.tabIndex = 0;
  const picture = svg("svg", { role: "img" }, box);
  let first = 0;

  const draw = () => {
    const page = all.slice(first, first + PAGE);
    const start = page[0].at;
    const finish = Math.max(...page.map((arrow) => Math.max(arrow.at, arrow.received || 0)));
    const width = Math.max(560, box.clientWidth - 4);
    const { places, gaps, height } = layout(page, both);
    const left = 330, right = width - 330;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    picture.setAttribute("aria-label", `Packets ${first + 1} to ${first + page.length}: ` +
      page.slice(0, 25).map((arrow) => `${units.time(arrow.at)} ${arrow.packet[1]} ${arrow.packet[2]} ${arrow.packet[4]}${arrow.lost ? ", lost" : ""}`).join("; "));
    picture.replaceChildren();
    const names = both ? sides.map((side) => side.summary.vantage_point) : [sides[0].summary.vantage_point, "peer"];
    [[left, names[0]], [right, names[1]]].forEach(([x, name]) => {
      label(picture, x, 20, name, { "text-anchor": "middle", class: "label" });
      svg("line", { x1: x, x2: x, y1: 28, y2: height, stroke: "var(--muted)" }, picture);
    });
    for (const arrow of page) drawArrow(picture, arrow, places.get(arrow), { left, right, both });
    for (const [y, gap] of gaps) {
      const text = label(picture, width / 2, y, `⋮ ${units.time(gap)}`, { "text-anchor": "middle" });
      text.style.setProperty("paint-order", "stroke");
      text.style.setProperty("stroke", "var(--paper)");
      text.style.setProperty("stroke-width", "4px");
    }
    back.disabled = first === 0;
    on.disabled = first + PAGE >= all.length;
    shown.textContent = `${first + 1}–${first + page.length} of ${all.length} packets, ${units.time(start)} to ${units.time(finish)}`;
  };
  const go = (to) => { first = Math.max(0, Math.min(to, all.length - 1)); box.scrollTop = 0; draw(); };
  back.addEventListener("click", () => go(first - PAGE));
  on.addEventListener("click", () => go(first + PAGE));
  lossButton.addEventListener("click", () => {
    let found = all.findIndex((arrow, index) => index > first + 5 && arrow.lost);
    if (found < 0) found = all.findIndex((arrow) => arrow.lost);
    go(found - 5);
  });
  view.listeners.push(() => {
    const found = all.findIndex((arrow) => arrow.at >= view.start);
    go(view.start <= view.least || found < 0 ? 0 : found);
  });
  draw();
}

// Where each packet leaves and arrives, going down the page. Order and text come first: a long gap
// is shortened, and named. Gives [sent y, received y] of each arrow.
function layout(page, both) {
  const moments = [];
  for (const arrow of page) {
    if (arrow.sent !== null) moments.push([arrow.sent, 0, arrow]);
    if (arrow.received !== null) moments.push([arrow.received, 1, arrow]);
  }
  // What answers at once stands below what it answers.
  moments.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  const places = new Map(), gaps = [];
  let y = 46, last = moments[0][0];
  for (const [time, end, arrow] of moments) {
    const gap = time - last;
    const step = Math.min(34, gap * 6);
    if (step >= 34) gaps.push([y + step / 2 + 10, gap]);
    y += step + (end === 0 || !both ? 14 : 4);
    last = time;
    if (!places.has(arrow)) places.set(arrow, [null, null]);
    places.get(arrow)[end] = y;
  }
  return { places, gaps, height: y + 30 };
}

function drawArrow(picture, arrow, [sent, received], { left, right, both }) {
  const [time, type, number, size, note] = arrow.packet;
  const [from, to] = arrow.rightward ? [left, right] : [right, left];
  // With the trace of one end only, the other end of a packet is drawn at the same time.
  const y1 = sent === null ? received : sent;
  const y2 = received === null ? y1 + (both ? 12 : 0) : received;
  const colour = arrow.lost ? "var(--loss)" : PACKET_COLOURS[type] || "var(--muted)";
  const reach = arrow.lost ? 0.5 : 1;
  const x2 = from + (to - from) * reach, yEnd = y1 + (y2 - y1) * reach;
  const line = svg("line", { x1: from, y1, x2, y2: yEnd, stroke: colour, "stroke-width": 1.4, "stroke-dasharray": arrow.lost ? "4 3" : "none" }, picture);
  if (arrow.lost) svg("path", { d: `M${x2 - 5},${yEnd - 5}l10,10m0,-10l-10,10`, stroke: colour, "stroke-width": 2.2, fill: "none" }, picture);
  else svg("path", { d: `M${x2},${yEnd}l${arrow.rightward ? -9 : 9},-4v8z`, fill: colour }, picture);
  const details = `${units.time(time)}\n${type} ${number === null ? "" : number}, ${size} B\n${note}` +
    (arrow.lost ? "\nnever arrived" : arrow.sent !== null && arrow.received !== null ? `\narrived ${units.time(arrow.received)} (${units.time(arrow.received - arrow.sent)} under way)` : "");
  const wide = svg("line", { x1: from, y1, x2: to, y2, stroke: "transparent", "stroke-width": 11 }, picture);
  wide.addEventListener("pointermove", (event) => { tip.show(event, details); line.style.setProperty("stroke-width", "3"); });
  wide.addEventListener("pointerleave", () => { tip.hide(); line.style.setProperty("stroke-width", "1.4"); });
  // The words stand at the end that sent it; with one end alone, always at that end.
  const atLeft = both ? arrow.rightward : true;
  const words = `${time.toFixed(2)}  ${type === "1RTT" ? "" : type + " "}${number === null ? "" : number}  ${note}`.slice(0, 52);
  const text = label(picture, atLeft ? left - 10 : right + 10, y1 + 4, words, { "text-anchor": atLeft ? "end" : "start" });
  if (arrow.lost) text.style.setProperty("fill", "var(--loss)");
}
