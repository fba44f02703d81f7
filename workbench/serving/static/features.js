import { $, ask, el, featureLink, fill, hash, loaded, percent, short, show, table } from "./shared.js";

const WHERE = { label: "in the label", explanation: "in an explanation or note", context: "in a context", token: "fires on" };

const byWords = async (event) => {
  event?.preventDefault();
  show(null);
  const words = $("words").value.trim();
  history.replaceState(null, "", words ? `#words=${encodeURIComponent(words)}` : "#");
  if (!words) { fill($("found")); $("count").textContent = ""; return; }
  try {
    const { found, index } = await ask(`/api/features?words=${encodeURIComponent(words)}`);
    $("count").textContent = `${found.length} feature${found.length === 1 ? "" : "s"}${index ? "" : " (of the labelled ones: the explorer was started without an index)"}`;
    table($("found"), ["Feature", "Label", "Found"], found.map((row) => [featureLink(row.feature, `#${row.feature}`), row.label ? featureLink(row.feature, row.label) : "no label yet",
      el("span", {}, `${WHERE[row.where]}: `, el("span", { class: "bit" }, row.text.slice(0, 160)), row.share === null ? "" : ` (${percent(row.share, 0)} of its firings)`)]), { caption: "Features found" });
  } catch (error) { show(error); }
};

const byText = async (event) => {
  event.preventDefault();
  show(null);
  try {
    await loaded();
    const found = await ask("/api/text", { body: { text: $("sample").value } });
    $("count").textContent = `${found.strongest.length} strongest features on that text`;
    table($("found"), ["Feature", "Label", "Largest activation", "On"], found.strongest.map((row) => [featureLink(row.feature, `#${row.feature}`),
      found.labels[row.feature] ? featureLink(row.feature, found.labels[row.feature]) : "no label yet",
      found.maxima[row.feature] ? `${short(row.activation)}, ${percent(row.activation / found.maxima[row.feature], 0)} of its largest` : short(row.activation),
      el("span", { class: "bit" }, found.tokens[row.position].text)]), { caption: "Features found", numeric: [2] });
  } catch (error) { show(error); }
};

if ($("by-words")) {
  $("by-words").addEventListener("submit", byWords);
  $("by-text").addEventListener("submit", byText);
  $("by-number").addEventListener("submit", (event) => { event.preventDefault(); if ($("number").value !== "") location.assign(`/features/${Number($("number").value)}`); });
  const words = hash().get("words");
  if (words) { $("words").value = words; byWords(); }
}
