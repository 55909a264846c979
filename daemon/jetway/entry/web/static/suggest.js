// Suggestions that follow what is typed. Without this the fields suggest what the page came with.

import { latest } from "./latest.js";
import { LIVE } from "./page.js";

for (const input of document.querySelectorAll("[data-suggest]")) {
  const list = document.getElementById(input.getAttribute("list"));
  input.addEventListener("input", latest(200, async ({ signal, isNewest }) => {
    const response = await fetch(`${input.dataset.suggest}?q=${encodeURIComponent(input.value)}`, { ...LIVE, signal });
    if (!response.ok) return;
    const found = await response.json();
    if (isNewest()) list.replaceChildren(...found.map((text) => new Option("", text)));
  }));
}
