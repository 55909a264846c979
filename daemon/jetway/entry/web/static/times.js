// Times as distances from now, kept true while the page is open.

function relative(at) {
  const seconds = (Date.now() - at) / 1000;
  const size = Math.abs(seconds);
  if (size < 2) return "just now";
  const [unit, name] = size >= 86400 ? [86400, "d"] : size >= 3600 ? [3600, "h"] : size >= 60 ? [60, "min"] : [1, "s"];
  const text = `${Math.floor(size / unit)} ${name}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

setInterval(() => {
  if (document.hidden) return;
  for (const each of document.querySelectorAll("time[datetime]")) each.textContent = relative(Date.parse(each.dateTime));
}, 5000);
