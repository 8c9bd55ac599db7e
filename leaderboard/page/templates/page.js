// Sorting, search and hidden columns are DataTables'; filters, the menu of columns and the pages of rows are here.
const element = document.getElementById("leaderboard");
const controls = document.getElementById("controls");
const count = document.getElementById("count");
const narrow = matchMedia("(max-width: 600px)").matches;
const heads = [...element.tHead.rows[0].cells];
const shown = heads.map((head) => Number(head.dataset.shown) >= (narrow ? 2 : 1));

document.getElementById("words").open = !narrow;

// An entry without a figure is sorted last in both directions.
const last = (compare) => (one, other) => {
  if (one === "" || other === "") return (one === "") - (other === "");
  return compare(Number(one), Number(other));
};
DataTable.ext.type.order["figure-asc"] = last((one, other) => one - other);
DataTable.ext.type.order["figure-desc"] = last((one, other) => other - one);

const chosen = new Map();
const matches = (row) => {
  const marks = row.dataset.facets.split(";");
  return [...chosen].every(([facet, value]) => marks[facet].split(" ").includes(value));
};

const table = element.tBodies[0].rows.length === 0 ? null : new DataTable(element, {
  paging: false,
  info: false,
  order: [],
  autoWidth: false,
  orderClasses: false,
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
  columns: heads.map((head, place) => ({
    visible: shown[place],
    type: "figure" in head.dataset ? "figure" : "string",
  })),
  language: { zeroRecords: "No row fits the search and the filters." },
});

if (table) {
  const rows = table.rows().nodes().toArray();
  table.search.fixed("facets", (text, data, place) => matches(rows[place]));
  const search = document.getElementById("search");
  const boxes = [...controls.querySelectorAll("[data-column]")];
  const selects = [...controls.querySelectorAll("[data-facet]")];

  const tell = () => {
    const found = table.rows({ search: "applied" }).count();
    const all = `${rows.length} row${rows.length === 1 ? "" : "s"}`;
    count.textContent = found === rows.length ? all : `${found} of ${all}`;
  };
  const apply = () => {
    chosen.clear();
    for (const select of selects) if (select.value !== "") chosen.set(select.dataset.facet, select.value);
    table.search(search.value).draw();
    tell();
  };
  // Ranks hold within a threat model: where there are several, the first is shown at first.
  const first = () => {
    for (const box of boxes) box.checked = shown[box.dataset.column];
    for (const select of selects) select.value = select.dataset.facet === "0" && select.options.length > 2 ? "0" : "";
    search.value = "";
  };
  const setColumns = () => {
    for (const box of boxes) table.column(Number(box.dataset.column)).visible(box.checked, false);
    table.columns.adjust();
  };

  controls.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", apply);
  controls.addEventListener("change", (event) => (event.target.dataset.column ? setColumns() : apply()));
  controls.addEventListener("reset", (event) => {
    event.preventDefault();
    first();
    setColumns();
    table.order([]).draw();
    apply();
  });
  document.addEventListener("click", (event) => {
    const menu = controls.querySelector(".menu");
    if (menu.open && !menu.contains(event.target)) menu.open = false;
  });
  first();
  apply();
  controls.hidden = false;
}
document.documentElement.classList.remove("early");

// Pages of many rows are packed: they are unpacked once, and one is made when it is opened.
const packed = document.getElementById("packed");
let unpacked = null;
const unpack = async () => {
  const bytes = Uint8Array.from(atob(packed.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const parts = (await new Response(stream).text()).split("\x1e").slice(1);
  return new Map(parts.map((part) => [part.slice(0, part.indexOf("\n")), part.slice(part.indexOf("\n") + 1)]));
};
const page = async (name) => {
  const known = document.getElementById(name);
  if (known || !packed) return known && known.closest(".row");
  unpacked ??= unpack();
  const pages = await unpacked;
  // Parts of a page have its name and an ending.
  const own = pages.has(name) ? name : [...pages.keys()].find((one) => name.startsWith(`${one}-`));
  if (own === undefined) return null;
  if (document.getElementById(own) === null) {
    const made = document.createElement("template");
    made.innerHTML = pages.get(own);
    document.getElementById("rows").append(made.content);
  }
  return document.getElementById(own);
};

// Curves of other rows of the same norm, data and suite are laid into a chart: they have the same axes on their own pages.
const colours = 6;
for (const figure of document.querySelectorAll("figure[data-scope]")) {
  const known = new Map();
  for (const row of table ? table.rows().nodes().toArray() : []) {
    if (row.dataset.scope !== figure.dataset.scope) continue;
    const link = row.querySelector("th a");
    const title = row.querySelector(".with") ? `${link.textContent} ${row.querySelector(".with").textContent}` : link.textContent;
    if (!known.has(title)) known.set(title, link.hash.slice(1));
  }
  const legend = figure.querySelector(".legend");
  if (known.size <= legend.children.length) continue;
  const label = document.createElement("label");
  label.className = "add";
  label.textContent = "Add a row: ";
  const input = label.appendChild(document.createElement("input"));
  const list = label.appendChild(document.createElement("datalist"));
  list.id = `rows-${figure.dataset.scope}`;
  input.setAttribute("list", list.id);
  for (const title of known.keys()) list.appendChild(document.createElement("option")).value = title;
  legend.after(label);
  const remove = (entry, parts) => {
    const button = entry.appendChild(document.createElement("button"));
    button.textContent = "×";
    button.setAttribute("aria-label", `Remove ${entry.textContent.slice(0, -1)}`);
    button.addEventListener("click", () => [entry, ...parts].forEach((part) => part.remove()));
  };
  const svg = figure.querySelector("svg");
  for (const entry of legend.children) remove(entry, [...svg.querySelectorAll(`.${entry.className}`)]);
  input.addEventListener("change", async () => {
    const name = known.get(input.value);
    const row = name && (await page(name));
    const shown = [...legend.querySelectorAll("a")].some((link) => link.textContent === input.value);
    if (!row || shown) return;
    const taken = new Set([...legend.children].map((entry) => entry.className));
    const free = [...Array(colours).keys()].map((number) => `s${number}`).find((one) => !taken.has(one));
    const series = free ?? `s${legend.children.length % colours}`;
    const parts = [...row.querySelectorAll("figure.eps .s0:not(li)")].map((part) => {
      const copy = svg.appendChild(part.cloneNode(true));
      copy.classList.replace("s0", series);
      return copy;
    });
    const entry = legend.appendChild(document.createElement("li"));
    entry.className = series;
    entry.appendChild(document.createElement("i"));
    const link = entry.appendChild(document.createElement("a"));
    link.href = `#${name}`;
    link.textContent = input.value;
    remove(entry, parts);
    input.value = "";
  });
}

// The page of a row takes the focus, and gives it back.
const main = document.getElementById("main");
let opener = null;
const fragment = () => {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#row-']");
  if (link && main.contains(link)) opener = link;
});
const open = async () => {
  const name = fragment();
  const row = name.startsWith("row-") ? await page(name) : null;
  if (fragment() !== name) return;
  for (const other of document.querySelectorAll(".row.open")) other.classList.remove("open");
  main.inert = row !== null;
  if (row) {
    row.classList.add("open");
    row.focus({ preventScroll: true });
  } else if (opener) {
    opener.focus({ preventScroll: true });
    opener = null;
  }
};
addEventListener("hashchange", open);
document.addEventListener("keydown", (event) => {
  const menu = controls.querySelector(".menu");
  if (event.key !== "Escape") return;
  if (menu && menu.open) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (location.hash.startsWith("#row-")) location.hash = "#leaderboard";
});
await open();
document.documentElement.dataset.ready = "true";
