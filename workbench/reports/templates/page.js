"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const find = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const table = document.getElementById("features");

  if (table) {
    const body = table.tBodies[0], rows = Array.from(body.rows), heads = find("th", table.tHead);
    const search = document.getElementById("search"), category = document.getElementById("category");
    const only = document.getElementById("only"), count = document.getElementById("count");
    const key = (row, column) => {
      const raw = row.cells[column].dataset.sort;
      return raw === undefined || raw === "" ? null : raw;
    };
    const compare = (numeric) => (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
    const sortBy = (head) => {
      const column = heads.indexOf(head), numeric = head.classList.contains("num");
      const current = head.getAttribute("aria-sort");
      const falling = current ? current === "ascending" : numeric && head.dataset.first !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const order = compare(numeric), sign = falling ? -1 : 1;
      rows.sort((left, right) => {
        const a = key(left, column), b = key(right, column);
        if (a === null || b === null) return (a === null) - (b === null);  // unknown stays last, both ways
        return sign * order(a, b);
      });
      body.append(...rows);
    };
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.dataset.text;
        const keep = words.every((word) => text.includes(word))
          && (!category.value || row.dataset.category === category.value)
          && (!only.checked || row.dataset.verified === "1");
        row.hidden = !keep;
        shown += keep;
      }
      count.textContent = `${shown} of ${rows.length} features shown`;
    };
    heads.forEach((head) => head.querySelector("button")?.addEventListener("click", () => sortBy(head)));
    search.addEventListener("input", show);
    category.addEventListener("change", show);
    only.addEventListener("change", show);
    show();
  }

  const cards = find("details.card");
  const openAll = document.getElementById("open-all");
  openAll?.addEventListener("click", () => {
    const open = cards.some((card) => !card.open);
    cards.forEach((card) => { card.open = open; });
    openAll.textContent = open ? "Close all" : "Open all";
  });
  const follow = () => {
    const target = location.hash.startsWith("#card-") && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", follow);
  follow();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = find("details").filter((item) => !item.open);
    closed.forEach((item) => { item.open = true; });
  });
  addEventListener("afterprint", () => { closed.forEach((item) => { item.open = false; }); closed = []; });

  const data = JSON.parse(document.getElementById("data").textContent);
  const save = (name, kind, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const inert = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;  // a spreadsheet must not run it
    return '"' + inert.replaceAll('"', '""') + '"';
  };
  const csv = () => {
    if (!data.features.length) return "";
    const names = Object.keys(data.features[0]);
    return [names, ...data.features.map((row) => names.map((name) => row[name]))]
      .map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  };
  const name = document.getElementById("data").dataset.name;
  document.getElementById("get-json")?.addEventListener("click", () => save(name + ".json", "application/json", JSON.stringify(data, null, 2)));
  document.getElementById("get-csv")?.addEventListener("click", () => save(name + ".csv", "text/csv", csv()));
})();
