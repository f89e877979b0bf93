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
