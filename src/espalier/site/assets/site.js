"use strict";
// What the pages do beyond showing: filter and sort tables, copy commands, walk the points of a chart. Without this script all of them are complete.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const said = document.getElementById("said");

  // filter: rows that hold every word
  for (const input of all("input[data-filters]")) {
    const form = input.form, count = form.querySelector("output"), rows = all("tbody tr", document.getElementById(input.dataset.filters));
    const texts = rows.map(row => row.textContent.toLowerCase());
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => { row.hidden = !words.every(word => texts[at].includes(word)); shown += !row.hidden; });
      count.textContent = `${shown} of ${rows.length}`;
    };
    form.hidden = false;
    form.addEventListener("submit", event => event.preventDefault());
    input.addEventListener("input", filter);
    filter();
  }

  // sort: a button in every head; a second press turns the order round
  const value = (row, at, kind) => {
    const cell = row.cells[at], text = (cell.dataset.value ?? cell.textContent).trim();
    if (kind === "text") return text.toLowerCase();
    const number = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(number) ? null : number;
  };
  for (const table of all("table[data-sortable]")) {
    for (const head of all("th[data-sort]", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0], at = head.cellIndex;
        all("th[aria-sort]", table).forEach(other => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyed = [...body.rows].map(row => [value(row, at, head.dataset.sort), row]);
        keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
        body.append(...keyed.map(([, row]) => row));
      });
    }
  }

  // wide tables: a word above, and a fade at the right edge, while there are columns beyond it
  for (const box of all(".box")) {
    const hint = document.createElement("p");
    hint.className = "note hint";
    hint.textContent = "Wider than the page: scroll the table sideways for more columns \u2192";
    hint.hidden = true;
    box.before(hint);
    const look = () => {
      hint.hidden = box.scrollWidth <= box.clientWidth + 1;
      box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    };
    box.addEventListener("scroll", look, {passive: true});
    new ResizeObserver(look).observe(box);
    look();
  }

  // copy: by hand where the browser gives no clipboard to pages from disk
  const copied = async text => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  for (const button of all("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      said.textContent = await copied(button.dataset.copy) ? "Copied" : "The browser does not let this page copy; select the text instead";
      button.textContent = said.textContent === "Copied" ? "copied" : "copy";
      button.focus();
    });
  }

  // charts: one stop of the tab key a chart, arrow keys between its points, and what a point says beside it
  const tip = document.getElementById("tip");
  const show = point => {
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const box = point.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 4))}px`;
    tip.style.top = `${box.top - own.height - 6 < 0 ? box.bottom + 6 : box.top - own.height - 6}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const chart of all("svg.chart")) {
    const points = all(".point", chart);
    points.forEach((point, at) => {
      point.querySelector("title").remove(); // the tip says it
      point.setAttribute("tabindex", at ? -1 : 0);
      for (const event of ["mouseenter", "focus"]) point.addEventListener(event, () => show(point));
      for (const event of ["mouseleave", "blur"]) point.addEventListener(event, hide);
      point.addEventListener("keydown", event => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") hide();
        if (!step) return;
        event.preventDefault();
        const shown = points.filter(one => !one.classList.contains("off"));
        const next = shown[(shown.indexOf(point) + step + shown.length) % shown.length];
        points.forEach(one => one.setAttribute("tabindex", one === next ? 0 : -1));
        next.focus();
      });
    });
  }
  addEventListener("scroll", hide, { passive: true });

  // legends of comparisons: hide a contestant in all charts of the scale
  for (const group of all("[data-togglable]")) {
    const items = all(".legend li", group);
    for (const item of items) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") === "false", look = item.dataset.look;
        items.filter(other => other.dataset.look === look).forEach(other => other.firstChild.setAttribute("aria-pressed", on));
        all(`.chart .l${CSS.escape(look)}`, group).forEach(part => part.classList.toggle("off", !on));
        for (const chart of all("svg.chart", group)) { // a chart keeps a stop of the tab key
          const shown = all(".point:not(.off)", chart);
          all(".point", chart).forEach(point => point.setAttribute("tabindex", point === shown[0] ? 0 : -1));
        }
      });
    }
  }

  // a link into a closed part opens it
  const open = () => { const goal = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1))); if (goal instanceof HTMLDetailsElement) goal.open = true; };
  addEventListener("hashchange", open);
  open();
})();
