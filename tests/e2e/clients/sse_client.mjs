// node sse_client.mjs PACKAGE URL: prints what a client of Server-Sent Events calls its application with, as lines
// {"type","id","data"}, and {"open":true} when it is connected. It ends with its input.

const [name, url] = process.argv.slice(2);
const say = (facts) => console.log(JSON.stringify(facts));
const told = ({ type, lastEventId: id, data }) => say({ type, id, data });

if (name === "@microsoft/fetch-event-source") {
  globalThis.window = globalThis; // it is made for browsers
  const { fetchEventSource } = await import(name);
  const end = new AbortController();
  process.stdin.on("end", () => end.abort()).resume();
  await fetchEventSource(url, {
    signal: end.signal,
    openWhenHidden: true,
    onopen: async () => say({ open: true }),
    onmessage: ({ event, id, data }) => say({ type: event || "message", id, data }),
    onclose: () => { throw new Error("closed: come back"); },
    onerror: () => 100,
  });
} else {
  const imported = await import(name);
  const EventSource = imported.EventSource ?? imported.EventSourcePolyfill ?? imported.default.EventSourcePolyfill;
  const source = new EventSource(url);
  source.onopen = () => say({ open: true });
  source.onmessage = told;
  process.stdin.on("end", () => process.exit(0)).resume();
}
