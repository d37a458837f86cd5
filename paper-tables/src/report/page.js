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
      // Whole numbers above 2^53, such as seeds, are equal as numbers when they are not; their digits tell them apart.
      const digits = a.key.localeCompare(b.key, undefined, { numeric: true });
      const order = words ? digits : a.number - b.number || digits;
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
  document.getElementById("shown").textContent = `${shown} of ${rows.length} evaluations`;
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

// A legend highlights one curve: under the pointer, with the focus, or once it is clicked.
function light(figure, number) {
  figure.classList.toggle("lit", number !== undefined);
  for (const curve of figure.querySelectorAll(".curve")) curve.classList.toggle("on", curve.classList.contains(`k${number}`));
}
function pressed(figure) {
  return figure.querySelector('.legend [aria-pressed="true"]')?.dataset.curve;
}
function press(figure, button) {
  for (const other of figure.querySelectorAll(".legend button")) other.setAttribute("aria-pressed", String(other === button));
  light(figure, button?.dataset.curve);
}
for (const button of document.querySelectorAll(".legend button")) {
  const figure = button.closest("figure");
  for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => light(figure, button.dataset.curve));
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => light(figure, pressed(figure)));
  button.addEventListener("click", () => press(figure, button.getAttribute("aria-pressed") === "true" ? null : button));
}
// A panel's link to a chart highlights the panel's curve there.
for (const link of document.querySelectorAll(".panel a[data-label]")) link.addEventListener("click", () => {
  const figure = document.getElementById(link.hash.slice(1));
  press(figure, [...figure.querySelectorAll(".legend button")].find(button => button.dataset.label === link.dataset.label));
});

// A number opens its panel. Closing it, by its link or by Escape, leads back to that number.
let opener = null;
addEventListener("click", event => {
  const link = event.target.closest?.("a.number");
  if (link) opener = link;
});
function panel() {
  return location.hash && document.querySelector(`.panel[id="${CSS.escape(location.hash.slice(1))}"]`);
}
function close(event) {
  event.preventDefault();
  const place = scrollY, link = opener;
  // Only a navigation changes which element is the target.
  location.hash = "closed";
  history.replaceState(null, "", location.pathname + location.search);
  scrollTo({ top: place, behavior: "instant" });
  link?.focus({ preventScroll: true });
}
function shown() {
  for (const cell of document.querySelectorAll("td.opened")) cell.classList.remove("opened");
  const target = panel();
  if (!target) return;
  opener?.closest("td")?.classList.add("opened");
  target.focus({ preventScroll: true });
  target.scrollTop = 0;
}
for (const link of document.querySelectorAll(".panel .close")) link.addEventListener("click", event => { if (opener) close(event); });
addEventListener("keydown", event => { if (event.key === "Escape" && panel()) opener ? close(event) : panel().querySelector(".close").click(); });
addEventListener("hashchange", shown);
shown();

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
