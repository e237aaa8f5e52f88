// undici's fetch over HTTP/2: node h2_fetch.mjs URL CHANNEL
// Prints each event of /sse as a line, and publishes each line of its input. It ends with its input.

import diagnostics from "node:diagnostics_channel";
import { createInterface } from "node:readline";
import { Agent, fetch } from "undici";

const [url, channel] = process.argv.slice(2);
const dispatcher = new Agent({ allowH2: true, connect: { ca: process.env.CA_PEM } });
const aborter = new AbortController();

diagnostics.subscribe("undici:client:connected", ({ connectParams }) => console.log(`connected ${connectParams.version}`));

const stream = await fetch(`${url}/sse?channel=${channel}`, { dispatcher, signal: aborter.signal });
console.log(`status ${stream.status} ${stream.headers.get("content-type")}`);

const publish = async () => {
    for await (const body of createInterface({ input: process.stdin })) {
        const answer = await fetch(`${url}/channels/${channel}`, { method: "POST", body, dispatcher });
        console.log(`published ${answer.status} ${(await answer.json()).offset}`);
    }
    aborter.abort();
};
const follow = async () => {
    let text = "";
    for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) {
        const lines = (text + chunk).split("\n");
        text = lines.pop();
        lines.filter((line) => line.startsWith("data: ")).forEach((line) => console.log(`event ${line.slice(6)}`));
    }
};

await Promise.all([publish(), follow().catch((error) => console.log(`over ${error.name}`))]);
await dispatcher.close();
