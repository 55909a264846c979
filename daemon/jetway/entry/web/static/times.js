// Times as distances from now, kept true while the page is open.

function relative(at) {
  const seconds = (Date.now() - at) / 1000;
  const size = Math.abs(seconds);
  if (size < 2) return "just now";
  const [unit, name] = size >= 86400 ? [86400, "d"] : size >= 3600 ? [3600, "h"] : size >= 60 ? [60, "min"] : [1, "s"];
  const text = `${Math.floor(size / unit)} ${name}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function countdown(at) {
  const seconds = Math.max(0, Math.floor((at - Date.now()) / 1000));
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const clock = `${two(seconds % 86400 / 3600)}:${two(seconds % 3600 / 60)}:${two(seconds % 60)}`;
  return seconds >= 86400 ? `${Math.floor(seconds / 86400)} d ${clock}` : clock;
}

setInterval(() => {
  if (document.hidden) return;
  for (const each of document.querySelectorAll("time[datetime]:not([data-countdown])")) each.textContent = relative(Date.parse(each.dateTime));
}, 5000);

setInterval(() => {
  if (document.hidden) return;
  for (const each of document.querySelectorAll("time[data-countdown]")) each.textContent = countdown(Date.parse(each.dateTime));
}, 1000);

// A secret that was used is of no use any more: it need not stay on the screen.
document.addEventListener("jetway:settled", () => {
  const spent = document.querySelector("[data-spent]");
  if (spent) document.getElementById(spent.dataset.spent)?.remove();
});
