"use strict";
// The script of the report page: theme, selectors, figures (drawn when they come into view), downloads and sorted tables.
// The data of a figure is the JSON in its script element; encoding.py writes it. Values are in base units, axes divide by a factor.

const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const figures = new Map(); // figure element -> {element, data, view, sorted, drawn}

// Theme

const THEMES = ["system", "light", "dark"];

function remembered(value) {
  try {
    if (value) localStorage.setItem("moeprof-theme", value);
    return localStorage.getItem("moeprof-theme") || "system";
  } catch { // storage is refused, as for some pages that are opened from files
    return value || document.documentElement.dataset.theme || "system";
  }
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  redraw();
}

function redraw() {
  colours.clear();
  for (const figure of figures.values()) if (figure.drawn) drawSoon(figure);
}

const colours = new Map();

function colour(name) {
  // The colour that a variable of page.css has under the present theme; `light-dark()` is resolved by an element only.
  if (!colours.has(name)) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${name})`;
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

const faded = (name, opacity) => colour(name).replace("rgb(", "rgba(").replace(")", `, ${opacity})`);
const colourName = (series) => (typeof series.colour === "number" ? `c${series.colour % 8}` : series.colour);

// Selection

function viewFor(data, wanted, first) {
  // The view with the facet `first` and as many others as possible; earlier views win.
  const score = (view) =>
    Object.entries(wanted).reduce((sum, [name, choice]) => sum + (view.facets[name] === choice ? (name === first ? 100 : 1) : 0), 0);
  return data.views.reduce((best, view) => (score(view) > score(best) ? view : best));
}

function select(figure, facet, choice) {
  if (!figure.data.views.some((view) => view.facets[facet] === choice)) return;
  figure.view = viewFor(figure.data, { ...figure.view.facets, [facet]: choice }, facet);
  showSelection(figure);
  if (figure.drawn) drawSoon(figure);
}

function showSelection(figure) {
  for (const control of $$("[data-facet]", figure.element)) {
    const choice = figure.view.facets[control.dataset.facet];
    if (control.type === "range") {
      control.value = choicesOf(figure.data, control.dataset.facet).indexOf(choice);
      control.nextElementSibling.textContent = choice;
      control.setAttribute("aria-valuetext", choice);
    } else if (choice !== undefined) control.value = choice;
  }
  figure.element.querySelector(".readout").replaceChildren(...figure.view.readout.map(spelled));
  if (figure.element.querySelector(".data").open) fillTable(figure);
}

function spelled(piece) {
  // A part of a sentence: text, or a number with the rows that it comes from.
  if (typeof piece === "string") return piece;
  const element = document.createElement("span");
  Object.assign(element.dataset, { origin: piece.origin, value: piece.value });
  element.textContent = piece.text;
  return element;
}

const choicesOf = (data, facet) => [...new Set(data.views.map((view) => view.facets[facet]))].filter((choice) => choice !== undefined);

// Drawing

const FOUR_DIGITS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 }); // made once: large heat maps write many numbers
const number = (value) =>
  value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1e6)
    ? FOUR_DIGITS.format(value)
    : value.toExponential(2).replace(/\.?0+e/, "e");
const written = (axis, value) => {
  if (typeof value === "string") return value;
  const unit = axis.unit && axis.unit !== "%" && axis.unit !== "x" ? ` ${axis.unit}` : axis.unit;
  return `${number(value / axis.factor)}${unit}`;
};
const titled = (axis) => (axis.unit && axis.unit !== axis.name ? `${axis.name} (${axis.unit})` : axis.name);
const scaled = (axis, values) => values.map((value) => (typeof value === "number" ? value / axis.factor : value));
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const seriesOf = (data, view) =>
  [...data.common.filter((series) => Object.entries(series.only ?? {}).every(([name, choice]) => view.facets[name] === choice)), ...view.series];

function words(data, series, index) {
  const ends = series.low.length ? ` [${written(data.value, series.low[index])} to ${written(data.value, series.high[index])}]` : "";
  const remark = series.remarks.length && series.remarks[index] ? `; ${series.remarks[index]}` : "";
  const at = `${data.position.name} ${written(data.position, series.at[index])}`;
  return `${series.name}, ${at}: ${written(data.value, series.values[index])}${ends}${remark}`;
}

function traces(data, view) {
  const all = seriesOf(data, view);
  return all.flatMap((series, index) => [...band(data, series), trace(data, series, index)]);
}

const turned = (data, at, values) => (data.horizontal ? { x: values, y: at, orientation: "h" } : { x: at, y: values });
const DASHES = ["solid", "dash", "dot", "dashdot"], SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];

function trace(data, series, index) {
  const name = colourName(series), place = typeof series.colour === "number" ? series.colour : index;
  const spots = turned(data, scaled(data.position, series.at), scaled(data.value, series.values));
  const shared = { ...spots, name: escaped(series.name), text: series.at.map((_, each) => escaped(words(data, series, each))),
    hoverinfo: "text", textposition: "none", showlegend: true, legendrank: series.colour === "muted" ? 1001 : 1000 };
  if (series.shape === "bars")
    return { ...shared, type: "bar", marker: { color: colour(name) }, [data.horizontal ? "error_x" : "error_y"]: whiskers(data, series) };
  const marker = { color: colour(name), symbol: SYMBOLS[place % SYMBOLS.length], size: 8,
    line: { color: colour("page"), width: 1 } };
  if (series.shape === "area")
    return { ...shared, type: "scatter", mode: "lines", stackgroup: "all", fillcolor: faded(name, 0.75), hoveron: "points",
      line: { color: colour(name), width: 1, shape: "hv" } };
  const dots = series.shape === "dots";
  return { ...shared, type: "scatter", mode: dots ? "markers" : series.shape === "rule" || series.at.length > 40 ? "lines" : "lines+markers", marker,
    line: { color: colour(name), width: series.colour === "muted" ? 1.2 : 2.2, dash: series.colour === "ink" ? "dash" : DASHES[Math.floor(place / 8) % 4] },
    ...(dots ? { [data.horizontal ? "error_x" : "error_y"]: whiskers(data, series) } : {}) };
}

function whiskers(data, series) {
  if (!series.low.length) return { visible: false };
  const away = (ends, sign) => ends.map((end, index) => (sign * (end - series.values[index])) / data.value.factor);
  return { type: "data", symmetric: false, array: away(series.high, 1), arrayminus: away(series.low, -1), color: colour("faint"), thickness: 1.2, width: 3 };
}

function band(data, series) {
  if (series.shape !== "line" || !series.low.length) return [];
  const at = scaled(data.position, [...series.at, ...[...series.at].reverse()]);
  const ends = scaled(data.value, [...series.high, ...[...series.low].reverse()]);
  return [{ ...turned(data, at, ends), type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(colourName(series), 0.18),
    line: { width: 0 }, hoverinfo: "skip", showlegend: false }];
}

function heatTraces(figure) {
  // Cells in colour, and behind them those without a colour: no value, or 0 on a logarithmic scale. The colours of ratios rise with log2.
  const { data } = figure, heat = figure.view.heat, order = heatOrder(heat, figure.sorted);
  const at = (row, place) => heat.values[row][order[row][place]];
  const placed = (value) => (data.value.logarithmic ? (value > 0 ? Math.log2(value / data.value.factor) : null) : value / data.value.factor);
  const cells = heat.rows.map((_, row) => heat.columns.map((_, place) => (at(row, place) === null ? null : placed(at(row, place)))));
  const text = heat.rows.map((name, row) => lazily(heat.columns.length, (place) =>
    escaped(`${data.rows} ${name}, ${data.position.name} ${heat.columns[order[row][place]]}: ${at(row, place) === null ? "none" : written(data.value, at(row, place))}`)));
  const extremes = cells.flat().filter((value) => value !== null);
  const least = extremes.reduce((a, b) => Math.min(a, b), Infinity), most = extremes.reduce((a, b) => Math.max(a, b), -Infinity);
  const ends = [heat.low === null ? null : placed(heat.low), heat.high === null ? null : placed(heat.high)];
  const reach = Math.max(Math.abs(ends[0] ?? least), Math.abs(ends[1] ?? most)) || 1;
  const low = heat.diverging ? -reach : ends[0] ?? Math.min(least, 0), high = heat.diverging ? reach : ends[1] ?? most;
  const scale = heat.diverging
    ? [[0, colour("cold")], [0.5, colour("middle")], [1, colour("hot")]]
    : [[0, colour("middle")], [1, colour("cold")]];
  const ticks = heat.steps.length ? { tickvals: heat.steps.map(([value]) => placed(value)), ticktext: heat.steps.map(([, name]) => name) } : {};
  const names = figure.sorted ? heat.columns.map((_, place) => `#${place + 1}`) : heat.columns;
  const gap = { xgap: figure.element.clientWidth > 14 * heat.columns.length ? 1 : 0, ygap: heat.rows.length > 40 ? 0 : 1 };
  const shared = { type: "heatmap", x: names, y: heat.rows, ...gap };
  const empty = cells.map((row) => row.map((value, place) => (value === null && names[place].trim() ? 1 : null))); // a column without a name is a gap
  return [{ ...shared, z: empty, colorscale: [[0, colour("none")], [1, colour("none")]], showscale: false, hoverinfo: "skip" },
    { ...shared, z: cells, text, hoverinfo: "text", zmin: low, zmax: high, colorscale: scale,
      colorbar: { title: { text: titled(data.value), side: "right" }, thickness: 12, outlinewidth: 0, ...ticks } }];
}

function lazily(length, make) {
  // An array whose items are made when they are read: a large map has a hover text for every cell, of which few are ever shown.
  const get = (items, key) => (typeof key === "string" && /^\d+$/.test(key) && key < length ? make(Number(key)) : items[key]);
  return new Proxy(new Array(length), { get });
}

function heatOrder(heat, sorted) {
  const plain = heat.columns.map((_, index) => index);
  return heat.values.map((row) => (sorted ? [...plain].sort((a, b) => (row[b] ?? -Infinity) - (row[a] ?? -Infinity)) : plain));
}

function axisLayout(axis, isPosition, data, view) {
  const log = axis.logarithmic ? { type: "log", ...(isPosition ? powers(data, view) : decades(data, view)) } : isPosition ? wholes(data, view) : {};
  const named = isPosition && !axis.logarithmic && seriesOf(data, view).some((series) => series.at.some((at) => typeof at === "string"));
  const kind = view.heat ? { type: "category", showgrid: false }
    : named ? { type: "category", categoryorder: "array", categoryarray: merged(seriesOf(data, view)) } : log;
  return { title: { text: escaped(titled(axis)), standoff: 8 }, automargin: true, gridcolor: colour("rule"), zerolinecolor: colour("rule"),
    linecolor: colour("faint"), fixedrange: false, ...(isPosition ? {} : axis.logarithmic ? {} : { rangemode: "tozero" }), ...kind };
}

function merged(all) {
  // The names of all series in the order that each has them, also if some series lack some names.
  const found = [];
  for (const series of all) {
    let place = 0;
    for (const at of series.at) {
      if (!found.includes(at)) found.splice(place, 0, at);
      place = found.indexOf(at) + 1;
    }
  }
  return found;
}

const positionsOf = (data, view) => [...new Set(seriesOf(data, view).flatMap((series) => series.at))].map((at) => at / data.position.factor);

function powers(data, view) {
  // Ticks of a logarithmic position axis at the positions themselves where they are few, so that batches read 1, 2, 4, 8.
  const all = positionsOf(data, view), ticks = all.filter((at) => Number.isInteger(Math.log2(at)));
  const shown = all.length <= 8 && all.every(Number.isInteger) ? all : ticks.length > 2 ? ticks : [];
  return shown.length ? { tickvals: shown, ticktext: shown.map(number) } : {};
}

function wholes(data, view) {
  // Few whole numbers have no ticks between them: there is no round 1.5.
  const all = positionsOf(data, view), reach = Math.max(...all) - Math.min(...all);
  return all.every(Number.isInteger) && reach <= 10 ? { dtick: 1 } : {};
}

function decades(data, view) {
  // Ticks of a logarithmic value axis: 1, 2 and 5 times powers of ten, or the powers alone where those are many.
  const all = seriesOf(data, view).flatMap((series) => [...series.values, ...series.low, ...series.high]).filter((value) => value > 0);
  const low = Math.min(...all) / data.value.factor, high = Math.max(...all) / data.value.factor;
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  if (!Number.isFinite(first) || last - first > 6) return {};
  const digits = last - first > 3 ? [1] : [1, 2, 5];
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => digits.map((digit) => digit * 10 ** (first + index))).flat();
  return { tickvals: ticks, ticktext: ticks.map(number) };
}

function markShapes(data, view) {
  const shapes = [], notes = [];
  for (const mark of view.marks) {
    const axis = mark.across ? data.value : data.position, place = mark.value / axis.factor, flat = mark.across !== data.horizontal;
    const ends = flat ? { x0: 0, x1: 1, xref: "paper", y0: place, y1: place } : { y0: 0, y1: 1, yref: "paper", x0: place, x1: place };
    shapes.push({ type: "line", ...ends, line: { color: colour("ink"), width: 1.4, dash: "dash" } });
    const log = axis.logarithmic ? Math.log10(place) : place;
    const spot = flat ? { x: 0, xref: "paper", xanchor: "left", y: log, yanchor: "bottom" } : { y: 1, yref: "paper", yanchor: "top", x: log, xanchor: "left" };
    notes.push({ ...spot, text: escaped(`${mark.name} ${written(axis, mark.value)}`), showarrow: false, font: { color: colour("ink"), size: 12 }, bgcolor: colour("page") });
  }
  return { shapes, annotations: notes };
}

const places = (data, view) => new Set(seriesOf(data, view).flatMap((series) => series.at)).size;

function legendHeight(data, view, width) {
  // What the rows of the legend but the first take, so that they leave the plot its height on a phone.
  const names = seriesOf(data, view).map((series) => series.name.length), widest = 50 + 7 * Math.max(...names);
  return 19 * (Math.ceil(names.length / Math.max(1, Math.floor(width / widest))) - 1);
}

function height(data, view, width) {
  if (view.heat) return Math.min(900, Math.max(240, 110 + (view.heat.rows.length > 24 ? 10 : 20) * view.heat.rows.length));
  const all = seriesOf(data, view), legend = legendHeight(data, view, width);
  if (!data.horizontal) return 380 + legend;
  return legend + Math.max(220, 110 + places(data, view) * (all.some((series) => series.shape === "bars") ? 10 + 13 * all.length : 32));
}

// Figures are drawn one after the other, so that the page answers to its reader between two of them

const waiting = new Set();

function drawSoon(figure) {
  waiting.add(figure);
  if (waiting.size === 1) setTimeout(drawNext);
}

function drawNext() {
  const [figure] = waiting;
  if (figure) draw(figure);
  if (waiting.size) setTimeout(drawNext);
}

function draw(figure) {
  waiting.delete(figure);
  const { data, view, element } = figure, plot = element.querySelector(".plot");
  const content = view.heat ? heatTraces(figure) : traces(data, view);
  const position = axisLayout(data.position, true, data, view), value = { ...axisLayout(data.value, false, data, view), ...sharedRange(figure) };
  const rows = { automargin: true, autorange: "reversed", type: "category", showgrid: false, title: { text: escaped(data.rows) } };
  const [x, y] = view.heat ? [position, rows] : data.horizontal ? [value, { ...position, autorange: "reversed" }] : [position, value];
  const many = content.filter((each) => each.showlegend).length > 1;
  const layout = {
    height: height(data, view, plot.clientWidth), margin: { l: 50, r: 16, t: 8, b: 40 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: 12.5 }, xaxis: x, yaxis: y, barmode: "group",
    bargap: places(data, view) > 4 ? 0.25 : 0.6, hovermode: "closest",
    dragmode: false, showlegend: many, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("muted"), font: { color: colour("ink") }, align: "left", namelength: -1 },
    ...markShapes(data, view),
  };
  Plotly.react(plot, content, layout, { displayModeBar: false, responsive: true, showTips: false, staticPlot: false, displaylogo: false });
  plot.classList.add("drawn");
  if (!figure.drawn) {
    plot.on("plotly_click", (event) => open(figure, event.points[0]));
    plot.on("plotly_hover", (event) => tell(figure, event.points[0].text ?? event.points[0].data.text[event.points[0].pointIndex]));
  }
  figure.drawn = true;
  figure.cursor = -1;
}

const tell = (figure, text) => { figure.element.querySelector(".told").textContent = text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&"); };

function open(figure, point) {
  // A click on a position selects it in the figure that this one opens.
  if (!figure.data.opens || !point) return;
  const [name, facet] = figure.data.opens, choice = figure.data.horizontal ? point.y : point.x;
  const other = document.getElementById(figure.element.id.replace(/^(r\d+-).*/, "$1") + name);
  if (!other) return;
  const target = load(other);
  target.view = viewFor(target.data, { ...figure.view.facets, [facet]: choice }, facet);
  showSelection(target);
  draw(target);
  other.focus({ preventScroll: true });
  other.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}

// Keyboard: arrows go from point to point, Enter opens

function step(figure, by) {
  if (!figure.drawn || waiting.has(figure)) draw(figure);
  const plot = figure.element.querySelector(".plot"), points = [];
  plot.data.forEach((each, curve) => {
    if (each.hoverinfo === "skip") return;
    if (each.type === "heatmap") each.z.forEach((row, y) => row.forEach((_, x) => points.push({ curve, index: [y, x], x: each.x[x], y: each.y[y] })));
    else each.x.forEach((_, index) => points.push({ curve, index, x: each.x[index], y: each.y[index] }));
  });
  if (!points.length) return;
  figure.cursor = ((figure.cursor ?? -1) + by + points.length) % points.length;
  figure.current = points[figure.cursor];
  const { curve, index } = figure.current, { text } = plot.data[curve];
  Plotly.Fx.hover(plot, [{ curveNumber: curve, pointNumber: index }]);
  tell(figure, Array.isArray(index) ? text[index[0]][index[1]] : text[index]);
}

function press(event) {
  const figure = figures.get(event.currentTarget);
  if (event.target !== event.currentTarget) return;
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (by) { event.preventDefault(); step(figure, by); }
  if (event.key === "Enter" && figure.current) open(figure, figure.current);
}

// Data of a figure: rows as data_table.py makes them, of every view for downloads

const based = (axis) => (axis.base ? `${axis.name} (${axis.base})` : axis.name);

function viewRows(data, view) {
  if (view.heat)
    return view.heat.rows.flatMap((row, index) => view.heat.columns.map((column, place) => [row, column, view.heat.values[index][place]]));
  return rowsOf(seriesOf(data, view));
}

const rowsOf = (all) => all.flatMap((series) =>
    series.at.map((at, index) => [series.name, at, series.values[index], series.low[index] ?? "", series.high[index] ?? "", series.remarks[index] ?? ""]));

const columnsOf = (data, view) =>
  view.heat ? [data.rows, data.position.name, based(data.value)] : ["series", based(data.position), based(data.value), "low", "high", "remark"];

function csv(data) {
  const facets = Object.keys(data.views[0].facets);
  const lines = [[...facets, ...columnsOf(data, data.views[0])]];
  const add = (chosen, rows) => { for (const row of rows) lines.push([...facets.map((facet) => chosen[facet] ?? ""), ...row]); };
  for (const series of data.common) add(series.only ?? {}, rowsOf([series]));
  for (const view of data.views) add(view.facets, view.heat ? viewRows(data, view) : rowsOf(view.series));
  return lines.map((line) => line.map(csvCell).join(",")).join("\n") + "\n";
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // no formula in a spreadsheet
  return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

function save(figure, kind) {
  const name = figure.element.id.replace(/^r\d+-/, "");
  if (kind === "svg") {
    if (!figure.drawn) draw(figure);
    const plot = figure.element.querySelector(".plot");
    Plotly.downloadImage(plot, { format: "svg", filename: name, width: plot.clientWidth, height: plot.clientHeight });
    return;
  }
  const text = kind === "csv" ? csv(figure.data) : JSON.stringify(figure.data, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  link.download = `${name}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const MOST_ROWS = 1000;

function fillTable(figure) {
  const body = figure.element.querySelector(".data tbody"), rows = viewRows(figure.data, figure.view), labels = figure.view.heat ? 2 : 1;
  body.replaceChildren(...rows.slice(0, MOST_ROWS).map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((value, index) => {
      const cell = document.createElement(index === 0 ? "th" : "td");
      if (index === 0) cell.scope = "row";
      if (index < labels) cell.className = "word";
      cell.textContent = typeof value === "number" ? String(Number(value.toPrecision(7))) : value ?? "-";
      return cell;
    }));
    return line;
  }));
  const left = rows.length > MOST_ROWS ? ` The first ${MOST_ROWS} of ${rows.length} rows; the downloads have all.` : "";
  const caption = figure.element.querySelector(".data .caption");
  if (caption) caption.textContent = `${Object.values(figure.view.facets).join(", ")}.${left}`;
}

// Tables outside figures: a click on a column sorts by it

function sortable(table) {
  if (table.tBodies[0].rows.length < 3) return;
  for (const head of table.tHead.rows[0].cells) {
    if (!head.textContent) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(table, head));
    head.replaceChildren(button);
  }
}

function sortBy(table, head) {
  const falling = head.ariaSort === "ascending", sign = falling ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const key = (row) => { const cell = row.cells[head.cellIndex]; return cell.dataset.value ? Number(cell.dataset.value) : cell.textContent; };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * compare(key(a), key(b))));
}

// Start

function load(element) {
  if (!figures.has(element)) {
    const data = JSON.parse(element.querySelector("script").textContent), first = siblings(element)[0];
    if (first !== element) Object.assign(data, { value: load(first).data.value, position: { ...data.position, ...unitOf(load(first).data.position) } });
    figures.set(element, { element, data, view: data.views[data.first], sorted: false, drawn: false });
  }
  return figures.get(element);
}

// The same figure of several runs has the same units and the same value axis, so that bars can be compared by eye

const siblings = (element) => $$(`figure[id$="-${element.id.replace(/^r\d+-/, "")}"]`).filter((other) => /^r\d+-/.exec(other.id)[0] + element.id.replace(/^r\d+-/, "") === other.id);
const unitOf = ({ factor, unit }) => ({ factor, unit });

function sharedRange(figure) {
  const others = siblings(figure.element), { value } = figure.data;
  if (others.length < 2 || value.logarithmic || figure.view.heat) return {};
  const seen = others.map((each) => load(each)).flatMap(({ data }) => {
    const view = viewFor(data, figure.view.facets), all = seriesOf(data, view);
    if (all.some((series) => series.shape === "area")) return all[0].at.map((_, index) => all.reduce((sum, series) => sum + (series.values[index] ?? 0), 0));
    return all.flatMap((series) => [...series.values, ...series.high]);
  });
  const most = seen.reduce((a, b) => Math.max(a, b), -Infinity), least = seen.reduce((a, b) => Math.min(a, b), 0);
  return most > least ? { range: [(least * 1.05) / value.factor, (most * 1.05) / value.factor] } : {};
}

function wire(element) {
  const figure = load(element);
  for (const control of $$("[data-facet]", element))
    control.addEventListener("input", () => {
      const facet = control.dataset.facet;
      select(figure, facet, control.type === "range" ? choicesOf(figure.data, facet)[control.value] : control.value);
    });
  const order = element.querySelector("[data-sort]");
  if (order) order.addEventListener("change", () => { figure.sorted = Boolean(order.value); drawSoon(figure); });
  element.addEventListener("keydown", press);
  for (const button of $$("[data-save]", element)) button.addEventListener("click", () => save(figure, button.dataset.save));
  element.querySelector(".data").addEventListener("toggle", (event) => { if (event.target.open) fillTable(figure); });
  for (const hidden of $$("[hidden]", element)) hidden.hidden = false;
  return figure;
}

function wanted() {
  return Object.fromEntries($$("#selectors [data-facet]").map((control) => [control.dataset.facet, control.value]));
}

function start() {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      const figure = wire(entry.target), chosen = touched ? wanted() : {};
      for (const [facet, choice] of Object.entries(chosen)) select(figure, facet, choice);
      showSelection(figure);
      drawSoon(figure);
    }
  }, { rootMargin: "300px" });
  let touched = false;
  for (const element of $$("figure")) watcher.observe(element);
  for (const control of $$("#selectors [data-facet]"))
    control.addEventListener("change", () => {
      touched = true;
      for (const figure of figures.values()) select(figure, control.dataset.facet, control.value);
    });
  const run = document.getElementById("run");
  if (run) run.addEventListener("change", () => {
    for (const part of $$(".run")) part.hidden = run.value !== "" && part.dataset.run !== run.value;
    window.dispatchEvent(new Event("resize"));
  });
  for (const table of $$("section table")) if (!table.closest("figure")) sortable(table);
  const theme = document.getElementById("theme");
  theme.hidden = false;
  document.getElementById("selectors").hidden = false;
  setTheme(remembered());
  theme.addEventListener("click", () => setTheme(remembered(THEMES[(THEMES.indexOf(remembered()) + 1) % 3])));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (matchMedia("(max-width: 640px)").matches) document.querySelector("nav details").open = false;
  window.addEventListener("beforeprint", () => { for (const element of $$("figure")) if (!load(element).drawn) draw(wire(element)); });
  for (const link of $$("nav a")) link.addEventListener("click", () => { const folded = document.querySelector(`${link.hash} > details`); if (folded) folded.open = true; });
}

start();
