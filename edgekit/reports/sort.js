// A click on a column's head sorts the table by it; on it again, the other way round.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const isNumeric = head.classList.contains("right");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Of numbers the largest come first, of words A.
      const first = isNumeric ? "descending" : "ascending";
      const other = isNumeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sort(table.tBodies[0], column, isNumeric, order === "descending" ? -1 : 1);
    });
  });
}

function sort(body, column, isNumeric, sign) {
  const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[column], isNumeric) }));
  // What is missing stays at the end either way.
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    return sign * (isNumeric ? a.key - b.key || 0 : a.key.localeCompare(b.key, "en", { numeric: true }));
  });
  body.append(...rows.map(({ row }) => row));
}

function key(cell, isNumeric) {
  const text = cell.textContent.trim();
  if (text === "" || text === "–") return null;
  if (!isNumeric) return text;
  return Number(text.replaceAll(",", "").replaceAll("−", "-").replace("∞", "Infinity"));
}
