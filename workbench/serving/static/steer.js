import { $, api, ask, byFeature, byProjection, el, featureLink, fill, hash, loaded, percent, shade, short, show, signed, table } from "./shared.js";

let running = null, names = {}, steered = {};
const NAMES = ["plain", "steered"];
const doseNow = () => Number($("dose").value);
const showDose = () => {
  $("dose-shown").textContent = `${signed(doseNow())} |h|`;
  $("dose").setAttribute("aria-valuetext", `${doseNow()} typical token lengths`);
};
const chosen = () => document.querySelector("input[name=what]:checked").value;
const nameFeature = () => { const place = $("feature-name"); if (place) place.textContent = names[$("feature").value] || ""; };

const request = () => {
  const what = chosen(), messages = [{ role: "system", content: $("system").value }, { role: "user", content: $("user").value }].filter((one) => one.content.trim());
  const direction = what === "feature" ? { feature: Number($("feature").value) } : { trait: what.slice("trait:".length) };
  return { messages, ...direction, dose: doseNow(), seed: Number($("seed").value), max_new_tokens: Number($("length").value), temperature: Number($("temperature").value) };
};

const lines = async (answer, each) => {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    parts.filter(Boolean).forEach((part) => each(JSON.parse(part)));
  }
};

const events = {
  start: (told) => {
    NAMES.forEach((name) => { fill($(name).querySelector(".measured")); const place = $(name).querySelector(".reply"); place.textContent = ""; place.classList.add("writing"); });
    $("plain").querySelector(".which").textContent = "";
    $("steered").querySelector(".which").textContent = `${signed(told.dose)} |h| at ${told.hook} (|δ| = ${short(told.delta_norm)}, |h| = ${short(told.typical_norm)})`;
    $("replies").hidden = false;
  },
  token: (told) => {
    told.replies.forEach((reply, side) => {
      const place = $(NAMES[side]).querySelector(".reply");
      place.textContent = reply.text;
      place.classList.toggle("writing", !reply.finished);
    });
    $("progress").textContent = `${Math.max(...told.replies.map((reply) => reply.n_tokens))} tokens`;
  },
  measured: (told) => told.replies.forEach((reply, side) => measured(reply, told.replies[0], side)),
  end: (told) => { $("progress").textContent = told.why === "done" ? `done in ${told.seconds.toFixed(1)} s` : told.why; },
  error: (told) => { throw Object.assign(new Error(told.found), { told }); },
};

const measured = (reply, plain, side) => {
  const { quality } = reply, facts = [];
  const fact = (name, words) => facts.push(el("dt", {}, name), el("dd", {}, words));
  fact("Perplexity", quality.perplexity === null ? "–" : `${short(quality.perplexity)} for the unsteered model`);
  if (side) fact("KL from unsteered", quality.kl === null ? "–" : `${quality.kl.toFixed(2)} nats per token`);
  fact("Repeated trigrams", percent(quality.repeated, 0));
  const scaled = reply.projections.some((one) => one.deviations);
  const place = $(NAMES[side]).querySelector(".measured");
  const projections = el("table"), features = el("table");
  table(projections, ["Reply along", ...(scaled ? ["SD"] : []), "Cosine"], reply.projections.map((one) => [one.trait, ...(scaled ? [signed(one.mean_deviations, 1)] : []), signed(one.mean_cosine, 3)]), { numeric: [1, 2], caption: "Projection of the reply" });
  table(features, ["Strongest features", "Largest"], reply.strongest.slice(0, 6).map((row) => [featureLink(row.feature, reply.labels[row.feature] || `feature ${row.feature}`), short(row.activation)]), { numeric: [1], caption: "Strongest features of the reply" });
  const unit = paint($(NAMES[side]).querySelector(".reply"), reply);
  fill(place, broken(quality, plain.quality, side), el("dl", { class: "facts" }, ...facts), projections, features,
    el("p", { class: "note" }, `Read by the model without steering, so that the added direction itself is not counted. ${unit} SD: standard deviations of whole neutral replies, from their mean.`));
};

// The reply once more, its tokens coloured by what it was steered with.
const paint = (place, reply) => {
  const by = steered.feature === undefined ? byProjection(reply.projections.find((one) => one.trait === steered.trait) || reply.projections[0]) : byFeature(reply, steered.feature);
  fill(place, ...reply.tokens.map((token, index) => {
    const made = el("span", { class: "t", title: short(by.values[index]) }, token.text.includes("↵") ? `${token.text}\n` : token.text);
    shade(made, by.values[index], by);
    return made;
  }));
  return by.unit;
};

// A rule of thumb, said as one: e times the baseline's perplexity, or half of the trigrams said before.
const broken = (quality, plain, side) => {
  if (!side || quality.perplexity === null) return null;
  const signs = [];
  if (plain.perplexity !== null && quality.perplexity > Math.E * plain.perplexity) signs.push(`the unsteered model finds it ${(quality.perplexity / plain.perplexity).toFixed(1)} times as perplexing as its own reply`);
  if (quality.repeated > 0.5) signs.push("it mostly repeats itself");
  return signs.length ? el("ul", { class: "warnings" }, el("li", {}, el("b", {}, "Caution. "), `This reply may be broken: ${signs.join(", and ")}.`)) : null;
};

const write = async (event) => {
  event?.preventDefault();
  if (running) return;
  show(null);
  running = new AbortController();
  $("write").disabled = true;
  $("stop").disabled = false;
  $("progress").textContent = "waiting for the model …";
  try {
    await loaded();
    steered = request();
    await lines(await api("/api/steer", { body: steered, signal: running.signal }), (told) => events[told.event]?.(told));
  } catch (error) {
    $("progress").textContent = error.name === "AbortError" ? "stopped" : "";
    show(error.told ? Object.assign(error, { status: 400 }) : error);
  } finally {
    NAMES.forEach((name) => $(name).querySelector(".reply").classList.remove("writing"));
    running = null;
    $("write").disabled = false;
    $("stop").disabled = true;
  }
};

const start = async () => {
  showDose();
  const wanted = hash().get("feature");
  if (wanted && $("feature")) { $("feature").value = wanted; document.querySelector("input[name=what][value=feature]").checked = true; }
  const trait = document.querySelector("input[name=what]")?.value.replace("trait:", "");
  if (!$("feature")) return;
  await loaded();
  const { features } = await ask(`/api/traits/${encodeURIComponent(trait)}`);
  names = Object.fromEntries(features.filter((row) => row.label).map((row) => [row.feature, row.label]));
  fill($("known"), ...features.map((row) => el("option", { value: row.feature }, row.label || "")));
  if (!$("feature").value && features.length) $("feature").value = features[0].feature;
  nameFeature();
};

$("ask").addEventListener("submit", write);
$("stop").addEventListener("click", () => running?.abort());
$("dose").addEventListener("input", showDose);
$("feature")?.addEventListener("input", () => { document.querySelector("input[name=what][value=feature]").checked = true; nameFeature(); });
start().catch(show);
