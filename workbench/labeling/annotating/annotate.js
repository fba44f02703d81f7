// The annotator's screen in a notebook. It draws `state` (see view.py) and puts what the person does into `outbox`; Python answers
// with a new state whose `acknowledged` has the id of this screen's last action that is on the disk. Texts are only ever set as text.

const STYLE = `
.wa { color-scheme: light dark; background: var(--jp-layout-color0, Canvas); color: var(--jp-content-font-color0, CanvasText);
  font: 14px/1.5 var(--jp-content-font-family, system-ui, sans-serif); padding: 12px; border: 1px solid #8a919a; border-radius: 4px; }
[data-jp-theme-light="true"] .wa { color-scheme: light; } [data-jp-theme-light="false"] .wa { color-scheme: dark; }
.wa:focus-visible, .wa :focus-visible { outline: 2px solid #2878d0; outline-offset: 1px; }
.wa h3 { margin: 0; font-size: 16px; } .wa p, .wa ol { margin: 6px 0; } .wa progress { width: 100%; }
.wa ol { padding-left: 0; list-style: none; max-height: 22em; overflow-y: auto; }
.wa li { white-space: pre-wrap; overflow-wrap: anywhere; padding: 2px 0; border-bottom: 1px solid rgba(128, 128, 128, 0.4); }
.wa mark { background: rgba(255, 140, 0, 0.6); color: inherit; font-weight: bold; text-decoration: underline; }
.wa mark::before { content: "«"; } .wa mark::after { content: "»"; }
.wa .value { font-variant-numeric: tabular-nums; margin-right: 8px; }
.wa .row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 6px 0; }
.wa button, .wa input, .wa select { font: inherit; color: inherit; background: transparent; border: 1px solid #8a919a; border-radius: 3px;
  padding: 3px 8px; min-height: 28px; max-width: 100%; }
.wa option { background: var(--jp-layout-color0, Canvas); color: var(--jp-content-font-color0, CanvasText); }
.wa button:disabled { opacity: 0.45; } .wa input { flex: 1 1 16em; min-width: 0; } .wa kbd { font-weight: bold; margin-right: 4px; }
.wa .proposed { border-left: 4px solid #2878d0; padding-left: 8px; } .wa .label { font-weight: bold; }
.wa [hidden] { display: none; }`;

const BUTTONS = [
  ["c", "confirm", "Confirm"], ["e", "edit", "Edit"], ["r", "reject", "Reject"], ["u", "unclear", "Unclear"], ["p", "pass", "Pass"],
  ["b", "back", "Back"], ["n", "next", "Next"], ["?", "help", "Keys"],
];
const HELP = [
  ["c", "confirm the proposed label"], ["e", "write your own label (Enter takes it, Escape leaves it for later)"],
  ["r", "reject the proposed label"], ["u", "unclear: the contexts have no common meaning that you can name"],
  ["p", "pass: see the hidden label without having written your own"], ["t", "choose a category"], ["m", "write a note"],
  ["b", "back"], ["n", "next, without a verdict"], ["?", "show or hide these keys"],
];

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function drawContext(context) {
  const item = make("li");
  item.append(make("span", context.value.toFixed(2), { class: "value", title: "activation at the marked token" }));
  if (!context.tokens.length) {
    item.append(make("em", `text not kept: ${context.source}, ${context.document}, token ${context.position}`));
  }
  context.tokens.forEach(([text, shade], index) => {
    const token = make(index === context.peak ? "mark" : "span", text);
    if (index !== context.peak && shade > 0) token.style.backgroundColor = `rgba(255, 140, 0, ${(0.55 * shade).toFixed(3)})`;
    item.append(token);
  });
  return item;
}

function render({ model, el }) {
  let drawn = null; // the feature whose contexts are on the screen
  let typing = false; // whether the label is being written

  const root = make("section", "", { class: "wa", tabindex: "0", role: "region", "aria-label": "Annotate features" });
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab keeps its own single keys out of here
  root.append(make("style", STYLE));
  const title = make("h3"), bar = make("progress", "", { "aria-label": "features read" }), facts = make("p");
  const contexts = make("ol", "", { "aria-label": "contexts, the strongest token between angle quotes", tabindex: "0" });
  const tokens = make("p"), proposed = make("div", "", { class: "proposed", role: "group", "aria-label": "proposed label" });
  const form = make("form", "", { class: "row" }), label = make("input", "", { "aria-label": "your label", maxlength: "160" });
  form.append(label, make("button", "Take it", { type: "submit" }));
  const choice = make("label", "Category ", { class: "row" }), select = make("select");
  choice.append(select);
  const noted = make("label", "Note ", { class: "row" }), note = make("input", "", { maxlength: "1000" });
  noted.append(note);
  const buttons = make("div", "", { class: "row", role: "toolbar", "aria-label": "actions" });
  const status = make("p", "", { role: "status", "aria-live": "polite", class: "status" }), saved = make("p", "", { class: "saved" });
  const help = make("dl", "", { class: "help", hidden: "" });
  for (const [key, text] of HELP) help.append(make("dt", key), make("dd", text));
  for (const [key, action, text] of BUTTONS) {
    const button = make("button", "", { type: "button", "aria-keyshortcuts": key, "data-action": action });
    button.append(make("kbd", key, { "aria-hidden": "true" }), text);
    button.addEventListener("click", () => press(key));
    buttons.append(button);
  }
  root.append(title, bar, facts, contexts, tokens, proposed, form, choice, noted, buttons, status, saved, help);
  el.append(root);

  const state = () => model.get("state");
  const screen = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`; // other screens may show the same widget
  const last = (name) => state().acknowledged[name] ?? 0;
  const waiting = () => (model.get("outbox") || []).filter((one) => one.id > last(one.screen));

  function act(action, value = null) {
    const before = waiting();
    const id = Math.max(last(screen), ...before.filter((one) => one.screen === screen).map((one) => one.id)) + 1;
    model.set("outbox", [...before, { screen, id, action, value, feature: state().feature }]);
    model.save_changes();
    tellSaved();
  }

  function write() {
    const now = state();
    if (now.feature === null) return;
    typing = true;
    form.hidden = false;
    label.value = now.drafts.label ?? now.own ?? now.label ?? (now.proposed ? now.proposed.label : "");
    label.focus();
    label.select();
  }

  function press(key) {
    const found = BUTTONS.find(([one]) => one === key);
    if (key === "e") write();
    else if (key === "t") select.focus();
    else if (key === "m") note.focus();
    else if (key === "?") help.hidden = !help.hidden;
    else if (found) act(found[1]);
    else return false;
    return true;
  }

  function leave() {
    typing = false;
    form.hidden = true;
    root.focus();
  }

  root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // nor does any other notebook's page take them
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key === "Escape") leave();
    else if (event.target === note && event.key === "Enter") root.focus() // leaving the field takes the note;
    else if (!inField && !event.repeat && press(event.key)) event.preventDefault();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(state().hidden ? "write" : "edit", label.value);
  });
  label.addEventListener("input", () => act("draft_label", label.value));
  note.addEventListener("input", () => act("draft_note", note.value));
  note.addEventListener("change", () => act("note", note.value));
  select.addEventListener("change", () => act("category", select.value));

  function drawProposed(now) {
    proposed.replaceChildren();
    if (now.hidden) proposed.append(make("em", "The proposed label is hidden until you have written your own (e) or passed (p)."));
    else if (!now.proposed) proposed.append(make("em", "Nobody proposed a label."));
    else {
      const { label: words, category, author, explanation } = now.proposed;
      proposed.append(make("p", words, { class: "label" }), make("p", `${category ?? "no category"}, by ${author}. ${explanation}`));
    }
    if (now.own) proposed.append(make("p", `You wrote: ${now.own}`));
    if (now.verdict) proposed.append(make("p", `Your verdict: ${now.verdict}${now.label ? ` (${now.label})` : ""}`));
  }

  function drawCategories(now) {
    choice.hidden = !now.categories.length;
    select.replaceChildren(make("option", "none chosen", { value: "", disabled: "" }));
    for (const { id, name, description } of now.categories) {
      select.append(make("option", name, { value: id, title: description }));
    }
    select.value = now.category ?? "";
  }

  function drawFeature(now) {
    const listed = (name, shown) => (shown.length ? `${name}: ${shown.map((one) => `“${one}”`).join(" ")}` : "");
    facts.textContent = now.density === null ? "" : `Fires on ${+(100 * now.density).toPrecision(3)}% of tokens.`;
    contexts.replaceChildren(...now.contexts.map(drawContext));
    if (!now.contexts.length) contexts.append(make("li", "No contexts are at hand for this feature."));
    tokens.textContent = [listed("promoted", now.promoted), listed("suppressed", now.suppressed)].filter(Boolean).join(" · ");
    label.value = "";
    note.value = now.drafts.note ?? now.note;
    contexts.scrollTop = 0;
  }

  function tellSaved() {
    const at = state().saved_at, unsaved = waiting().length;
    saved.textContent = unsaved ? `${unsaved} not saved yet` : at ? `saved at ${new Date(at).toLocaleTimeString()}` : "";
  }

  function drawButtons(now) {
    for (const button of buttons.children) {
      const action = button.dataset.action, own = action === "edit" && now.allowed.includes("write");
      button.disabled = !(action === "help" || own || now.allowed.includes(action));
    }
  }

  function draw() {
    const now = state(), focused = document.activeElement, had = root.contains(focused);
    const done = now.feature === null, head = `${now.n_read} of ${now.n_features} read`;
    const about = [now.trait, now.blind ? "blind" : null, now.annotator].filter(Boolean).join(" · ");
    const place = done ? "All read" : `Feature ${now.feature} · ${now.position} of ${now.n_features}`;
    const shown = `${now.feature} ${now.hidden}`, moved = drawn === null || drawn.split(" ")[0] !== String(now.feature);
    title.textContent = `${place} · ${head} · ${about}`;
    bar.max = now.n_features;
    bar.value = now.n_read;
    for (const part of [facts, contexts, tokens, proposed, choice, noted]) part.hidden = done;
    if (!done && moved) drawFeature(now);
    if (drawn !== shown) typing = false;
    drawn = shown;
    form.hidden = done || !typing;
    if (!done) {
      drawProposed(now);
      if (focused !== select || select.value !== (now.category ?? "")) drawCategories(now);
    }
    drawButtons(now);
    status.textContent = now.message || (moved ? place : "");
    tellSaved();
    const field = focused === note || focused === select; // a button that still means something keeps the focus
    if (had && !typing && (focused === label || (moved && field) || focused.disabled)) root.focus();
  }

  model.on("change:state", draw);
  draw();
  return () => model.off("change:state", draw);
}

export default { render };
