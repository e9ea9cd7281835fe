"use strict";

// One panel a source, made when the source first appears. Nothing of what a source is called or says
// is ever taken for HTML.
const panels = [];
const connection = document.getElementById("connection");
const pictures = document.getElementById("sources");

function milliseconds(value) {
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function panel(number) {
  if (!panels[number]) {
    const copy = document.getElementById("source").content.cloneNode(true).firstElementChild;
    pictures.append(copy);
    panels[number] = copy;
  }
  return panels[number];
}

function put(parent, name, text) {
  parent.querySelector(name).textContent = text;
}

function bars(svg, histogram, bounds) {
  const space = "http://www.w3.org/2000/svg";
  const width = 320, height = 110, foot = 16;
  const counts = histogram.counts, most = Math.max(1, ...counts), step = width / counts.length;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `median ${milliseconds(histogram.p50_ms)}, 99 % ${milliseconds(histogram.p99_ms)}, largest ${milliseconds(histogram.max_ms)}`);
  svg.replaceChildren();
  counts.forEach((count, index) => {
    const bar = document.createElementNS(space, "rect");
    const tall = count ? Math.max(1, (count / most) * (height - foot - 2)) : 0;
    bar.setAttribute("x", index * step + 1);
    bar.setAttribute("y", height - foot - tall);
    bar.setAttribute("width", step - 2);
    bar.setAttribute("height", tall);
    svg.append(bar);
    if (index < bounds.length && index % 4 === 1) {
      const text = document.createElementNS(space, "text");
      text.setAttribute("x", (index + 1) * step);
      text.setAttribute("y", height - 3);
      text.setAttribute("text-anchor", "middle");
      text.textContent = bounds[index] >= 1000 ? `${bounds[index] / 1000} s` : `${bounds[index]}`;
      svg.append(text);
    }
  });
}

function showSource(source, number, bounds) {
  const place = panel(number);
  const image = place.querySelector("img");
  if (source.frames && !image.getAttribute("src")) image.src = `/picture/${number}.mjpg`;
  const dot = place.querySelector(".dot");
  dot.className = `dot ${source.health}`;
  dot.title = source.health;
  put(place, ".name", `${source.source || "source"} — ${source.health}${source.detail ? `: ${source.detail}` : ""}`);
  put(place, ".fps", source.fps.toFixed(1));
  put(place, ".age-p50", milliseconds(source.age.p50_ms));
  put(place, ".age-p99", milliseconds(source.age.p99_ms));
  put(place, ".latency-p50", milliseconds(source.latency.p50_ms));
  put(place, ".frames", source.frames.toLocaleString("en"));
  const dropped = Object.entries(source.dropped);
  put(place, ".dropped", dropped.reduce((sum, [, count]) => sum + count, 0).toLocaleString("en"));
  put(place, ".reasons", dropped.length ? `dropped: ${dropped.map(([reason, count]) => `${reason} ${count.toLocaleString("en")}`).join(", ")}` : "");
  bars(place.querySelector("svg.age"), source.age, bounds);
  bars(place.querySelector("svg.latency"), source.latency, bounds);
}

function showDevice(telemetry) {
  const rows = [
    ...Object.entries(telemetry.temperature_c).map(([name, value]) => [name, `${value.toFixed(1)} °C`]),
    ...Object.entries(telemetry.power_mw).map(([name, value]) => [name, `${(value / 1000).toFixed(2)} W`]),
    ...Object.entries(telemetry.clocks_mhz).map(([name, value]) => [name, `${value.toFixed(0)} MHz`]),
    ...(telemetry.gpu_load_percent === null ? [] : [["GPU load", `${telemetry.gpu_load_percent.toFixed(0)} %`]]),
    ...telemetry.throttled.map((reason) => ["throttled", reason]),
  ];
  document.getElementById("device").hidden = !rows.length;
  document.getElementById("telemetry").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    row.append(term, text);
    return row;
  }));
}

const events = new EventSource("/events");
events.onmessage = (message) => {
  const status = JSON.parse(message.data);
  connection.textContent = `up ${Math.floor(status.up_s / 60)} min ${Math.floor(status.up_s % 60)} s`;
  status.sources.forEach((source, number) => showSource(source, number, status.bounds_ms));
  showDevice(status.telemetry);
};
events.onerror = () => { connection.textContent = "not connected; trying again"; };
