import { $, ask, context, el, featureLink, fill, loaded, percent, short, show, signed, table } from "./shared.js";

const feature = Number($("feature").dataset.feature);
let now = null;

const author = (label) => [label.author.kind, label.author.name, label.author.method].filter(Boolean).join(" · ");
const score = (found) => !found || found.value === null ? "not scored" : `${String(found.kind).replaceAll("_", " ")} ${found.value.toFixed(2)}${found.interval ? ` [${found.interval[0].toFixed(2)}, ${found.interval[1].toFixed(2)}]` : ""}`;
const category = (label) => { const id = now.trait && label.categories[now.trait]; return id ? (now.categories.find((one) => one.id === id)?.name ?? id) : null; };

const labels = (place, listed) => fill(place, listed.length ? el("ul", { class: "said" }, ...listed.map((label) => el("li", {},
  el("strong", { class: label.status === "rejected" ? "rejected labelled" : "labelled" }, label.label), " ", el("span", { class: `status ${label.status}` }, label.status),
  el("span", { class: "src" }, [author(label), label.date.slice(0, 10), category(label), score(label.score)].filter(Boolean).join(" · ")),
  label.explanation ? el("span", {}, label.explanation) : null, label.notes ? el("span", { class: "src" }, label.notes) : null))) : el("p", { class: "note" }, "Nobody has labelled this feature."));

const draw = () => {
  $("name").textContent = now.label ? now.label.label : "no label yet";
  document.title = `${feature} ${now.label ? now.label.label : ""} · workbench explorer`;
  const density = now.stats ? now.stats.density : now.density, largest = now.stats ? now.stats.maximum : now.maximum;
  $("about").textContent = density === null ? "" : `Fires on ${percent(density, 2)} of ${now.stats ? `${now.stats.n_tokens.toLocaleString("en")} tokens read` : "the tokens read"}, at most ${short(largest)}.`;
  labels($("labels"), now.labels);
  table($("shares"), ["Vector", "Share", "Cosine", "Causal effect"], now.shares.map((row) => [
    el("a", { href: `/traits/${encodeURIComponent(row.trait)}` }, row.trait),
    el("span", {}, percent(row.share, 2), row.share_interval ? el("small", {}, `${percent(row.share_interval[0], 2)} to ${percent(row.share_interval[1], 2)}`) : ""),
    signed(row.cosine), row.causal_odd === null ? "not tested" : `${signed(row.causal_odd, 3)}${row.verified ? " ✓ verified" : ", not verified"}`]), { numeric: [1, 2, 3], caption: "Shares of the vectors" });
  const values = Object.values(now.contexts).flat().flatMap((found) => found.tokens.map(([, value]) => value));
  const highest = Math.max(...values, largest ?? 0, 1e-9);
  fill($("contexts"), ...Object.entries(now.contexts).flatMap(([name, listed]) => [el("h3", {}, name.charAt(0).toUpperCase() + name.slice(1)), el("ul", { class: "contexts", "aria-label": name }, ...listed.map((found) => context(found, highest)))]));
  $("contexts-from").textContent = `Contexts from ${now.contexts_from}.`;
  if (now.stats) counts(now.stats);
  form();
};

const svg = (name, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const counts = (stats) => {
  $("counts").hidden = false;
  if (stats.histogram.length) {
    const [low, high] = [Math.log2(stats.histogram[0][0]), Math.log2(stats.histogram.at(-1)[1])], most = Math.max(...stats.histogram.map(([, , n]) => n));
    const x = (value) => 10 + 460 * (Math.log2(value) - low) / (high - low);
    const bars = stats.histogram.map(([a, b, n]) => svg("rect", { class: "wbf-other", x: x(a) + 0.5, y: 90 - 80 * n / most, width: Math.max(1, x(b) - x(a) - 1), height: 80 * n / most }));
    const ends = [svg("text", { class: "wbf-soft", x: 10, y: 108 }, short(stats.histogram[0][0])), svg("text", { class: "wbf-soft", x: 470, y: 108, "text-anchor": "end" }, short(stats.histogram.at(-1)[1]))];
    const name = `Histogram of activations where it fires, from ${short(stats.histogram[0][0])} to ${short(stats.histogram.at(-1)[1])}, logarithmic`;
    fill($("histogram"), svg("svg", { class: "wbf", viewBox: "0 0 480 114", width: 480, height: 114, role: "img", "aria-label": name }, svg("line", { class: "wbf-axis", x1: 10, x2: 470, y1: 90.5, y2: 90.5 }), ...bars, ...ends),
      el("p", { class: "note" }, `Activations of its ${stats.n_fired.toLocaleString("en")} firings, logarithmic. Most on: `, ...stats.top_tokens.slice(0, 6).flatMap(([text, share]) => [el("span", { class: "bit" }, text), ` ${percent(share, 0)}  `])));
  }
  const rows = [...Object.entries(stats.roles).map(([role, rate]) => [`said by: ${role}`, rate]), ...Object.entries(stats.traits).flatMap(([trait, arms]) => Object.entries(arms).map(([arm, rate]) => [`${trait} replies, ${arm}`, rate]))];
  table($("rates"), ["Tokens", "Read", "Fires on", "Mean where it fires"], rows.map(([name, rate]) => [name, rate.n_tokens.toLocaleString("en"), percent(rate.density, 2), short(rate.mean)]), { numeric: [1, 2, 3], caption: "How often it fires, by kind of token" });
};

const direction = async () => {
  const state = await loaded();
  if (state.model.state !== "ready") { fill($("direction"), el("p", { class: "note" }, "The model could not be loaded.")); return; }
  const found = await ask(`/api/features/${feature}/direction`);
  const tokens = (name, listed, usual) => [el("h3", {}, name), el("ul", { class: "tokens", "aria-label": name }, ...listed.map(([text, value]) => el("li", { class: "tok", title: signed(value) }, text))), listed.length ? el("p", { class: "note" }, `First ${signed(listed[0][1])} logits per unit of code; the median first of other features: ${usual.toFixed(2)}.`) : null];
  const near = (name, listed) => [el("h3", {}, name), el("ul", { class: "said" }, ...listed.slice(0, 5).map((one) => el("li", {}, featureLink(one.feature, one.label || `feature ${one.feature}`), ` cosine ${signed(one.cosine)}`)))];
  fill($("direction"), ...tokens("Makes likelier", found.promoted, found.usual.promoted), ...tokens("Makes unlikelier", found.suppressed, found.usual.suppressed), ...near("Nearest directions", found.nearest), ...near("Most opposite", found.opposite));
};

// Only what the person has not begun to change is filled in.
const form = () => {
  if (!$("verdict")) return;
  const kept = $("category").value;
  fill($("category"), el("option", { value: "" }, "as proposed"), ...now.categories.map((one) => el("option", { value: one.id }, one.name)));
  $("category").value = kept;
  for (const button of $("verdict").querySelectorAll("button[name=verdict]")) button.disabled = button.value !== "edit" && button.value !== "dispute" && !now.labels.length;
};

const save = async (event) => {
  event.preventDefault();
  const verdict = event.submitter?.value || "edit", button = event.submitter;
  show(null); show(null, $("said"));
  if (button) button.disabled = true;
  localStorage.setItem("workbench-annotator", $("annotator").value);
  try {
    now = await ask(`/api/labels/${feature}`, { body: { verdict, annotator: $("annotator").value, version: now.version, label: verdict === "edit" ? $("label").value : null, category: $("category").value || null, note: $("note").value || null } });
    draw();
    fill($("said"), el("p", {}, `Saved: ${verdict}.`));
  } catch (error) {
    show(error, $("said"));
    if (error.told?.conflict) {  // what the person typed stays where it is
      const before = $("said").firstChild;
      now = await ask(`/api/features/${feature}`);
      draw();
      const place = el("div");
      labels(place, error.told.conflict.labels);
      fill($("said"), before, el("h3", {}, "It now says"), place);
    }
  } finally { if (button) button.disabled = false; form(); }
};

const start = async () => {
  if ($("annotator") && !$("annotator").value) $("annotator").value = localStorage.getItem("workbench-annotator") || "";
  $("verdict")?.addEventListener("submit", save);
  const before = await ask("/api/status");
  if (before.runs.state === "ready") { now = await ask(`/api/features/${feature}`); draw(); }
  const after = await loaded();
  if (before.index.state !== after.index.state || before.runs.state !== "ready") { now = await ask(`/api/features/${feature}`); draw(); }
  await direction();
};
start().catch(show);
