// Asks for a page, and prints what comes and when: node h2_page.mjs URL [off]
// With "off", the client takes no pushes.

import http2 from "node:http2";

const [url, mode = ""] = process.argv.slice(2);
const { origin, pathname } = new URL(url);
const session = http2.connect(origin, { ca: process.env.CA_PEM, settings: { enablePush: mode !== "off" } });
let open = 1;

const ended = (said) => {
    console.log(said);
    if (--open === 0) session.close(); // no sooner: then Node would not read the pushes that are still to come
};

session.on("error", (error) => console.log(`error ${error.message}`));
session.on("stream", (pushed, request) => {
    let status;
    let size = 0;
    open += 1;
    console.log(`promised ${request[":path"]}`);
    pushed.on("push", (headers) => (status = headers[":status"]));
    pushed.on("data", (chunk) => (size += chunk.length));
    pushed.on("end", () => ended(`pushed ${request[":path"]} ${status} ${size}`));
});

const page = session.request({ ":path": pathname });
page.on("headers", (headers) => console.log(`informed ${headers[":status"]} ${headers.link}`));
page.on("response", (headers) => console.log(`status ${headers[":status"]} ${headers.link ?? ""}`));
page.on("end", () => ended("end")).resume();
