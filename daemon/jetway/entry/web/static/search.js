// Searching as one types, and parents that follow what is typed.

import { latest } from "./latest.js";
import { LIVE, read, settle } from "./page.js";

for (const form of document.querySelectorAll("[data-search]")) {
  form.addEventListener("input", latest(250, async ({ signal, isNewest }) => {
    const given = [...new FormData(form)].filter(([, value]) => value);
    const url = `${form.getAttribute("action")}?${new URLSearchParams(given)}`;
    try {
      const fresh = await read(url, signal);
      if (!isNewest()) return;
      history.replaceState(null, "", url);
      settle(fresh, true);
      for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    } catch (error) {
      if (!isNewest()) return;
      // What is not whole yet, as a label that is being typed, must not cost the page and what was typed since.
      if (error.status === 422) form.querySelector(":focus")?.setAttribute("aria-invalid", "true");
      else if (error.status === 401) form.submit();
    }
  }));
}

for (const input of document.querySelectorAll("[data-parents]")) {
  const list = document.getElementById("parents");
  input.addEventListener("input", latest(200, async ({ signal, isNewest }) => {
    const response = await fetch(`${input.dataset.parents}&q=${encodeURIComponent(input.value)}`, { ...LIVE, signal });
    if (!response.ok) return;
    const found = await response.json();
    if (isNewest()) list.replaceChildren(...found.map(({ id, label }) => new Option(label, id)));
  }));
}
