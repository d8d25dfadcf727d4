// The list keeps itself up to date, and the row under the pointer or the cursor never moves: its
// cells change at once, a change of the order waits until nobody points at the list.
"use strict";

const list = document.getElementById("list");
const filter = document.getElementById("filter");
let following = null; // the rows of the server that wait to be shown in their order
let asked = 0; // number of the newest question to the server
let timer = 0;

const rows = () => document.getElementById("rows");
const rowOf = (node) => (node instanceof Element ? node.closest("#rows tr") : null);
const byUid = (body) => new Map([...body.rows].map((row) => [row.dataset.uid, row]));
const isPointedAt = () => Boolean(list.querySelector("#rows:hover, #rows :focus"));

// ---- live -------------------------------------------------------------------------------------

function sayLive(on) {
  const live = document.getElementById("live");
  live.textContent = on ? "live" : "not live: reconnecting";
  live.classList.toggle("on", on);
}

let isLive = false;
let known = null;
const events = new EventSource("/worklist/events");
events.addEventListener("open", () => sayLive((isLive = true)));
events.addEventListener("error", () => sayLive((isLive = false)));
events.addEventListener("changed", (event) => {
  if (known !== null && known !== event.data) {
    clearTimeout(timer);
    timer = setTimeout(refresh, 150);
  }
  known = event.data;
});
window.addEventListener("pagehide", () => events.close());

async function refresh() {
  const mine = ++asked;
  const answer = await fetch(location.pathname + location.search, {
    headers: { "X-Automatic": "1" },
    redirect: "error",
  }).catch(() => null);
  if (answer === null || !answer.ok || mine !== asked) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const body = page.getElementById("rows");
  if (rows() === null || body === null || !isPointedAt()) {
    show(page);
    return;
  }
  const found = byUid(body);
  for (const row of rows().rows) updateCells(row, found.get(row.dataset.uid));
  list.querySelector(".status > p").replaceWith(page.querySelector(".status > p"));
  following = orderOf(body) === orderOf(rows()) ? null : page;
  sayWaiting(found);
}

const orderOf = (body) => [...body.rows].map((row) => row.dataset.uid).join(" ");

function updateCells(row, fresh) {
  row.classList.toggle("gone", fresh === undefined);
  if (fresh === undefined || fresh.dataset.changed === row.dataset.changed) return;
  const focused = row.contains(document.activeElement);
  row.dataset.changed = fresh.dataset.changed;
  row.replaceChildren(...fresh.cloneNode(true).children);
  if (focused) row.querySelector("a").focus({ preventScroll: true });
}

function sayWaiting(found) {
  const button = document.getElementById("apply");
  button.hidden = following === null;
  if (following === null) return;
  const shown = byUid(rows());
  const fresh = [...found.keys()].filter((uid) => !shown.has(uid)).length;
  button.textContent = fresh ? `${fresh} new: show (r)` : "Order changed: show (r)";
}

function show(page) {
  const shown = rows() === null ? new Map() : byUid(rows());
  const focused = rowOf(document.activeElement)?.dataset.uid;
  following = null;
  list.replaceChildren(...page.body.children);
  prepare();
  if (rows() === null) return;
  for (const row of rows().rows) row.classList.toggle("new", !shown.has(row.dataset.uid));
  if (focused) byUid(rows()).get(focused)?.querySelector("a").focus({ preventScroll: true });
}

function apply() {
  if (following !== null) show(following);
}

function prepare() {
  sayLive(isLive);
  document.getElementById("apply").addEventListener("click", apply);
  document.getElementById("show-keys").addEventListener("click", Keys.show);
  tick();
}

list.addEventListener("mouseleave", () => {
  if (!isPointedAt()) apply();
});
list.addEventListener("focusout", () => setTimeout(() => { if (!isPointedAt()) apply(); }, 0));
document.body.addEventListener("htmx:afterSettle", (event) => {
  if (event.target !== list) return;
  following = null;
  asked++;
  prepare();
});

// ---- waiting times ----------------------------------------------------------------------------

function span(seconds) {
  const minutes = Math.floor(Math.max(seconds, 0) / 60);
  if (minutes < 1) return `${Math.floor(Math.max(seconds, 0))} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  const [large, small] = hours < 24
    ? [`${hours} h`, minutes % 60 ? ` ${minutes % 60} min` : ""]
    : [`${Math.floor(hours / 24)} d`, hours % 24 ? ` ${hours % 24} h` : ""];
  return large + small;
}

function tick() {
  for (const time of list.querySelectorAll("time[data-since]")) {
    time.textContent = span((Date.now() - Date.parse(time.dataset.since)) / 1000);
  }
}
setInterval(tick, 10000);

// ---- keys -------------------------------------------------------------------------------------

function step(by) {
  if (rows() === null) return;
  const all = [...rows().rows];
  const at = all.indexOf(rowOf(document.activeElement));
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
  const link = next.querySelector("a");
  link.focus();
  next.scrollIntoView({ block: "nearest" });
}

// With the cursor nowhere, Enter opens the study that stands first.
function open() {
  if (document.activeElement !== document.body || rows() === null) return false;
  rows().querySelector("a").click();
  return true;
}

Keys.add({ j: () => step(1), k: () => step(-1) }, true);
Keys.add({ Enter: open, r: apply, "/": () => document.getElementById("text").focus() });

for (const form of document.querySelectorAll("form[data-back]")) {
  form.addEventListener("submit", () => {
    form.elements.back.value = location.pathname + location.search;
  });
}
if (location.hash === "#text") document.getElementById("text").focus();

prepare();
