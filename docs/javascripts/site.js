// Tables that scroll sideways can be reached, and scrolled, by keyboard. (The theme wraps them when the page has loaded.)
window.addEventListener("load", () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    table.tabIndex = 0;
    table.setAttribute("role", "group");
    table.setAttribute("aria-label", "Table");
  }
});
