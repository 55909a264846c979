// Ticking rows: the whole page at once, and how many are ticked.

function boxes() { return [...document.querySelectorAll("input[name=pick]")]; }

function count() {
  const all = document.getElementById("pick-page");
  if (!all) return;
  const ticked = boxes().filter((box) => box.checked).length;
  all.closest("label").hidden = false;
  all.checked = ticked > 0 && ticked === boxes().length;
  all.indeterminate = ticked > 0 && !all.checked;
  document.getElementById("picked").textContent = ticked;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "pick-page") for (const box of boxes()) box.checked = event.target.checked;
  if (event.target.name === "pick" && event.target.checked) document.getElementById("scope-chosen").checked = true;
  count();
});
document.addEventListener("jetway:settled", count);
count();
