// What every page uses. Texts of models and files only ever become text nodes: nothing here makes HTML of a string.

export const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "onclick") made.addEventListener("click", value);
    else if (key === "vars") for (const [name, set] of Object.entries(value)) made.style.setProperty(name, set);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};
export const $ = (id) => document.getElementById(id);
export const fill = (place, ...children) => place.replaceChildren(...children.filter((child) => child !== null && child !== undefined));

export class Refused extends Error {
  constructor(status, told) { super(told.found); this.status = status; this.told = told; }
}
export const api = async (path, { body, signal } = {}) => {
  const options = body === undefined ? { signal } : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal };
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  let told = { found: `the explorer answered ${answer.status}`, expected: "", remedy: "" };
  const text = await answer.text();
  try { told = JSON.parse(text); } catch { if (text) told.found = text; }
  throw new Refused(answer.status, told);
};
export const ask = async (path, options) => (await api(path, options)).json();

export const sentence = (told) => [told.found, told.expected && `Expected: ${told.expected}`, told.remedy]
  .filter(Boolean).map((part) => part.charAt(0).toUpperCase() + part.slice(1) + (/[.!?]$/.test(part) ? "" : ".")).join(" ");
export const show = (error, place = $("message")) => {
  if (!error) { fill(place); return; }
  if (error.name === "AbortError") return;
  const words = error instanceof Refused ? sentence(error.told) : "The explorer does not answer: is it still running in the terminal?";
  fill(place, el("ul", { class: "warnings" }, el("li", {}, words)));
};

export const signed = (value, digits = 2) => value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
export const percent = (value, digits = 1) => value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits).replace("-", "−")}%`;
export const short = (value) => value === null || value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
export const featureLink = (feature, label) => el("a", { href: `/features/${feature}`, class: "labelled" }, label || `feature ${feature}`);
export const cellOf = (value) => value instanceof Node ? value : String(value ?? "–");

export const table = (place, names, rows, { numeric = [], caption = "" } = {}) => {
  const heads = names.map((name, index) => el("th", { scope: "col", class: numeric.includes(index) ? "num" : null }, name));
  const lines = rows.map((row) => el("tr", {}, ...row.map((value, index) => el("td", { class: numeric.includes(index) ? "num" : null }, cellOf(value)))));
  fill(place, caption ? el("caption", { class: "hidden" }, caption) : null, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...lines));
};
// How long a bar is, as a share of the longest one.
export const bar = (share, minus = false) => el("span", { class: minus ? "fill minus" : "fill", "aria-hidden": "true", vars: { width: `${Math.round(100 * Math.min(1, Math.max(0, share)))}%` } });

// A token's shade: how far its value is from 0, as a share of `full`; below 0 in the other colour, beyond `far` underlined.
export const shade = (made, value, { full, far }) => {
  made.style.setProperty("--a", Math.min(1, Math.abs(value ?? 0) / full).toFixed(2));
  made.classList.toggle("minus", value < 0);
  made.classList.toggle("far", Math.abs(value ?? 0) > far);
};
// What tokens can be coloured by, in a reading of the explorer: {values, full, far, unit} of a projection or of a feature.
export const byProjection = (found) => {
  if (found.deviations) return { values: found.deviations, full: 4, far: 2, unit: `Projection on ${found.trait} in standard deviations of tokens of neutral replies, from their mean. Orange: toward ${found.trait}; blue: away from it; underlined: more than 2; full colour: 4.` };
  const largest = Math.max(...found.cosine.map((value) => Math.abs(value ?? 0)), 1e-9);
  return { values: found.cosine, full: largest, far: Infinity, unit: `Cosine with the ${found.trait} vector, full colour ${largest.toFixed(2)}. This run kept no neutral replies to measure it against.` };
};
export const byFeature = (reading, feature) => {
  const values = reading.tokens.map((token) => (token.features.find(([other]) => other === feature) || [0, 0])[1]);
  const known = reading.maxima[feature], full = Math.max(...values, known || 0, 1e-9);
  return { values, full, far: Infinity, unit: `Activation of feature ${feature}${reading.labels[feature] ? `, “${reading.labels[feature]}”` : ""}; full colour is ${short(full)}, its largest in ${known ? "the index" : "this text"}.` };
};

// A context of a feature: shading is the activation, the underlined token the peak; numbers on hover and on focus.
export const context = (found, highest) => {
  const pieces = found.tokens.map(([text, value], index) => value > 0 || index === found.peak
    ? el("mark", { class: index === found.peak ? "peak" : null, "data-v": value.toFixed(2), vars: { "--a": Math.min(1, Math.max(0, value / highest)).toFixed(2) } }, text) : text);
  const body = found.tokens.length ? el("p", { class: "ctx", dir: "auto", tabindex: "0" }, ...pieces) : el("p", { class: "note" }, "The text of this source may not be passed on; its place is recorded.");
  return el("li", {}, body, el("span", { class: "src" }, `${found.source} · peak ${found.value.toFixed(2)}`));
};

// The state of loading, asked for until it does not change any more.
const WORDS = { runs: "reading the run", index: "opening the index", model: "loading the model" };
let ready = null;
export const status = async () => ask("/api/status");
const follow = async (resolve) => {
  const place = $("state");
  try {
    const now = await status();
    if (document.body.dataset.runs !== "ready" && now.runs.state === "ready") { location.reload(); return; }
    const failed = Object.keys(WORDS).filter((part) => now[part].state === "failed");
    const loading = Object.keys(WORDS).find((part) => ["waiting", "loading"].includes(now[part].state));
    place.className = `state ${loading ? "work" : failed.length ? "failed" : "ready"}`;
    const words = loading ? `${WORDS[loading]} …` : failed.length ? `${failed.join(", ")}: failed` : `${now.model_name} ready`;
    if (place.textContent !== words) place.textContent = words;
    if (failed.length) place.title = failed.map((part) => now[part].message).join(" ");
    if (failed.length && !loading) show(new Refused(503, { found: failed.map((part) => now[part].message).join(" ") }), $("message") || el("div"));
    if (!loading) { resolve(now); return; }
  } catch (error) {
    place.className = "state failed";
    place.textContent = "the explorer does not answer";
  }
  setTimeout(() => follow(resolve), 700);
};
// Resolves once everything is loaded (or has failed).
export const loaded = () => { ready ??= new Promise((resolve) => follow(resolve)); return ready; };
loaded();

export const hash = () => new URLSearchParams(location.hash.slice(1));
