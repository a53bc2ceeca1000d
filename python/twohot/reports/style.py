"""How a page of a report looks, and the one script on it, which shows the values of a plot under a pointer."""

from __future__ import annotations

from twohot.reports.palette import variables

STYLE = f"""
:root {{ color-scheme: light dark; --page: #f6f7f9; --text: #1d232c; --soft: #5d6673; --rule: #dde1e7;
  --yes: #0b5fa5; --yes-back: #e3eef8; --no: #5d6673; --no-back: #eceef1; --shade: #1d232c38;
  {variables(dark=False)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #14171c; --text: #e6e9ee; --soft: #9aa4b2; --rule: #2d333d;
  --yes: #9ecbf2; --yes-back: #14324d; --no: #aab3bf; --no-back: #262c35; --shade: #000000b0;
  {variables(dark=True)} }} }}
"""

STYLE += """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
.kicker { margin: 0; color: var(--soft); font-size: 13px; }
h1 { margin: 2px 0 20px; font-size: 30px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 19px; font-weight: 650; }
section { margin-top: 44px; padding-top: 22px; border-top: 1px solid var(--rule); }
.summary { margin: -10px 0 22px; }
p { max-width: 75ch; margin: 0 0 14px; }
.facts { display: flex; flex-wrap: wrap; gap: 14px 36px; margin: 0; }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; font-size: 17px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.note, figcaption { color: var(--soft); font-size: 13.5px; }
.note { margin: 8px 0 22px; } header .note { margin: 18px 0 0; }
.missing { color: var(--soft); font-style: italic; }
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--page) 40%, transparent) 0 0 / 44px 100% no-repeat local,
  linear-gradient(to left, var(--page) 40%, transparent) 100% 0 / 44px 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) 0 0 / 14px 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) 100% 0 / 14px 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { color: var(--soft); font-weight: 500; font-size: 12.5px; text-align: left; vertical-align: bottom; }
th, td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
.wide { width: 100%; }
.narrow th, .narrow td { padding-right: 30px; }
td:first-child { overflow-wrap: break-word; max-width: 42ch; }
td:first-child code { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
small { display: inline-block; min-width: 5ch; color: var(--soft); font-size: 12px; }
.stacked small { display: block; white-space: normal; }
.stacked td:last-child:not(.number) { max-width: 30ch; }
.yes, .no { display: inline-block; padding: 0 9px; border-radius: 9px; font-size: 12.5px; white-space: nowrap; }
.yes { color: var(--yes); background: var(--yes-back); }
.no { color: var(--no); background: var(--no-back); }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
figure { margin: 0 0 26px; }
figcaption { max-width: 90ch; margin-top: 10px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 22px; max-width: none; margin-bottom: 10px; font-size: 13px; }
.key i { display: inline-block; width: 24px; margin-right: 8px; vertical-align: middle; }
.panels { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
.c2 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.c3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.c4 { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.panel { padding: 10px 10px 6px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  min-width: 0; break-inside: avoid; display: flex; flex-direction: column; justify-content: space-between; }
.panel h3 { margin: 0 4px 4px; font-size: 13px; font-weight: 600; overflow-wrap: anywhere; }
.marks { position: absolute; }
.plot { display: block; width: 100%; height: 250px; padding: 8px 14px 44px var(--left); overflow: visible;
  touch-action: pan-y; }
.named { padding-top: 34px; }
.h2 { height: 225px; } .h3 { height: 210px; } .h4 { height: 195px; }
.plot text { fill: var(--ink); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.plot .label { fill: var(--label); }
.plot .x { text-anchor: middle; } .plot .y { text-anchor: end; }
.grid line { stroke: var(--grid); } .grid .axis { stroke: var(--axis); }
.data { overflow: visible; }
.data path, .guide { vector-effect: non-scaling-stroke; }
.line { fill: none; stroke: var(--c); stroke-linejoin: round; }
.band { fill: var(--c); stroke: none; fill-opacity: .14; } .bar { fill: var(--c); stroke: none; }
.error { stroke: var(--c); }
.guide { stroke: var(--label); stroke-dasharray: 2 2; pointer-events: none; }
.tip { position: fixed; z-index: 1; max-width: min(440px, 94vw); padding: 6px 10px; pointer-events: none;
  background: var(--card); color: var(--text); border: 1px solid var(--axis); border-radius: 5px; font-size: 12.5px;
  line-height: 1.45; font-variant-numeric: tabular-nums; box-shadow: 0 2px 10px var(--shade); overflow-wrap: anywhere; }
.tip[hidden] { display: none; }
.tip i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; }
.tip div:first-child { color: var(--soft); }
details summary { cursor: pointer; margin-bottom: 8px; }
@media (max-width: 900px) { .c3, .c4 { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 760px) { main { padding: 28px 16px 48px; } }
@media (max-width: 560px) { .c2, .c3, .c4 { grid-template-columns: minmax(0, 1fr); }
  .h1 .odd { display: none; } }
@media print { .panel { break-inside: avoid; } .tip { display: none; } }
"""

SCRIPT = """
"use strict";
(() => {
  // Reads values off the paths as they are drawn: places from 0 to 1000, and what the ends of the axes stand for.
  const SIDE = 1000;
  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  const plots = document.querySelectorAll("svg.plot"), hint = document.createElement("p");
  hint.className = "note";
  hint.append("For its values, point at a plot, touch it, or select it and use the arrow keys.");
  if (plots.length) document.querySelector("header").append(hint);
  const axis = (text) => {
    const [low, high, log] = text.split(" ");
    return { low: +low, span: high - low, log };
  };
  const write = (place, { low, span, log }, unit) => {
    // In steps of a thousandth of the axis or so, which is as much as a path tells.
    const digits = 3 - Math.floor(Math.log10(span));
    let value = low + (span * place) / SIDE;
    if (log || Math.abs(digits) > 12) value = +(log ? 10 ** value : value).toPrecision(3);
    else value = Math.round(value * 10 ** digits) / 10 ** digits + 0;
    const most = Math.abs(value);
    const short = most && (most < 1e-4 || most >= 1e12);
    const text = short ? String(value) : value.toLocaleString("en", { maximumFractionDigits: 9 });
    return text.replace("-", "\\u2212") + (unit ? " " + unit : "");
  };
  const points = (text) => [...text.matchAll(/(-?[\\d.]+) (-?[\\d.]+)/g)].map((found) => [+found[1], +found[2]]);
  const at = (curve, x) => {
    const end = curve.findIndex((point) => point[0] >= x - 0.05);
    if (end < 0 || (end === 0 && curve[0][0] > x + 0.05)) return null;
    const [x1, y1] = curve[end], [x0, y0] = curve[Math.max(end - 1, 0)];
    return x1 - x0 < 0.1 || x >= x1 ? y1 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
  };
  const read = (plot) => [...plot.querySelectorAll(".data > g")].map((group) => {
    const line = group.querySelector(".line"), band = group.querySelector(".band");
    const curve = points(group.dataset.points || line.getAttribute("d"));
    const outline = band ? points(band.getAttribute("d")) : [];
    const half = outline.length / 2;
    return {
      curve, name: group.dataset.name || "", colour: group.style.getPropertyValue("--c"),
      high: outline.slice(0, half), low: outline.slice(half).reverse(),
    };
  });
  const row = (text, colour) => {
    const line = tip.appendChild(document.createElement("div"));
    if (colour) line.appendChild(document.createElement("i")).style.background = colour;
    line.append(text);
  };
  for (const plot of plots) {
    let lines, stops, guide, place = -1;
    const start = () => {
      if (lines) return;
      lines = read(plot);
      stops = [...new Set(lines.flatMap((line) => line.curve.map((point) => point[0])))].sort((a, b) => a - b);
    };
    const hide = () => {
      tip.hidden = true;
      if (guide) guide.remove();
      guide = null;
    };
    const show = (index, pointer) => {
      place = index;
      const x = stops[index], data = plot.dataset, y = axis(data.y);
      tip.replaceChildren();
      row(`${data.label} ${data.labels ? data.labels.split(" ")[index] : write(x, axis(data.x), "")}`);
      for (const { curve, name, colour, high, low } of lines) {
        const value = at(curve, x);
        if (value === null) continue;
        const text = (found) => write(SIDE - found, y, data.yunit);
        const bounds = low.length ? ` (${text(at(low, x))} to ${text(at(high, x))})` : "";
        row(`${name ? name + ": " : ""}${text(value)}${bounds}`, lines.length > 1 ? colour : "");
      }
      if (!guide) {
        guide = plot.appendChild(document.createElementNS(plot.namespaceURI, "line"));
        guide.setAttribute("class", "guide");
        guide.setAttribute("y2", "100%");
      }
      guide.setAttribute("x1", `${x / 10}%`);
      guide.setAttribute("x2", `${x / 10}%`);
      tip.hidden = false;
      const box = plot.getBoundingClientRect(), inner = inside(box);
      const across = inner.left + (inner.width * x) / SIDE, up = pointer ?? box.top + 20;
      const right = across + 14 + tip.offsetWidth < innerWidth;
      tip.style.left = `${Math.max(4, right ? across + 14 : across - 14 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(4, Math.min(up - tip.offsetHeight - 14, innerHeight - tip.offsetHeight - 4))}px`;
    };
    const inside = (box) => {
      const style = getComputedStyle(plot), left = parseFloat(style.paddingLeft);
      return { left: box.left + left, width: box.width - left - parseFloat(style.paddingRight) };
    };
    const point = (event) => {
      start();
      if (!stops.length) return;
      const inner = inside(plot.getBoundingClientRect());
      const x = ((event.clientX - inner.left) / inner.width) * SIDE;
      const distance = (index) => Math.abs(stops[index] - x);
      show(stops.reduce((best, _, index) => (distance(index) < distance(best) ? index : best), 0), event.clientY);
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", hide);
    plot.tabIndex = 0;
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      start();
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") hide();
      if (!step || !stops.length) return;
      event.preventDefault();
      show(Math.min(Math.max(place + step, 0), stops.length - 1));
    });
  }
})();
"""
