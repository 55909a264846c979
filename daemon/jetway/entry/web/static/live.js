// Following changes: an event only marks that something changed; the page is read again at most once a second, never
// while it is hidden, and the more seldom the longer an answer took.

import { read, settle } from "./page.js";

const SOONEST = 1000;
const LATEST = 60000;
const SPREAD = 5000; // after a break all open pages come back at once
const PATIENCE = 4; // a reading takes at most a fifth of the time

let changed = false;
let reading = false;
let timer = 0;
let wait = SOONEST;
let stopped = false; // the browser does not connect again

function note() {
  if (changed) return;
  changed = true;
  plan();
}

function plan() {
  if (changed && !timer && !reading && !document.hidden) timer = setTimeout(refresh, wait);
}

async function refresh() {
  timer = 0;
  if (document.hidden) return;
  changed = false;
  reading = true;
  const began = performance.now();
  try {
    const url = location.href;
    const fresh = await read(url);
    if (url === location.href) settle(fresh);
    else changed = true; // the reader went on meanwhile: what this told of is on the other page, too
    say(false);
    wait = Math.min(LATEST, Math.max(SOONEST, PATIENCE * (performance.now() - began)));
  } catch (error) {
    say(true);
    changed = error.status === undefined || error.status >= 429;
    wait = Math.min(LATEST, wait * 2);
  } finally {
    reading = false;
    plan();
  }
}

function say(stale) { document.getElementById("stale").hidden = !stale && !stopped; }

// A hidden page holds no connection: browsers allow few to one host, and it would have nothing to do with it.
export function follow(about) {
  let source = null;
  let failed = false;

  function listen() {
    source?.close();
    source = new EventSource(about === "*" ? "/ui/live" : `/ui/live?about=${encodeURIComponent(about)}`);
    source.addEventListener("changed", note);
    source.addEventListener("open", () => {
      document.documentElement.dataset.connected = "yes";
      if (failed) wait = Math.max(wait, SOONEST + Math.random() * SPREAD);
      failed = stopped = false;
      note(); // what changed before, since the page was made or the connection ended, was not told
    });
    source.addEventListener("error", () => {
      failed = true;
      stopped = source?.readyState === EventSource.CLOSED;
      if (stopped) say(true);
    });
  }

  function leave() {
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return leave();
    listen();
    plan();
  });
  addEventListener("pagehide", leave);
  if (!document.hidden) listen();
}
