// Searching as one types, and parents that follow what is typed.

import { LIVE, read, settle } from "./page.js";

for (const form of document.querySelectorAll("[data-search]")) {
  let timer = 0;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const given = [...new FormData(form)].filter(([, value]) => value);
      const url = `${form.getAttribute("action")}?${new URLSearchParams(given)}`;
      try { const fresh = await read(url); history.replaceState(null, "", url); settle(fresh, true); } catch { form.submit(); }
    }, 250);
  });
}

for (const input of document.querySelectorAll("[data-parents]")) {
  const list = document.getElementById("parents");
  let timer = 0;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const response = await fetch(`${input.dataset.parents}&q=${encodeURIComponent(input.value)}`, LIVE);
      if (!response.ok) return;
      list.replaceChildren(...(await response.json()).map(({ id, label }) => new Option(label, id)));
    }, 200);
  });
}
