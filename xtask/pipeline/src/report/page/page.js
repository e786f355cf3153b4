"use strict";
// Draws the page's charts and pictures from the data in it. Names come from recipes and texts, so they only
// ever become text, never markup.
(() => {
  const root = document.documentElement;
  let data, charts = [];
  // What the reader has chosen, by figure, so that a page that is renewed keeps it.
  const chosen = { shown: new Map(), controls: new Map(), zoom: new Map() };

  // --- numbers ---------------------------------------------------------------------------------------
  const UNITS = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  function count(value) {
    const unit = UNITS.find(([size]) => Math.abs(value) >= size);
    const trim = (number) => String(Number(number.toPrecision(4)));
    return unit ? `${trim(value / unit[0])} ${unit[1]}` : trim(value);
  }
  function digits(value) {
    const size = Math.abs(value);
    return size >= 100 ? value.toFixed(1) : size >= 1 ? value.toFixed(3) : Number(value.toPrecision(3)).toString();
  }

  // --- colours ---------------------------------------------------------------------------------------
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const DASHES = [[], [7, 4], [2, 3]];
  /** The baseline is drawn in ink, the others in the order of the legend. */
  const styles = (items) => items.map(({ look }) => (
    { variable: look.colour === null ? "--base" : `--c${look.colour}`, dash: look.dash }));
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  function swatch(style) {
    const made = element("span", { className: `swatch ${["", "dashed", "dotted"][style.dash]}` });
    made.style.color = `var(${style.variable})`;
    return made;
  }

  // --- one chart -------------------------------------------------------------------------------------
  /**
   * `spec`: { xLabel, yLabel, logX, logY, lines: [{ key, name, style, x, y, deviation?, marks? }], goals? }.
   * Each line has x values of its own; uPlot aligns them.
   */
  function plot(panel, spec, hidden, height, id) {
    const lines = spec.lines.filter((line) => line.x.length > 0);
    const positive = (log, value) => (log && !(value > 0) ? null : value);
    const tables = [], series = [{}], bands = [], owners = [];
    for (const line of lines) {
      const rows = line.x.map((_, row) => row).filter((row) => positive(spec.logX, line.x[row]) !== null);
      const at = (values) => rows.map((row) => positive(spec.logY, values[row] ?? null));
      const table = [rows.map((row) => line.x[row]), at(line.y)];
      const stroke = () => colour(line.style.variable);
      const show = !hidden.has(line.key);
      owners.push(line);
      series.push({ label: line.name, stroke, width: 1.8, dash: DASHES[line.style.dash], show,
        points: { show: rows.length < 2, size: 6 } });
      if (line.deviation?.length) {
        const edge = (sign) => at(line.y.map((value, row) => {
          const deviation = line.deviation[row];
          return value === null || deviation === null ? value : value + sign * deviation;
        }));
        table.push(edge(1), edge(-1));
        for (let side = 0; side < 2; side++) {
          owners.push(null);
          series.push({ stroke: "transparent", width: 0, show, points: { show: false }, owner: line });
        }
        bands.push({ series: [series.length - 2, series.length - 1], fill: () => fade(colour(line.style.variable)) });
      }
      tables.push(table);
    }
    if (!tables.some((table) => table[0].length > 0)) {
      panel.replaceChildren(element("p", { className: "note", textContent: "Nothing to draw on this scale." }));
      return null;
    }
    const tip = element("div", { className: "tip", hidden: true });
    const axis = (extra) => ({
      stroke: () => colour("--muted"), grid: { stroke: () => colour("--rule"), width: 0.5 },
      ticks: { stroke: () => colour("--rule"), width: 0.5, size: 5 }, font: "11px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif", labelSize: 18, ...extra,
    });
    const values = (format) => (u, splits) => splits.map((split) => (split === null ? "" : format(split)));
    const options = {
      width: Math.max(220, panel.clientWidth), height, padding: [10, 14, 0, 0],
      scales: {
        x: { time: false, distr: spec.logX ? 3 : 1 },
        y: { distr: spec.logY ? 3 : 1, range: spec.range ? (u, low, high) => spec.range(u, low, high) : undefined },
      },
      axes: [
        axis({ label: spec.xLabel, values: values(count), space: 64, size: 34 }),
        axis({ label: spec.yLabel, values: values(count), space: 34, size: 52 }),
      ],
      series, bands,
      cursor: { points: { size: 7 }, drag: { x: true, y: false }, focus: { prox: 24 }, y: false },
      focus: { alpha: 0.35 },
      legend: { show: false },
      hooks: {
        draw: [(u) => decorate(u, spec, lines, hidden)],
        setSelect: [(u) => {
          const { left, width } = u.select;
          if (width > 0) chosen.zoom.set(id, [u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
        }],
        setCursor: [(u) => showTip(u, tip, spec, owners)],
      },
    };
    panel.replaceChildren();
    const made = new uPlot(options, uPlot.join(tables), panel);
    made.over.append(tip);
    made.over.addEventListener("mouseleave", () => { tip.hidden = true; });
    made.over.addEventListener("dblclick", () => chosen.zoom.delete(id));
    const zoom = chosen.zoom.get(id);
    if (zoom) made.setScale("x", { min: zoom[0], max: zoom[1] });
    const toggle = (key, show) => {
      made.batch(() => series.forEach((own, at) => {
        const line = own.owner ?? owners[at - 1];
        if (at > 0 && line?.key === key) made.setSeries(at, { show });
      }));
    };
    return { made, toggle, tip };
  }
  const fade = (value) => `color-mix(in srgb, ${value} 17%, transparent)`;

  /** The dashed line of the goal, and rings where it is passed. */
  function decorate(u, spec, lines, hidden) {
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const goal of spec.goals ?? []) {
      const y = u.valToPos(goal.loss, "y", true);
      ctx.strokeStyle = colour("--muted");
      ctx.lineWidth = ratio;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
    ctx.save();
    for (const line of lines) {
      if (!line.mark || hidden.has(line.key)) continue;
      const [x, y] = [u.valToPos(line.mark[0], "x", true), u.valToPos(line.mark[1], "y", true)];
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
      ctx.beginPath();
      ctx.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
      ctx.fillStyle = colour("--paper");
      ctx.fill();
      ctx.lineWidth = 2 * ratio;
      ctx.strokeStyle = colour(line.style.variable);
      ctx.stroke();
    }
    ctx.restore();
  }

  /** What the curves say where the cursor is, the highest first, as they lie. */
  function showTip(u, tip, spec, owners) {
    const { left, top, idxs } = u.cursor;
    if (left === undefined || left < 0 || !idxs) { tip.hidden = true; return; }
    const rows = [];
    owners.forEach((line, at) => {
      const index = idxs[at + 1];
      if (!line || !u.series[at + 1].show || index === null || index === undefined) return;
      const value = u.data[at + 1][index];
      if (value === null || value === undefined) return;
      const own = line.x.indexOf(u.data[0][index]);
      rows.push({ line, value, x: u.data[0][index], deviation: line.deviation?.[own] ?? null });
    });
    if (rows.length === 0) { tip.hidden = true; return; }
    rows.sort((one, other) => other.value - one.value);
    const nearest = rows.reduce((best, row) => {
      const far = (own) => Math.abs(u.valToPos(own.x, "x") - left);
      return far(row) < far(best) ? row : best;
    });
    const shown = rows.slice(0, 16).map(({ line, value, deviation }) => {
      const text = digits(value) + (deviation === null ? "" : ` ± ${digits(deviation)}`);
      return element("div", { className: "row" }, swatch(line.style),
        element("span", { textContent: line.name }), element("span", { textContent: text }));
    });
    if (rows.length > 16) shown.push(element("div", { className: "at", textContent: `and ${rows.length - 16} more` }));
    tip.replaceChildren(element("div", { className: "at", textContent: `${spec.xLabel}: ${count(nearest.x)}` }), ...shown);
    tip.hidden = false;
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const room = u.over.clientWidth;
    tip.style.left = `${Math.max(-40, left + 14 + width > room ? left - 14 - width : left + 14)}px`;
    tip.style.top = `${Math.max(0, Math.min((top ?? 0) - height / 2, u.over.clientHeight - height))}px`;
  }

  // --- figures ---------------------------------------------------------------------------------------
  /** A figure: panels, a legend that chooses what they show, and controls. `specs` makes the panels' contents. */
  function figure(node, items, specs, initiallyHidden, height) {
    const panels = node.querySelector("[data-panels]"), legend = node.querySelector(".legend");
    const name = node.dataset.figure, shown = chosen.shown.get(name) ?? new Map();
    chosen.shown.set(name, shown);
    const hidden = new Set(items.flatMap((item, at) =>
      (shown.get(item.name) ?? !initiallyHidden.includes(at) ? [] : [at])));
    const look = styles(items);
    let plots = [];
    function draw() {
      const wanted = specs(look);
      while (panels.children.length > wanted.length) panels.lastChild.remove();
      while (panels.children.length < wanted.length) panels.append(element("div", { className: "panel", tabIndex: 0 }));
      plots.forEach((old) => old?.made.destroy());
      plots = wanted.map((spec, at) => {
        const panel = panels.children[at];
        panel.setAttribute("role", "group");
        panel.setAttribute("aria-label", `${spec.yLabel} over ${spec.xLabel}; arrow keys move along the curves`);
        return plot(panel, spec, hidden, height, `${name}: ${spec.yLabel} over ${spec.xLabel}, ${spec.logX ? "log" : ""}`);
      });
      [...panels.children].forEach((panel, at) => { panel.onkeydown = (event) => step(event, plots[at]); });
    }
    function step(event, own) {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!own || !direction) return;
      event.preventDefault();
      const { made } = own, xs = made.data[0];
      const now = made.cursor.idx ?? (direction > 0 ? -1 : xs.length);
      const next = Math.min(xs.length - 1, Math.max(0, now + direction));
      made.setCursor({ left: made.valToPos(xs[next], "x"), top: made.over.clientHeight / 2 });
    }
    const buttons = items.map((item, at) => {
      const button = element("button", { type: "button" }, swatch(look[at]),
        element("span", { className: "label", textContent: item.name }));
      if (item.seeds > 1) button.append(element("span", { className: "seeds", textContent: `${item.seeds} seeds` }));
      button.onclick = () => choose(at, !hidden.has(at) ? false : true);
      button.ondblclick = () => items.forEach((_, other) => choose(other, other === at));
      return button;
    });
    function choose(at, show) {
      if (show) hidden.delete(at); else hidden.add(at);
      shown.set(items[at].name, show);
      buttons[at].setAttribute("aria-pressed", String(show));
      plots.forEach((own) => own?.toggle(at, show));
    }
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(!hidden.has(at))));
    legend.replaceChildren(...buttons);
    if (items.length > 2) {
      const all = element("button", { type: "button", className: "all", textContent: "all" });
      all.onclick = () => items.forEach((_, at) => choose(at, true));
      legend.append(all);
    }
    draw();
    const own = {
      node, draw, height,
      clear: () => plots.forEach((old) => old?.made.destroy()),
      resize: (width) => plots.forEach((each, at) => {
        const wide = width ?? panels.children[at]?.clientWidth;
        if (each && wide > 0) each.made.setSize({ width: wide, height });
      }),
    };
    charts.push(own);
    return own;
  }

  const valueOf = (control) => (control.type === "checkbox" ? "checked" : "value");

  function curves(node) {
    const control = (name) => node.querySelector(`[data-control="${name}"]`);
    const measures = data.measures.filter(({ name }) => data.sets.some((set) => set.values[name]));
    const select = control("measure");
    select.replaceChildren(...measures.map(({ name, label }) => element("option", { value: name, textContent: label })));
    const specs = (look) => {
      const { name, label, scale, late: falls } = measures.find((own) => own.name === select.value) ?? measures[0];
      const axes = control("axis").value === "both" ? ["steps", "total_flops"] : [control("axis").value];
      const scaled = (values) => values.map((value) => (value === null ? null : scale * value));
      // A loss falls so far at first that nothing else would be seen.
      const late = control("start").checked || !falls ? null : (values) => values.slice(Math.max(1, Math.floor(values.length / data.late)));
      return axes.map((x) => ({
        xLabel: data.axes[x], yLabel: label, logX: control("log-x").checked, logY: control("log-y").checked,
        goals: name === "loss" ? data.goals : [],
        range: late && ((u, low, high) => {
          const tops = u.series.flatMap((own, at) => {
            if (at === 0 || !own.show) return [];
            return late(u.data[at].filter((value) => value !== null && value !== undefined));
          });
          const top = tops.reduce((most, value) => Math.max(most, value), -Infinity);
          if (!(top > low)) return uPlot.rangeNum(low ?? 0, high ?? 1, 0.1, true);
          const room = data.room * (top - low);
          return [low - room, Math.min(high, top) + room];
        }),
        lines: data.sets.flatMap((set, at) => {
          const values = set.values[name];
          if (!values) return [];
          const bands = control("bands")?.checked;
          return [{
            key: at, name: set.name, style: look[at], x: set[x], y: scaled(values.mean),
            deviation: bands && values.deviation ? scaled(values.deviation) : [],
            mark: name === "loss" && set.passes ? [x === "steps" ? set.passes.step : set.passes[x], set.passes.loss] : null,
          }];
        }),
      }));
    };
    const controls = node.querySelectorAll("[data-control]");
    controls.forEach((own) => {
      const earlier = chosen.controls.get(own.dataset.control);
      if (earlier !== undefined) own[valueOf(own)] = earlier;
    });
    // A measure that is no longer there.
    if (select.selectedIndex < 0) select.selectedIndex = 0;
    const made = figure(node, data.sets, specs, hidden(), 320);
    node.querySelector(".controls").hidden = false;
    node.querySelector(".controls").onchange = () => {
      controls.forEach((own) => chosen.controls.set(own.dataset.control, own[valueOf(own)]));
      made.draw();
    };
  }

  /** Those that are not compared, if others are. */
  const hidden = () => data.sets.flatMap((set, at) => (set.hidden ? [at] : []));

  function context(node) {
    figure(node, data.sets, (look) => [{
      xLabel: data.axes.steps, yLabel: data.measures.find(({ name }) => name === "context_gain").label,
      lines: data.sets.flatMap((set, at) => {
        const values = set.values.context_gain;
        return values ? [{ key: at, name: set.name, style: look[at], x: set.steps, y: values.mean, deviation: values.deviation ?? [] }] : [];
      }),
    }], hidden(), 240);
  }

  /** Charts of their own, with the same models. */
  const fixed = (name, height) => (node) => figure(node, data[name][0].lines, (look) => data[name].map((plot) => ({
    xLabel: plot.x_label, yLabel: plot.y_label,
    lines: plot.lines.map((line, at) => ({ ...line, key: at, style: look[at] })),
  })), [], height);

  /** A matrix as a picture: two hexadecimal digits a cell, the paper's colour for zero. */
  function picture(canvas) {
    const own = data.weights.find((each) => each.id === canvas.dataset.matrix);
    const cells = own?.cells[canvas.dataset.snapshot];
    if (!cells) return;
    const [rows, columns] = own.size, longest = Math.max(rows, columns);
    const side = Math.max(1, Math.round(480 / longest));
    canvas.width = columns * side;
    canvas.height = rows * side;
    canvas.style.aspectRatio = `${columns} / ${rows}`;
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = colour("--paper");
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.fillStyle = colour("--c0");
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = 2 * (row * columns + column);
        ctx.globalAlpha = parseInt(cells.slice(at, at + 2), 16) / 255;
        ctx.fillRect(column * side, row * side, side, side);
      }
    }
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour("--c1");
    const thin = Math.max(1, canvas.width / 320);
    for (const cut of own.row_cuts) ctx.fillRect(0, cut * side - thin / 2, canvas.width, thin);
    for (const cut of own.column_cuts) ctx.fillRect(cut * side - thin / 2, 0, thin, canvas.height);
  }

  // --- the page --------------------------------------------------------------------------------------
  const FIGURES = {
    curves, context, glue: fixed("glue", 260), courses: fixed("courses", 260), symmetry: fixed("symmetry", 240),
  };
  const pictures = () => document.querySelectorAll("canvas[data-matrix]").forEach(picture);
  /** Draws what is in the document. */
  function show() {
    data = JSON.parse(document.getElementById("data").textContent);
    charts = [];
    document.querySelectorAll("[data-figure]").forEach((node) => FIGURES[node.dataset.figure](node));
    pictures();
    document.querySelectorAll("time[data-seconds]").forEach((time) => {
      const date = new Date(1000 * time.dataset.seconds);
      time.dateTime = date.toISOString();
      time.textContent = `${time.dateTime.slice(0, 16).replace("T", " ")} UTC`;
    });
  }
  show();

  const redraw = () => { charts.forEach((chart) => chart.draw()); pictures(); };
  let waiting;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => charts.forEach((chart) => chart.resize()));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper is white, and as wide as this.
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    redraw();
    charts.forEach((chart) => {
      const panels = chart.node.querySelectorAll(".panel").length;
      chart.resize(panels > 1 ? 320 : 660);
    });
  });
  addEventListener("afterprint", () => { delete root.dataset.theme; redraw(); });

  // --- a page that follows its runs ------------------------------------------------------------------
  const live = document.querySelector("[data-live]");
  if (live) {
    const EVERY = 2000; // milliseconds
    let version = `"${live.dataset.live}"`, renewed = new Date();
    const time = (date) => date.toTimeString().slice(0, 8);
    const say = (text, bad) => { live.textContent = text; live.classList.toggle("bad", bad); };

    /** By the headings that lead to it, since others may have come before it. */
    function detailsByName(scope) {
      const found = new Map();
      scope.querySelectorAll("details").forEach((own) => {
        const names = [];
        for (let at = own; at; at = at.parentElement?.closest("details")) names.push(at.firstElementChild.textContent);
        const place = own.closest("section")?.id, key = JSON.stringify([place, ...names]);
        found.set(key, own);
      });
      return found;
    }

    /** Puts the new page's contents in the place of the old ones; what the reader chose, opened and read stays. */
    function renew(html) {
      const page = new DOMParser().parseFromString(html, "text/html");
      const opened = detailsByName(document), focus = focused();
      const scrolled = [...document.querySelectorAll(".scroll")].map((own) => own.scrollLeft);
      const y = scrollY;
      charts.forEach((chart) => chart.clear());
      for (const name of ["header", "main", "footer"]) document.querySelector(name).replaceWith(page.querySelector(name));
      document.getElementById("data").textContent = page.getElementById("data").textContent;
      document.title = page.title;
      detailsByName(document).forEach((own, key) => { if (opened.has(key)) own.open = opened.get(key).open; });
      show();
      const scrolls = document.querySelectorAll(".scroll");
      if (scrolls.length === scrolled.length) scrolls.forEach((own, at) => { own.scrollLeft = scrolled[at]; });
      scrollTo({ top: y, behavior: "instant" });
      focus?.()?.focus({ preventScroll: true });
    }
    /** How to find the control again that has the focus. */
    function focused() {
      const own = document.activeElement, node = own?.closest("[data-figure]");
      if (!node) return null;
      const inside = "select, input, button, [tabindex]";
      const at = [...node.querySelectorAll(inside)].indexOf(own), name = node.dataset.figure;
      return () => document.querySelector(`[data-figure="${name}"]`)?.querySelectorAll(inside)[at];
    }

    async function ask() {
      let answer, text;
      try {
        answer = await fetch("/", { headers: { "If-None-Match": version }, cache: "no-store" });
        text = await answer.text();
      } catch {
        say(`The program no longer answers. This is the state of ${time(renewed)}.`, true);
        return;
      }
      if (answer.status === 200) {
        version = answer.headers.get("ETag");
        renewed = new Date();
        renew(text);
      } else if (answer.status !== 304) {
        say(`${text} This is the state of ${time(renewed)}.`, true);
        return;
      }
      say(`Live; last changed at ${time(renewed)}.`, false);
    }
    // Not while nobody looks, nor while a part of a figure is being chosen.
    let held = false;
    for (const kind of ["mousedown", "mouseup", "mousemove"]) {
      addEventListener(kind, (event) => { held = event.buttons !== 0; });
    }
    (async () => {
      for (;;) {
        if (!document.hidden && !held) await ask();
        await new Promise((done) => setTimeout(done, EVERY));
      }
    })();
  }
})();
