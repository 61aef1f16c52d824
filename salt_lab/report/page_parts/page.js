"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Tables sort by a button in each head; what has no number goes last either way.
function valueOf(row, column) {
  const text = row.cells[column].firstChild ? row.cells[column].innerText.split("\n")[0].trim() : "";
  const number = parseFloat(text.replace(/\u2212/g, "-").replace(/,/g, "").replace(/^[<[\s]+/, ""));
  return { text, number };
}
function compare(a, b, direction) {
  const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
  if (numbers) return direction * (a.number - b.number);
  if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
  return direction * a.text.localeCompare(b.text, undefined, { numeric: true });
}
function sort(head, column) {
  const table = head.closest("table");
  const direction = head.getAttribute("aria-sort") === (head.classList.contains("word") ? "ascending" : "descending") ? "second" : "first";
  const ascending = head.classList.contains("word") === (direction === "first");
  all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((a, b) => compare(a.value, b.value, ascending ? 1 : -1));
  body.append(...rows.map((one) => one.row));
}
for (const table of all("table")) {
  if (table.tBodies.length === 0 || table.tBodies[0].rows.length < 2) continue;
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
}

// A pair of pictures opens large.
const dialog = document.querySelector("dialog");
for (const open of all(".open")) {
  open.addEventListener("click", () => {
    const item = open.closest("li");
    const place = dialog.querySelector(".place");
    place.replaceChildren(...all(".two, .told", item).map((part) => part.cloneNode(true)));
    all(".open", place).forEach((button) => button.replaceWith(...button.childNodes));
    all("text", place).forEach((text) => text.setAttribute("font-size", 0.6 * text.getAttribute("font-size")));
    dialog.showModal();
  });
}
if (dialog) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// What differs between two runs.
const data = JSON.parse(document.getElementById("runs").textContent);
const [first, second] = all(".controls select");
function showDifferences() {
  const [a, b] = [data.rows[first.value], data.rows[second.value]];
  const body = document.querySelector("#differences tbody");
  body.replaceChildren();
  data.keys.forEach(([group, key], column) => {
    if (a[column] === b[column]) return;
    const row = body.insertRow();
    [group, key, data.texts[a[column]], data.texts[b[column]]].forEach((text, at) => {
      const cell = at === 1 ? document.createElement("th") : document.createElement("td");
      if (at === 1) cell.scope = "row";
      cell.className = at > 1 ? "word long" : "word";
      cell.textContent = text;
      row.append(cell);
    });
  });
  const names = all("#differences thead th");
  [first, second].forEach((select, at) => { names[at + 2].querySelector(".run").textContent = data.runs[select.value]; });
  document.getElementById("alike").hidden = body.rows.length > 0;
  document.getElementById("differences").hidden = body.rows.length === 0;
}
if (first) {
  [first, second].forEach((select) => select.addEventListener("change", showDifferences));
  showDifferences();
}

// Paper has no folds.
let folded = [];
addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach((one) => { one.open = true; }); });
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
