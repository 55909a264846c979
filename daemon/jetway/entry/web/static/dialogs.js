// Copying, and questions asked in a dialog instead of on a page of their own.

import { read } from "./page.js";

function enliven() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const from = document.getElementById(copy.dataset.copy);
    await navigator.clipboard.writeText(from.value ?? from.textContent);
    copy.textContent = "Copied";
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
}

document.addEventListener("jetway:settled", enliven);
enliven();
