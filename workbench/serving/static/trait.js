import { $, ask, el, featureLink, fill, percent, show, signed } from "./shared.js";

const place = $("table");
const COLUMNS = [
  ["Feature", (row) => row.feature, (row) => featureLink(row.feature, `#${row.feature}`), "num"],
  ["Label", (row) => row.label, (row) => row.label ? featureLink(row.feature, row.label) : el("span", { class: "soft" }, "no label yet")],
  ["Category", (row) => row.category, (row) => row.label ? el("span", { class: `cat ${row.group}` }, row.category) : ""],
  ["Status", (row) => row.status, (row) => row.status ? el("span", { class: `status ${row.status}` }, row.status) : ""],
  ["Share", (row) => row.share, (row) => withNote(percent(row.share, 2), row.share_interval && `${percent(row.share_interval[0], 2)} to ${percent(row.share_interval[1], 2)}`), "num"],
  ["Cosine", (row) => row.cosine, (row) => signed(row.cosine), "num"],
  ["Placebo q", (row) => row.placebo_q, (row) => row.placebo_q === null ? "–" : row.placebo_q.toFixed(3), "num"],
  ["Causal effect", (row) => row.causal_odd, (row) => row.causal_odd === null ? "not tested" : withNote(signed(row.causal_odd, 3), row.verified ? "✓ verified" : "not verified"), "num"],
];
const withNote = (words, note) => note ? el("span", {}, words, el("small", {}, note)) : words;

const draw = (rows) => {
  const body = $("features").tBodies[0];
  const wanted = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) => wanted.every((word) => `${row.feature} ${row.label ?? ""} ${row.category} ${row.status ?? ""}`.toLowerCase().includes(word)));
  fill(body, ...kept.map((row) => el("tr", {}, ...COLUMNS.map(([, , cell, kind]) => el("td", { class: kind }, cell(row))))));
  $("count").textContent = `${kept.length} of ${rows.length} features`;
};

const start = async () => {
  const { features } = await ask(`/api/traits/${encodeURIComponent(place.dataset.trait)}`);
  const heads = COLUMNS.map(([name, key, , kind]) => {
    const head = el("th", { scope: "col", class: kind });
    head.append(el("button", { type: "button", onclick: () => {
      const falling = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : kind === "num";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      features.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return (falling ? -1 : 1) * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
      });
      draw(features);
    } }, name));
    return head;
  });
  fill($("features").tHead.rows[0], ...heads);
  $("find").addEventListener("input", () => draw(features));
  draw(features);
};
if (place) start().catch((error) => show(error, $("count")));
