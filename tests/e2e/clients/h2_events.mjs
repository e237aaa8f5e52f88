// Prints each event of a channel as it is pushed: node h2_events.mjs CHANNEL [URL] [refuse | off]
// With "refuse", every third push is refused for the time being, as a client does that has no room.
// With "off", the client takes no pushes. SINCE in the environment is where to begin.

import http2 from "node:http2";

const [channel = "news", url = "https://127.0.0.1:8443", mode = ""] = process.argv.slice(2);
const session = http2.connect(url, {
    rejectUnauthorized: false, // the certificate is self-signed
    // so little that a response is never complete before it is refused: Node would not tell the server then
    settings: { enablePush: mode !== "off", initialWindowSize: mode === "refuse" ? 32 : 1024 * 1024 },
});
let pushes = 0;

session.on("error", (error) => console.log(`error ${error.message}`));
session.on("close", () => console.log("closed"));
session.on("stream", (pushed, request) => {
    pushed.on("error", () => {});
    if (mode === "refuse" && pushes++ % 3 === 0) {
        pushed.close(http2.constants.NGHTTP2_REFUSED_STREAM);
        return;
    }
    let fields = {};
    const chunks = [];
    pushed.on("push", (headers) => (fields = headers));
    pushed.on("data", (chunk) => chunks.push(chunk));
    pushed.on("end", () => {
        const data = Buffer.concat(chunks).toString();
        console.log(`event ${request[":path"]} ${fields["content-type"]} ${data}`);
    });
});

const since = process.env.SINCE ? `&since=${encodeURIComponent(process.env.SINCE)}` : "";
const parent = session.request({ ":path": `/push?channel=${encodeURIComponent(channel)}${since}` });
parent.setEncoding("utf8");
parent.on("error", (error) => console.log(`error ${error.message}`));
parent.on("response", (headers) => console.log(`status ${headers[":status"]}`));
parent.on("data", (text) => {
    for (const line of text.split("\n").filter(Boolean)) {
        console.log(`said ${line}`);
    }
});
parent.on("end", () => session.close());
