// What is asked while somebody types: after a pause, and only the newest question has an answer.

export function latest(pause, ask) {
  let timer = 0;
  let newest = null;
  return () => {
    clearTimeout(timer);
    newest?.abort();
    timer = setTimeout(async () => {
      const own = newest = new AbortController();
      const isNewest = () => own === newest && !own.signal.aborted;
      try { await ask({ signal: own.signal, isNewest }); } catch { /* the field keeps what it has */ }
    }, pause);
  };
}
