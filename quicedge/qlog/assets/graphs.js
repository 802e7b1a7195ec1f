// The graphs over time: what held the transfer back, congestion, round trips, goodput.

const colour = (state) => `var(--s-${state.replace(/_/g, "-")})`;
const stateName = (state) => state.replace(/_/g, " ");

function drawGraphs(parent, side) {
  const data = side();
  limitBar(parent, data);
  limitStrip(parent, data);
  congestion(parent, data);
  roundTrips(parent, data);
  goodput(parent, data);
}

function limitBar(parent, data) {
  const limits = Object.entries(data.summary.limited_by);
  const whole = limits.reduce((sum, [, spent]) => sum + spent, 0);
  const figure = html("figure", {}, parent);
  const caption = html("figcaption", {}, figure);
  const doing = data.summary.direction === "sent" ? "sending" : "receiving";
  html("b", { textContent: `What limited it (${doing})` }, caption);
  for (const [state, spent] of limits) {
    const key = html("span", { className: "key" }, caption);
    html("i", { className: "box" }, key).style.background = colour(state);
    key.append(`${stateName(state)} ${units.percent(spent, whole)} (${units.time(spent)})`);
    key.title = report.meanings[state] || "";
  }
  if (!limits.length) caption.append("cannot be determined from this trace");
}

function limitStrip(parent, data) {
  const { buckets, width } = data.limits;
  if (!buckets.length) return;
  new TimeChart(parent, {
    title: "", height: 30, axis: false,
    describe: () => "What limited the transfer at each moment: " +
      Object.entries(data.summary.limited_by).map(([state, spent]) => `${stateName(state)} ${units.time(spent)}`).join(", "),
    draw(chart) {
      for (const [time, kinds] of chart.within(buckets)) {
        let from = time;
        for (const [state, spent] of Object.entries(kinds)) {
          const x = chart.x(from), right = chart.x(from + spent);
          svg("rect", { x, y: 6, width: Math.max(0.6, right - x + 0.3), height: 18, fill: colour(state) }, chart.plot);
          from += spent;
        }
      }
    },
    hover(time) {
      const found = at(buckets, time);
      if (!found || time > found[0] + width) return "";
      return Object.entries(found[1]).map(([state, spent]) => `${stateName(state)}: ${units.time(spent)}`).join("\n");
    },
  });
}

function congestion(parent, data) {
  const { window: windows, flight, ssthresh } = data.series;
  const losses = data.losses.buckets;
  if (!windows.length && !flight.length) {
    html("p", { className: "note", textContent: "The trace has no congestion metrics." }, parent);
    return;
  }
  const most = () => {
    let top = 0;
    for (const series of [windows, flight]) {
      for (const point of series) if (point[0] >= view.start - 1 && point[0] <= view.end) top = Math.max(top, point[2]);
      const before = at(series, view.start);
      if (before) top = Math.max(top, before[2]);
    }
    return top;
  };
  const lost = data.summary.loss.lost;
  const keys = [["congestion window", "var(--window)"], ["bytes in flight", "var(--flight)", true]];
  if (ssthresh.length) keys.push(["slow start threshold", "var(--ssthresh)"]);
  if (losses.length) keys.push([`losses (${lost} packets)`, "var(--loss)", true]);
  new TimeChart(parent, {
    title: "Congestion", keys, height: 270, unit: units.size, most, end: () => data.end,
    describe: () => `Window ${units.size(data.summary.congestion.window_min)} to ` +
      `${units.size(data.summary.congestion.window_max)}, at most ` +
      `${units.size(data.summary.congestion.max_bytes_in_flight)} in flight, ${lost} packets lost.`,
    draw(chart) {
      for (const [time] of chart.within(losses)) {
        const x = chart.x(time);
        svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: chart.bottom, stroke: "var(--loss)", "stroke-opacity": 0.35 }, chart.plot);
      }
      chart.steps(flight, 2, { fill: "var(--flight)" }, true);
      chart.steps(ssthresh, 3, { stroke: "var(--ssthresh)", "stroke-dasharray": "5 3" });
      chart.steps(windows, 3, { stroke: "var(--window)", "stroke-width": 2 });
      for (const [time] of chart.within(losses)) {
        const x = chart.x(time);
        svg("path", { d: `M${x - 5},${MARGIN.top}h10l-5,9z`, fill: "var(--loss)" }, chart.plot);
      }
      markHandshake(chart, data);
    },
    hover(time) {
      const text = [];
      const windowNow = at(windows, time), flightNow = at(flight, time), lossNow = at(losses, time);
      if (windowNow) text.push(`congestion window: ${units.size(windowNow[3])}`);
      if (flightNow) text.push(`in flight: ${units.size(flightNow[3])}`);
      const threshold = at(ssthresh, time);
      if (threshold) text.push(`slow start threshold: ${units.size(threshold[3])}`);
      const state = at(data.states, time);
      if (state) text.push(`state: ${state[1]}`);
      const near = Math.max(data.losses.width, (view.end - view.start) / 150);
      if (lossNow && time - lossNow[0] < near) {
        const count = Object.values(lossNow[1]).reduce((sum, number) => sum + number, 0);
        text.push(`lost here: ${count} packet${count === 1 ? "" : "s"}`);
      }
      return text.join("\n");
    },
  });
}

function markHandshake(chart, data) {
  const [complete] = data.handshake;
  if (complete === null || complete < view.start || complete > view.end) return;
  const x = chart.x(complete);
  svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: chart.bottom, stroke: "var(--muted)", "stroke-dasharray": "2 3" }, chart.plot);
  label(chart.plot, x + 4, MARGIN.top + 20, "handshake complete");
}

function roundTrips(parent, data) {
  const { rtt, smoothed } = data.series;
  if (!rtt.length) return;
  const least = data.summary.rtt.min;
  new TimeChart(parent, {
    title: "Round-trip time", height: 170, unit: units.time, end: () => data.end,
    keys: [["samples", "var(--rtt)", true], ["smoothed", "var(--smoothed)"], ["minimum", "var(--muted)"]],
    most: () => {
      const shown = rtt.filter((point) => point[0] >= view.start && point[0] <= view.end);
      return Math.max(least || 0, ...shown.map((point) => point[2])) || data.summary.rtt.max;
    },
    describe: () => `Minimum ${units.time(least)}, median ${units.time(data.summary.rtt.p50)}, ` +
      `95th percentile ${units.time(data.summary.rtt.p95)}, maximum ${units.time(data.summary.rtt.max)}.`,
    draw(chart) {
      let path = "";
      for (const [time, low, high] of chart.within(rtt)) path += `M${chart.x(time)},${chart.y(low) + 1.5}V${chart.y(high) - 1.5}`;
      svg("path", { d: path, stroke: "var(--rtt)", "stroke-width": 3, fill: "none" }, chart.plot);
      if (least) {
        svg("line", { x1: MARGIN.left, x2: chart.width - MARGIN.right, y1: chart.y(least), y2: chart.y(least),
          stroke: "var(--muted)", "stroke-dasharray": "4 3" }, chart.plot);
      }
      chart.steps(smoothed, 3, { stroke: "var(--smoothed)", "stroke-width": 2 });
    },
    hover(time) {
      const sample = at(rtt, time), mean = at(smoothed, time);
      const text = [];
      if (sample) text.push(`sample: ${units.time(sample[1])}` + (sample[1] < sample[2] ? ` to ${units.time(sample[2])}` : ""));
      if (mean) text.push(`smoothed: ${units.time(mean[3])}`);
      return text.join("\n");
    },
  });
}

function goodput(parent, data) {
  const { buckets, totals } = data.goodput;
  const kinds = ["sent", "received"].filter((kind) => totals[kind] > 0 && totals[kind] > 0.002 * ((totals.sent || 0) + (totals.received || 0)));
  if (!kinds.length) return;
  const colours = { sent: "var(--good)", received: "var(--smoothed)" };
  // Bytes of each bar of the screen, added up from the buckets. Data comes in bursts a round trip
  // apart, so bars narrower than that would show the bursts and hide the rate.
  const bars = () => {
    const trip = view.end - view.start > 20 * (data.summary.rtt.smoothed || 0) ? data.summary.rtt.smoothed : 0;
    const width = Math.max(data.goodput.width, (view.end - view.start) / 160, trip || 0);
    const found = new Map();
    for (const [time, amounts] of buckets) {
      if (time < view.start - width || time > view.end) continue;
      const slot = Math.floor(time / width);
      const sums = found.get(slot) || {};
      for (const kind of kinds) sums[kind] = (sums[kind] || 0) + (amounts[kind] || 0);
      found.set(slot, sums);
    }
    return { width, found };
  };
  const rate = (bytes, width) => (bytes * 8000) / width;
  new TimeChart(parent, {
    title: "Goodput", height: 150, unit: (bits) => units.rate(bits).replace("–", "0"),
    keys: kinds.map((kind) => [`stream data ${kind}`, colours[kind], true]),
    most: () => {
      const { width, found } = bars();
      return Math.max(1, ...[...found.values()].flatMap((sums) => kinds.map((kind) => rate(sums[kind] || 0, width))));
    },
    describe: () => kinds.map((kind) => `${units.size(totals[kind])} ${kind}`).join(", "),
    draw(chart) {
      const { width, found } = bars();
      for (const [slot, sums] of found) {
        kinds.forEach((kind) => {
          if (!sums[kind]) return;
          const x = chart.x(slot * width), y = chart.y(rate(sums[kind], width));
          const wide = Math.max(1, chart.x((slot + 1) * width) - x - 0.5);
          svg("rect", { x, y, width: wide, height: Math.max(0.5, chart.bottom - y), fill: colours[kind] }, chart.plot);
        });
      }
    },
    hover(time) {
      const { width, found } = bars();
      const sums = found.get(Math.floor(time / width));
      if (!sums) return "no new data";
      return kinds.filter((kind) => sums[kind]).map((kind) => `${kind}: ${units.rate(rate(sums[kind], width))} (${units.size(sums[kind])})`).join("\n");
    },
  });
}
