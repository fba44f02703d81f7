"use strict";
(() => {
const stage = document.getElementById("stage"), told = document.getElementById("told"), hits = document.getElementById("hits");
const points = [...stage.querySelectorAll(".pt")], view = document.getElementById("view"), find = document.getElementById("find");
document.querySelector(".walk").hidden = false;
const place = point => point.getAttribute("data-" + view.value).split(",").map(Number);
const tell = point => { told.textContent = point.getAttribute("aria-label"); };
const raise = point => { point.parentNode.appendChild(point); };
function look() {
  for (const point of points) point.setAttribute("transform", "translate(" + place(point).join(" ") + ")");
  for (const name of ["axis", "pc"])
    for (const frame of stage.querySelectorAll(".frame-" + name)) frame.setAttribute("display", name === view.value ? "inline" : "none");
}
function search() {
  const words = find.value.trim().toLowerCase();
  const found = points.filter(p => { const hit = words !== "" && p.dataset.name.replaceAll("_", " ").includes(words); p.classList.toggle("found", hit); return hit; });
  stage.classList.toggle("dimmed", found.length > 0);
  hits.textContent = words === "" ? "" : found.length === 0 ? "nobody" : found.length === 1 ? "1 character" : found.length + " characters";
  if (found.length) tell(found[0]);
  return found;
}
function step(from, key) {
  const along = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[key], [x, y] = place(from);
  let best = null, least = Infinity;
  for (const point of points) {
    const [px, py] = place(point), ahead = (px - x) * along[0] + (py - y) * along[1], aside = Math.abs((px - x) * along[1]) + Math.abs((py - y) * along[0]);
    if (point !== from && ahead > 0 && aside <= 2 * ahead && ahead + 2 * aside < least) { best = point; least = ahead + 2 * aside; }
  }
  return best;
}
for (const point of points) {
  point.addEventListener("pointerenter", () => tell(point));
  point.addEventListener("focus", () => tell(point));
  point.addEventListener("click", () => point.focus());
}
stage.addEventListener("keydown", event => {
  if (!event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
  const on = points.includes(document.activeElement) ? step(document.activeElement, event.key) : points[0];
  if (on) { raise(on); on.focus(); }
  event.preventDefault();
});
view.addEventListener("change", look);
find.addEventListener("input", search);
find.addEventListener("keydown", event => {
  if (event.key === "Enter") { const found = search(); if (found.length) { raise(found[0]); found[0].focus(); } }
  if (event.key === "Escape") { find.value = ""; search(); }
});
})();
