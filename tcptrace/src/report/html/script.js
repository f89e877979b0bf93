"use strict";
// Tables: a click on a heading sorts, a word in the field above filters. Without scripts they are tables all the same.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length > 5) {
    const field = document.createElement("input");
    field.className = "filter";
    field.type = "search";
    field.placeholder = "filter " + body.rows.length + " rows";
    field.setAttribute("aria-label", "filter rows");
    field.addEventListener("input", () => {
      const word = field.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(word);
    });
    table.before(field);
  }
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
        const numbers = body.querySelector("tr td:nth-child(" + (column + 1) + ").n") !== null;
        if (numbers) return (isNaN(x) ? -1 : x) - (isNaN(y) ? -1 : y);
        return value(a).localeCompare(value(b), undefined, { numeric: true });
      };
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
  });
}

// Commands: a button that copies.
for (const command of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    const text = command.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // Of a page that was opened as a file, some browsers allow no clipboard: then it is at least selected.
      getSelection().selectAllChildren(command.querySelector("code"));
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  command.append(button);
}

// Charts: the values under the pointer; a drag zooms all charts to that time, a double click shows all of it again.
const charts = [...document.querySelectorAll(".chart")].map((frame) => ({
  frame,
  start: Number(frame.dataset.start),
  bin: Number(frame.dataset.bin) * 1000,
  bins: Number(frame.dataset.bins),
  plots: [...frame.querySelectorAll("svg")],
  labels: [...frame.querySelectorAll(".times span")].map((span) => ({ span, whole: span.textContent })),
}));
const clock = (ms) => new Date(ms).toISOString().slice(11, 19) + " UTC";
const zoom = (from, to) => {
  for (const chart of charts) {
    const whole = from === null;
    const first = whole ? 0 : (from - chart.start) / chart.bin;
    const last = whole ? chart.bins : (to - chart.start) / chart.bin;
    for (const plot of chart.plots) {
      const height = plot.viewBox.baseVal.height;
      plot.setAttribute("viewBox", first + " 0 " + Math.max(last - first, 0.01) + " " + height);
    }
    const times = [first, (first + last) / 2, last];
    chart.labels.forEach(({ span, whole: text }, at) => {
      span.textContent = whole ? text : clock(chart.start + times[at] * chart.bin);
    });
  }
};
for (const chart of charts) {
  const place = (event) => {
    const box = chart.plots[0].getBoundingClientRect();
    const view = chart.plots[0].viewBox.baseVal;
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return { bin: view.x + view.width * share, x: box.left + box.width * share };
  };
  const readout = chart.frame.querySelector("output");
  let begun = null;
  let brush = null;
  chart.frame.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("svg")) return;
    begun = place(event);
    brush = document.createElement("div");
    brush.className = "brush";
    chart.frame.append(brush);
  });
  window.addEventListener("pointermove", (event) => {
    if (begun === null && !chart.frame.contains(event.target)) return;
    const now = place(event);
    const bin = Math.min(chart.bins - 1, Math.max(0, Math.floor(now.bin)));
    const values = chart.plots.filter((plot) => plot.dataset.values !== undefined).map((plot) => {
      const value = plot.dataset.values.split(",")[bin];
      return plot.dataset.name + " " + (value === "" || value === undefined ? "not known" : value + " " + plot.dataset.unit);
    });
    readout.textContent = clock(chart.start + bin * chart.bin) + ": " + values.join("; ");
    if (begun === null) return;
    const left = chart.frame.getBoundingClientRect().left;
    brush.style.left = Math.min(begun.x, now.x) - left + "px";
    brush.style.width = Math.abs(now.x - begun.x) + "px";
  });
  const end = (event) => {
    if (begun === null) return;
    const now = place(event);
    brush.remove();
    if (event.type === "pointerup" && Math.abs(now.x - begun.x) > 4) {
      const [from, to] = [Math.min(begun.bin, now.bin), Math.max(begun.bin, now.bin)];
      zoom(chart.start + from * chart.bin, chart.start + to * chart.bin);
    }
    begun = null;
  };
  window.addEventListener("pointerup", end);
  window.addEventListener("pointercancel", end);
  chart.frame.addEventListener("pointerleave", () => { if (begun === null) readout.textContent = ""; });
  chart.frame.addEventListener("dblclick", () => zoom(null, null));
}
