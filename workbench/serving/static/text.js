import { $, ask, bar, byFeature, byProjection, el, featureLink, fill, hash, loaded, percent, shade, short, show, signed, table } from "./shared.js";

let reading = null, chosen = null, pressed = 0;
const kind = () => document.querySelector("input[name=kind]:checked").value;
const remember = () => sessionStorage.setItem("workbench-text", JSON.stringify({ kind: kind(), ...Object.fromEntries(["text", "system", "user", "assistant"].map((id) => [id, $(id).value])) }));
const recall = () => {
  const kept = JSON.parse(sessionStorage.getItem("workbench-text") || "null");
  if (!kept) return;
  for (const id of ["text", "system", "user", "assistant"]) $(id).value = kept[id] || "";
  document.querySelector(`input[name=kind][value=${kept.kind === "chat" ? "chat" : "text"}]`).checked = true;
};
const sides = () => { $("as-text").hidden = kind() !== "text"; $("as-chat").hidden = kind() !== "chat"; };

const request = () => {
  if (kind() === "text") return { text: $("text").value };
  const said = ["system", "user", "assistant"].map((role) => ({ role, content: $(role).value }));
  return { messages: said.filter((message) => message.content.trim()) };
};

const colour = () => {
  const [what, which] = chosen.split(":");
  const by = what === "feature" ? byFeature(reading, Number(which)) : byProjection(reading.projections[Number(which)]);
  [...$("tokens").querySelectorAll(".t")].forEach((made, index) => {
    shade(made, by.values[index], by);
    made.title = reading.tokens[index].counts ? short(by.values[index]) : "does not count: first, special or sink";
  });
  $("legend").textContent = by.unit;
};

const press = (index, focus = true) => {
  const all = [...$("tokens").querySelectorAll(".t")];
  all[pressed]?.setAttribute("tabindex", "-1");
  all[pressed]?.removeAttribute("aria-pressed");
  pressed = Math.max(0, Math.min(all.length - 1, index));
  all[pressed].setAttribute("tabindex", "0");
  all[pressed].setAttribute("aria-pressed", "true");
  if (focus) all[pressed].focus();
  token(pressed);
};

const token = (index) => {
  const found = reading.tokens[index];
  fill($("token-title"), "Token ", el("span", { class: "bit" }, found.text || "(part of a character)"));
  const facts = reading.projections.map((one) => [el("dt", {}, one.trait), el("dd", {}, one.cosine[index] === null ? "does not count" : `${one.deviations ? `${signed(one.deviations[index], 1)} SD, ` : ""}cosine ${signed(one.cosine[index], 3)}`)]).flat();
  const largest = Math.max(...found.features.map(([, value]) => value), 1e-9);
  const rows = found.features.slice(0, 15).map(([feature, value]) => el("tr", {},
    el("td", {}, featureLink(feature, reading.labels[feature] || `feature ${feature}`)),
    el("td", { class: "bar-cell" }, bar(value / largest)), el("td", { class: "num" }, short(value)),
    el("td", {}, el("button", { type: "button", "aria-label": `Colour the text by feature ${feature}`, onclick: () => by(feature) }, "colour"))));
  fill($("token-body"), el("p", { class: "note" }, `${index + 1} of ${reading.tokens.length}, ${found.role}${found.counts ? "" : "; it does not count (first token, special token or sink)"}`),
    el("dl", { class: "facts" }, ...facts),
    rows.length ? el("table", {}, el("caption", { class: "note" }, `${found.n} features fire${found.n > 15 ? ", the strongest 15" : ""}; activations`), el("thead", { class: "hidden" }, el("tr", {}, ...["Feature", "Bar", "Activation", "Colour"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows)) : el("p", { class: "note" }, "No feature is listed here."));
};

const by = (feature) => { choices(feature); chosen = `feature:${feature}`; $("colour").value = chosen; $("own-feature").value = feature; colour(); };

const choices = (extra) => {
  const options = reading.projections.map((one, index) => el("option", { value: `trait:${index}` }, `${one.trait} (projection)`));
  const features = [...new Set([...(extra === undefined ? [] : [extra]), ...reading.strongest.map((row) => row.feature)])];
  fill($("colour"), ...options, ...features.map((feature) => el("option", { value: `feature:${feature}` }, `#${feature} ${reading.labels[feature] || ""}`.slice(0, 70))));
};

const draw = () => {
  const made = [];
  reading.tokens.forEach((one, index) => {
    made.push(el("button", { type: "button", class: one.counts ? "t" : "t silent", tabindex: "-1", onclick: () => press(index) }, one.text || "·"));
    if (one.text.includes("↵")) made.push(el("br"));
  });
  fill($("tokens"), ...made);
  const feature = hash().get("feature");
  choices(feature ? Number(feature) : undefined);
  const known = [...$("colour").options].map((option) => option.value);
  chosen = feature ? `feature:${feature}` : known.includes(chosen) ? chosen : known[0];
  $("colour").value = chosen;
  $("result").hidden = false;
  if (chosen) colour();
  totals();
  $("result-title").scrollIntoView({ block: "nearest" });
  press(reading.tokens.findIndex((one) => one.counts && one.features.length), false);
};

const totals = () => {
  const scaled = reading.projections.some((one) => one.deviations);
  const rows = reading.projections.map((one) => [el("a", { href: `/traits/${encodeURIComponent(one.trait)}` }, one.trait), ...(scaled ? [signed(one.mean_deviations, 1)] : []), signed(one.mean_cosine, 3)]);
  table($("projections"), ["Vector", ...(scaled ? ["SD"] : []), "Cosine"], rows, { numeric: [1, 2], caption: "Projection of the mean activation" });
  const n = reading.projections[0]?.n_tokens ?? 0, assistant = reading.tokens.some((one) => one.role === "assistant" && one.counts);
  $("units").textContent = `Of the mean activation over ${n} tokens${assistant ? " of the assistant" : ""}. ${scaled ? "SD: standard deviations of whole neutral replies, from their mean; a text unlike a reply may lie far out for other reasons. " : ""}Cosine: with the activation as it is, not centred.`;
  const largest = Math.max(...reading.strongest.map((row) => row.activation), 1e-9);
  table($("strongest"), ["Feature", "", "Largest", "On"], reading.strongest.map((row) => [
    featureLink(row.feature, reading.labels[row.feature] || `feature ${row.feature}`), bar(row.activation / largest),
    reading.maxima[row.feature] ? `${short(row.activation)} (${percent(row.activation / reading.maxima[row.feature], 0)} of its largest)` : short(row.activation),
    el("button", { type: "button", onclick: () => press(row.position), "aria-label": `Show the token where feature ${row.feature} fires most` }, el("span", {}, reading.tokens[row.position].text || "·")),
  ]), { numeric: [2], caption: "Strongest features of the text" });
};

const read = async (event) => {
  event?.preventDefault();
  remember();
  show(null);
  $("read").disabled = true;
  try {
    await loaded();
    reading = await ask("/api/text", { body: request() });
    pressed = 0;
    draw();
  } catch (error) { show(error); } finally { $("read").disabled = false; }
};

$("tokens").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -1e6, End: 1e6 }[event.key];
  if (step) { event.preventDefault(); press(pressed + step); }
});
$("ask").addEventListener("submit", read);
$("ask").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) read(event); });
document.querySelectorAll("input[name=kind]").forEach((radio) => radio.addEventListener("change", sides));
$("colour").addEventListener("change", () => { chosen = $("colour").value; colour(); });
$("own-feature").addEventListener("change", () => { if ($("own-feature").value !== "") by(Number($("own-feature").value)); });
recall();
sides();
