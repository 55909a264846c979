// Suggestions that follow what is typed. Without this the fields suggest what the page came with.

for (const input of document.querySelectorAll("[data-suggest]")) {
  const list = document.getElementById(input.getAttribute("list"));
  let timer = 0;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const url = `${input.dataset.suggest}?q=${encodeURIComponent(input.value)}`;
      const response = await fetch(url, { headers: { "X-Jetway-Live": "1" } });
      if (!response.ok) return;
      list.replaceChildren(...(await response.json()).map((text) => new Option("", text)));
    }, 200);
  });
}
