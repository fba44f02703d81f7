"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const at = (id) => document.getElementById(id);
  const address = (hash) => { try { history.replaceState(null, "", hash); } catch { location.replace(hash); } };

  // ---- tables: sort, filter, columns; what is chosen stands in the address, #TRAIT/features?sort=share&q=...
  const tables = new Map();
  const BY = ["q", "category", "change", "verified", "trait"];

  const words = (cell) => "none" in cell.dataset ? "" : cell.firstChild.textContent.trim().replace(/^–$/, "");
  const key = (cell, numeric) => cell.dataset.sort || (numeric ? null : words(cell) || null);  // null: unknown

  class FeatureTable {
    constructor(section) {
      this.section = section;
      this.name = section.dataset.table;
      this.table = section.querySelector("table.features");
      this.body = this.table.tBodies[0];
      this.rows = this.given = Array.from(this.body.rows);
      this.heads = all("th", this.table.tHead);
      this.inputs = Object.fromEntries(all("[data-by]", section).map((input) => [input.dataset.by, input]));
      this.boxes = all("[data-column]", section);
      this.count = section.querySelector(".count");
      this.plain = this.read();
      for (const head of this.heads) head.querySelector("button").addEventListener("click", () => { this.turn(head); this.tell(); });
      for (const input of Object.values(this.inputs)) input.addEventListener(input.type === "search" ? "input" : "change", () => { this.filter(); this.tell(); });
      for (const box of this.boxes) box.addEventListener("change", () => { this.columns(); this.tell(); });
      this.filter();
    }

    read() {
      const head = this.heads.find((one) => one.hasAttribute("aria-sort"));
      const state = { sort: head ? head.dataset.key : "", dir: head ? head.getAttribute("aria-sort") : "" };
      for (const [name, input] of Object.entries(this.inputs)) state[name] = input.type === "checkbox" ? (input.checked ? "1" : "") : input.value;
      state.columns = this.boxes.filter((box) => box.checked).map((box) => box.dataset.column).join(" ");
      return state;
    }

    apply(given) {
      const state = { ...this.plain, ...given };
      for (const [name, input] of Object.entries(this.inputs)) {
        if (input.type === "checkbox") input.checked = state[name] === "1"; else input.value = state[name] || "";
      }
      const wanted = state.columns.split(" ");
      for (const box of this.boxes) box.checked = wanted.includes(box.dataset.column);
      const head = this.heads.find((one) => one.dataset.key === state.sort);
      if (head) this.sort(head, state.dir === "ascending");
      this.filter();
      this.columns();
    }

    tell() {
      const now = this.read();
      const changed = Object.entries(now).filter(([name, value]) => value !== this.plain[name]);
      const query = new URLSearchParams(changed).toString();
      address(`#${this.section.id}${query ? "?" + query : ""}`);
    }

    turn(head) {
      const current = head.getAttribute("aria-sort");
      this.sort(head, current ? current === "descending" : "rising" in head.dataset);
    }

    sort(head, rising) {
      const column = head.cellIndex, numeric = head.classList.contains("num"), sign = rising ? 1 : -1;
      for (const other of this.heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const keyed = this.given.map((row) => [key(row.cells[column], numeric), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // unknown stays last, both ways
        return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
      });
      this.rows = keyed.map(([, row]) => row);
      this.body.append(...this.rows);
    }

    filter() {
      const state = this.read(), words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
      const searched = this.heads.filter((head) => ["feature", "label", "author"].includes(head.dataset.key)).map((head) => head.cellIndex);
      let shown = 0;
      for (const row of this.rows) {
        const text = words.length ? searched.map((n) => row.cells[n].textContent).join(" ").toLowerCase() : "";
        const keep = words.every((word) => text.includes(word))
          && BY.slice(1).every((name) => !state[name] || row.dataset[name] === state[name]);
        row.hidden = !keep;
        shown += keep;
      }
      this.count.textContent = `${shown} of ${this.rows.length} features shown`;
    }

    columns() {
      for (const box of this.boxes) {
        const head = this.heads.find((one) => one.dataset.key === box.dataset.column), column = head.cellIndex;
        for (const row of [this.table.tHead.rows[0], ...this.rows]) {
          row.cells[column].classList.toggle("on", box.checked);
          row.cells[column].classList.toggle("off", !box.checked);
        }
      }
      fit([this]);
    }
  }

  const fit = (some) => {  // a table wider than its place scrolls in a box of its own; all are measured before any is changed
    const boxes = some.map((one) => one.table.parentElement);
    for (const box of boxes) box.classList.remove("many");
    const wide = some.map((one, n) => one.table.offsetWidth > boxes[n].clientWidth + 1);
    boxes.forEach((box, n) => box.classList.toggle("many", wide[n]));
  };

  const together = at("all/features");
  for (const section of all("[data-table]")) if (section !== together) tables.set(section.id, new FeatureTable(section));
  const gather = () => {  // the table of all traits is made of the others' rows when somebody asks for it
    const body = together.querySelector("tbody");
    for (const own of Array.from(tables.values())) {
      for (const row of own.rows) {
        const copy = row.cloneNode(true), cell = document.createElement("td");
        copy.removeAttribute("id");
        copy.hidden = false;
        copy.dataset.trait = own.name;
        cell.textContent = own.section.dataset.trait;
        copy.cells[0].after(cell);
        body.append(copy);
      }
    }
    together.hidden = false;
    const made = new FeatureTable(together);
    fit([made]);
    made.sort(made.heads.find((head) => head.dataset.key === "share"), false);
    tables.set(together.id, made);
  };

  // ---- addresses: open the card, set the table, and say in the bar where we are
  const go = () => {
    const [name, query] = location.hash.slice(1).split("?");
    let id = name;
    try { id = decodeURIComponent(name); } catch { /* an address that somebody mistyped */ }
    if (together && id === together.id && !tables.has(id)) gather();
    const target = id && at(id);
    if (!target) return;
    if (tables.has(id)) tables.get(id).apply(Object.fromEntries(new URLSearchParams(query || "")));
    if (target.tagName === "TR" && target.hidden) tables.get(target.closest("[data-table]").id).apply({});
    if (target.matches("details.card")) {
      target.open = true;
      fill(target);
      target.querySelector("summary").focus({ preventScroll: true });
    }
    if (query !== undefined || target === together || target.matches("details.card")) target.scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", go);
  addEventListener("click", (event) => {  // an address that is there already changes nothing, and its card may have been closed
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) go();
  });
  const cards = all("details.card");
  const fill = (card) => {  // what another trait's card says of the same feature is copied here when it is asked for
    for (const block of all("[data-same]", card)) {
      const source = at(block.dataset.same).querySelector(`[data-part="${block.dataset.part}"]`);
      block.replaceChildren(...Array.from(source.childNodes, (node) => node.cloneNode(true)));
      block.removeAttribute("data-same");
    }
  };
  for (const card of cards) {
    card.addEventListener("toggle", () => { if (card.open) fill(card); });
    card.querySelector("summary").addEventListener("click", () => { if (!card.open) address("#" + card.id); });
  }
  for (const button of all(".open-all")) {
    const own = all("details.card", button.closest(".cards"));
    button.addEventListener("click", () => {
      const open = own.some((card) => !card.open);
      for (const card of own) card.open = open;
      button.textContent = open ? "Close all" : "Open all";
    });
  }

  const bar = document.querySelector(".bar");
  const links = all("a", bar).map((link) => [link, at(link.hash.slice(1))]).filter(([, target]) => target);
  const reveal = (link) => {  // on a narrow screen the bar scrolls sideways
    const holder = link.closest(".traits ~ .parts") || bar.firstElementChild, left = link.offsetLeft;
    if (left < holder.scrollLeft || left + link.offsetWidth > holder.scrollLeft + holder.clientWidth) holder.scrollLeft = left - 16;
  };
  const mark = () => {
    const line = parseFloat(getComputedStyle(root).scrollPaddingTop) + 8;
    const above = (target) => target.getClientRects().length > 0 && target.getBoundingClientRect().top <= line;
    const chapter = all("article.chapter").filter(above).pop();
    const ended = all("main > section").filter(above).pop();
    const late = ended && chapter && chapter.compareDocumentPosition(ended) & Node.DOCUMENT_POSITION_FOLLOWING;
    const inside = chapter && !late ? chapter : null;
    const many = Boolean(bar.querySelector(".traits"));
    for (const list of all(".parts", bar)) if (many) list.hidden = !inside || list.dataset.chapter !== inside.id;
    const within = inside ? links.filter(([link, target]) => link.closest(".parts") && inside.contains(target) && above(target)) : [];
    const part = within.length ? within[within.length - 1][0] : null;
    for (const [link, target] of links) {
      const here = link === part || (inside ? link.closest(".traits") && target === inside : target === (ended || null));
      if (here) { link.setAttribute("aria-current", "true"); reveal(link); } else link.removeAttribute("aria-current");
    }
    const list = bar.querySelector(".traits ~ .parts:not([hidden])");
    root.style.setProperty("--bar", bar.offsetHeight + (list ? list.offsetHeight : 0) - 1 + "px");
  };
  let waiting = false;
  const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; mark(); }); } };
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", () => { fit([...tables.values()]); soon(); });

  // ---- copy and take along
  const json = () => JSON.parse(at("data-json").textContent);
  const csv = async (name) => {
    const bytes = Uint8Array.from(atob(JSON.parse(at("data-tables").textContent)[name]), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  };
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = at(button.dataset.copy);
      try { await navigator.clipboard.writeText(source.textContent); button.textContent = "Copied"; } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: copy with Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 3000);
    });
  }
  for (const button of all("[data-save]")) {
    button.addEventListener("click", async () => {
      const table = button.dataset.csv;
      const [text, kind] = table ? [await csv(table), "text/csv"] : [JSON.stringify(json(), null, 2), "application/json"];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: kind + ";charset=utf-8" }));
      link.download = button.dataset.save;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  fit([...tables.values()]);
  mark();
  go();
})();
