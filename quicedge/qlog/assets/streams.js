// Streams: a waterfall of when each was open, and a band of whose data went when.

const ROW = 20;
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6fb0", "#a3a500", "#b3261e", "#7f8c8d"];

function streamColour(id) {
  return PALETTE[Math.floor(id / 4) % PALETTE.length];
}

function drawStreams(parent, side) {
  const data = side();
  if (!data.streams.length) {
    html("p", { className: "note", textContent: "The trace shows no streams." }, parent);
    return;
  }
  multiplexing(parent, data);
  waterfall(parent, data);
  streamTable(parent, data);
}

function multiplexing(parent, data) {
  const way = data.summary.direction;
  const runs = data.runs[way];
  if (!runs.length) return;
  const names = new Map(data.streams.map((row) => [row.id, row.what]));
  new TimeChart(parent, {
    title: `Multiplexing: whose data was ${way} when`, height: 58,
    describe: () => `${runs.length} runs of data of ${new Set(runs.map((run) => run[2])).size} streams.`,
    draw(chart) {
      const shown = runs.filter((run) => run[1] >= view.start && run[0] <= view.end);
      shown.forEach((run, index) => {
        const x = chart.x(run[0]);
        const next = index + 1 < shown.length ? chart.x(shown[index + 1][0]) : x;
        // A run lasts until the next begins, but no longer than its data did by much.
        const right = Math.max(x + 1, chart.x(run[1]), Math.min(next, chart.x(run[1]) + 3));
        svg("rect", { x, y: MARGIN.top, width: right - x, height: chart.bottom - MARGIN.top, fill: streamColour(run[2]) }, chart.plot);
      });
    },
    hover(time) {
      const run = at(runs, time);
      if (!run) return "";
      return `stream ${run[2]} ${names.get(run[2]) || ""}\n${units.size(run[3])} from ${units.time(run[0])} to ${units.time(run[1])}`;
    },
  });
}

function waterfall(parent, data) {
  const rows = data.streams.filter((row) => row.sent + row.received > 64 || data.streams.length < 12);
  const box = html("div", { className: rows.length > 26 ? "scroll" : "" }, parent);
  box.tabIndex = rows.length > 26 ? 0 : -1;
  const way = data.summary.direction;
  const left = data.streams_left_out + data.streams.length - rows.length;
  new TimeChart(box, {
    title: "Waterfall",
    keys: [["request, or waiting", "var(--line)", true], ["first to last byte (colour: as above)", "var(--window)", true]],
    height: rows.length * ROW + MARGIN.top + MARGIN.bottom,
    describe: () => rows.slice(0, 20).map((row) => `Stream ${row.id} ${row.what}: ${units.time(row.opened)} to ${units.time(row.closed)}`).join(". "),
    draw(chart) {
      rows.forEach((row, index) => {
        const y = MARGIN.top + index * ROW;
        const x = chart.x(row.opened), right = Math.max(x + 2, chart.x(row.closed));
        svg("rect", { x, y: y + 6, width: right - x, height: 7, rx: 2, fill: "var(--line)" }, chart.plot);
        const span = (way === "sent" ? row.out : row.in) || row.out || row.in;
        if (span) {
          const from = chart.x(span[0]), to = Math.max(from + 2, chart.x(span[1]));
          svg("rect", { x: from, y: y + 3, width: to - from, height: 13, rx: 2, fill: streamColour(row.id) }, chart.plot);
        }
        label(chart.svg, MARGIN.left - 8, y + 13, row.id < 0 ? "others" : String(row.id), { "text-anchor": "end" });
        const caption = `${row.what}  ${units.size(Math.max(row.sent, row.received))}`.slice(0, 90);
        const room = chart.width - right;
        // Where the bar leaves no room on its right, the text stands on it, on a piece of paper.
        const beside = room > 220;
        const start = beside ? right + 6 : Math.max(MARGIN.left + 6, x + 6);
        const paper = beside ? null : svg("rect", { x: start - 3, y: y + 3, height: 13, fill: "var(--paper)", "fill-opacity": 0.85 }, chart.plot);
        const text = label(chart.plot, start, y + 13, caption, { class: "label" });
        if (paper) paper.setAttribute("width", text.getComputedTextLength() + 6);
      });
    },
    hover(time, event) {
      const row = rows[Math.floor((event.clientY - box.querySelector("svg").getBoundingClientRect().top - MARGIN.top) / ROW)];
      if (!row) return "";
      const span = (way === "sent" ? row.out : row.in) || row.out || row.in;
      return `stream ${row.id} ${row.what}\nopened ${units.time(row.opened)}, last seen ${units.time(row.closed)}` +
        (span ? `\nfirst byte ${units.time(span[0])}, last byte ${units.time(span[1])}` : "") +
        `\nsent ${units.size(row.sent)} (${units.size(row.again)} again), received ${units.size(row.received)}`;
    },
  });
  if (left > 0) html("p", { className: "note", textContent: `${left} small streams are left out here; all of those kept are in the table.` }, parent);
}

function streamTable(parent, data) {
  const details = html("details", {}, parent);
  html("summary", { textContent: `Table of ${data.streams.length} streams` }, details);
  const box = html("div", { className: "scroll" }, details);
  box.tabIndex = 0;
  const rows = data.streams.map((row) => [
    `${row.id < 0 ? "others" : row.id} ${row.what}`, units.time(row.opened), units.time((row.out || [])[0]), units.time((row.out || [])[1]),
    units.time((row.in || [])[0]), units.time((row.in || [])[1]), units.size(row.sent), units.size(row.again), units.size(row.received)]);
  table(box, ["stream", "opened", "first sent", "last sent", "first received", "last received", "sent", "sent again", "received"], rows);
}

function table(parent, head, rows) {
  const element = html("table", {}, parent);
  const top = html("tr", {}, html("thead", {}, element));
  for (const name of head) html("th", { textContent: name, scope: "col" }, top);
  const body = html("tbody", {}, element);
  for (const cells of rows) {
    const row = html("tr", {}, body);
    for (const cell of cells) html("td", { textContent: cell }, row);
  }
  return element;
}
