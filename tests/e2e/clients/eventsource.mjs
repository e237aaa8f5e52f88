// node eventsource.mjs URL TYPE...: prints each event of these types as a line {"type","id","data"}, and when it is
// connected {"type":"open"}, when it is not {"type":"error"}. It ends with its input.

import { EventSource } from "eventsource";

const [url, ...types] = process.argv.slice(2);
const source = new EventSource(url);
const say = (facts) => console.log(JSON.stringify(facts));

source.onopen = () => say({ type: "open" });
source.onerror = ({ code, message }) => say({ type: "error", code, message });
for (const type of types) {
  source.addEventListener(type, ({ lastEventId: id, data }) => say({ type, id, data }));
}
process.stdin.on("end", () => source.close()).resume();
