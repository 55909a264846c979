// Copying, and questions asked in a dialog instead of on a page of their own.

import { read } from "./page.js";

const SAID_FOR = 2000;

function enliven() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}

// Beyond loopback browsers have a clipboard for pages by HTTPS alone; what is selected they copy everywhere.
async function copy(from) {
  if (navigator.clipboard) {
    try { return await navigator.clipboard.writeText(from.value ?? from.textContent); } catch { /* it may be forbidden */ }
  }
  if (from.select) from.select();
  else getSelection().selectAllChildren(from);
  if (!document.execCommand("copy")) throw new Error("it could not be copied");
}

let said = null;
if (document.querySelector("[data-copy]")) { // there before it says something, or nobody reads it out
  said = document.createElement("p");
  said.className = "hidden";
  said.id = "copied";
  said.setAttribute("role", "status");
  document.getElementById("main").append(said);
}

function say(button, text) {
  button.dataset.was ??= button.textContent;
  button.textContent = said.textContent = text;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => { button.textContent = button.dataset.was; said.textContent = ""; }, SAID_FOR);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    try {
      await copy(document.getElementById(button.dataset.copy));
      say(button, "Copied");
    } catch { say(button, "Select it and copy"); }
    return;
  }
  const link = event.target.closest("a[data-dialog]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    try { ask(await read(link.href)); } catch { location.assign(link.href); }
  }
});

function ask(page) {
  const question = page.getElementById("question");
  if (!question) throw new Error("no question");
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "ask");
  dialog.append(question);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.querySelector("[data-cancel]").addEventListener("click", (event) => { event.preventDefault(); dialog.close(); });
  document.getElementById("main").append(dialog);
  dialog.showModal();
  dialog.querySelector("#ask").focus(); // not the first button, which may stand far below the question
  dialog.scrollTop = 0;
}

document.addEventListener("jetway:settled", enliven);
enliven();
