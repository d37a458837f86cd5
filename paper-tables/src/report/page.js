"use strict";

// The buttons in a table's head sort it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const order = head.getAttribute("aria-sort");
    const up = order === "descending" || (order === "none" && head.classList.contains("up"));
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const lines = [...table.tBodies[0].rows].map(row => {
      const key = row.cells[column].dataset.value, number = Number(key);
      return { row, key, number };
    });
    // Empty values last, in either order.
    lines.sort((a, b) => {
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      const words = Number.isNaN(a.number) || Number.isNaN(b.number);
      const order = words ? a.key.localeCompare(b.key, undefined, { numeric: true }) : a.number - b.number;
      return up ? order : -order;
    });
    table.tBodies[0].append(...lines.map(line => line.row));
  }));
}

// The list of cells shows those that contain every word and are in the chosen state.
const search = document.getElementById("filter"), state = document.getElementById("state");
const rows = [...document.querySelectorAll("#cell-list tbody tr")];
const texts = rows.map(row => row.textContent.toLowerCase());
function choose() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, at) => {
    const wanted = state.value === "all" || row.dataset.state === state.value
      || (state.value === "flagged" && row.dataset.flagged === "yes");
    const show = wanted && words.every(word => texts[at].includes(word));
    row.hidden = !show;
    shown += show;
  });
  document.getElementById("shown").textContent = `${shown} of ${rows.length} cells`;
}
search.addEventListener("input", choose);
state.addEventListener("change", choose);

// A link to a place inside a closed section opens it.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);

// The navigation marks the section that is being read.
const links = new Map([...document.querySelectorAll("nav a")].map(link => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-25% 0px -70% 0px" });
for (const id of links.keys()) seen.observe(document.getElementById(id));
