// Reading a page of ours, and putting what differs in its place.
//
// A section with data-live is replaced as a whole. One with data-rows keeps its rows where they are: what stands in
// them is renewed, and a notice offers the new order once rows would come, go or move.

export const LIVE = { headers: { "X-Jetway-Live": "1" } };

export async function read(url, signal) {
  const response = await fetch(url, { ...LIVE, signal });
  if (!response.ok) throw Object.assign(new Error(`the page answered ${response.status}`), { status: response.status });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// `asked`: the reader wants the fresh page as it is, in its own order.
export function settle(fresh, asked = false) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || old.contains(document.querySelector("dialog[open]"))) continue;
    if (!asked && old.dataset.rows !== undefined && old.querySelector("[data-row]")) settleRows(old, now);
    else if (!same(old, now)) replace(old, now);
  }
  document.dispatchEvent(new Event("jetway:settled"));
}

function settleRows(old, now) {
  const rows = [...old.querySelectorAll("[data-row]")].filter((row) => !row.closest("[data-unfollowed]"));
  const fresh = new Map([...now.querySelectorAll("[data-row]")].map((row) => [row.id, row]));
  for (const row of rows) {
    row.classList.toggle("left", !fresh.has(row.id));
    if (fresh.has(row.id)) renew(row, fresh.get(row.id));
  }
  for (const part of old.querySelectorAll("[data-part]")) {
    const other = now.querySelector(`#${CSS.escape(part.id)}`);
    if (other && !same(part, other)) replace(part, other);
  }
  offer(old, now, difference(rows.map((row) => row.id), [...fresh.keys()]));
}

function difference(shown, wanted) {
  const here = new Set(shown), there = new Set(wanted);
  const come = wanted.filter((id) => !here.has(id)).length, gone = shown.filter((id) => !there.has(id)).length;
  return Math.max(come, gone) || shown.filter((id, at) => wanted[at] !== id).length;
}

function offer(old, now, count) {
  const notice = old.querySelector("[data-changed]");
  if (!notice) return;
  const button = notice.querySelector("button");
  const text = `${count} changed: show`;
  if (count && button.textContent !== text) button.textContent = text;
  notice.hidden = !count;
  button.onclick = () => { replace(old, now); document.dispatchEvent(new Event("jetway:settled")); };
}

function renew(row, fresh) {
  for (const [at, cell] of [...row.children].entries()) {
    const other = fresh.children[at];
    if (!other || cell.dataset.keep !== undefined || same(cell, other)) continue;
    replace(cell, other);
  }
}

// Whether two pieces say the same; a distance from now is no difference, nor what the reader has unfolded.
function same(one, other) {
  const text = (piece) => piece.innerHTML.replace(/(<time[^>]*>)[^<]*/g, "$1").replace(/(<details[^>]*?) open=""/g, "$1");
  return text(one) === text(other);
}

// What the reader has ticked, chosen, unfolded or has the focus on stays so.
function replace(old, now) {
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const focused = active && (active.id ? `#${CSS.escape(active.id)}` : active.getAttribute("href") && `[href="${CSS.escape(active.getAttribute("href"))}"]`);
  const ticked = new Set([...old.querySelectorAll("input[name=pick]:checked")].map((box) => box.value));
  const chosen = [...old.querySelectorAll("select[data-keep]")].map((select) => [select.name, select.value]);
  const unfolded = [...old.querySelectorAll("details")].map((each) => each.open);
  old.replaceChildren(...[...now.childNodes].map((node) => document.importNode(node, true)));
  for (const box of old.querySelectorAll("input[name=pick]")) box.checked = ticked.has(box.value);
  for (const [at, each] of old.querySelectorAll("details").entries()) each.open = unfolded[at] ?? each.open;
  for (const [name, value] of chosen) {
    const select = old.querySelector(`select[name="${CSS.escape(name)}"]`);
    if (select) select.value = value;
  }
  if (focused) (old.querySelector(focused) ?? document.getElementById("main")).focus({ preventScroll: true });
}
