// The tree: a branch is opened and closed in place, and a long one goes on where it stopped.

import { read } from "./page.js";

const MOST_OPEN = 10; // in the address; what is open beyond does not follow changes

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[name=toggle]");
  const more = event.target.closest("a[data-more]");
  if (button) {
    event.preventDefault();
    toggle(button).catch(() => button.form.requestSubmit(button));
  } else if (more && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    goOn(more).catch(() => location.assign(more.href));
  }
});

async function toggle(button) {
  const item = button.closest("li");
  delete button.parentElement.dataset.keep;
  if (button.getAttribute("aria-expanded") === "true") {
    item.querySelector(":scope > ul")?.remove();
  } else {
    button.disabled = true;
    try {
      const beneath = document.createElement("ul");
      beneath.id = button.id.replace("twist-", "beneath-");
      beneath.append(...await branch(`/ui/tree?root=${encodeURIComponent(button.value)}`));
      item.append(beneath);
    } finally {
      button.disabled = false;
      button = document.getElementById(button.id) ?? button; // a reading may have put another one there
      button.focus({ preventScroll: true });
    }
  }
  button.setAttribute("aria-expanded", String(Boolean(item.querySelector(":scope > ul"))));
  remember();
}

async function branch(url) {
  const page = await read(url);
  const items = [...(page.getElementById("branches")?.children ?? [])].map((item) => document.importNode(item, true));
  const next = page.querySelector(".pager [rel=next]");
  if (next) items.push(further(next.getAttribute("href"), page.getElementById("total").textContent));
  return items;
}

function further(href, total) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  item.className = "more";
  link.href = href;
  link.dataset.more = "";
  link.textContent = `Further ones, of ${parseInt(total, 10)}`;
  item.append(link);
  return item;
}

// What goes on behind the first page of a branch is not on the page that is read again: it does not follow changes.
async function goOn(more) {
  const items = await branch(more.href);
  for (const item of items) item.dataset.unfollowed = "";
  more.closest("li").replaceWith(...items);
  items[0]?.querySelector("a, button")?.focus();
}

function remember() {
  const url = new URL(location.href);
  const open = [...document.querySelectorAll("#branches button[aria-expanded=true]")];
  url.searchParams.delete("open");
  for (const button of open.slice(-MOST_OPEN)) url.searchParams.append("open", button.value);
  for (const [at, button] of open.entries()) {
    const beneath = button.closest("li").querySelector(":scope > ul");
    const cell = button.parentElement; // the page that is read again holds the branch closed
    if (at < open.length - MOST_OPEN) beneath.dataset.unfollowed = cell.dataset.keep = "";
    else {
      delete beneath.dataset.unfollowed;
      delete cell.dataset.keep;
    }
  }
  history.replaceState(null, "", url);
}
