// Takes events over one connection, those of the channel "sse" by SSE and those of "push" by server push:
// node subscriber.mjs URL
// Says "open" once it is subscribed to both and, at the end of its input, the ids of what came by each as JSON, in the
// order that they were complete in.

import http2 from "node:http2";

const session = http2.connect(process.argv[2], { rejectUnauthorized: false });
const ids = { sse: [], push: [] };
let unopened = 2;

function subscribe(way) {
    const stream = session.request({ ":path": `/${way}?channel=${way}` });
    stream.setEncoding("utf8");
    stream.once("data", () => {
        unopened -= 1;
        if (unopened === 0) {
            console.log("open");
        }
    });
    return stream;
}

session.on("stream", (pushed) => {
    let id;
    pushed.on("push", (fields) => (id = fields["event-id"]));
    pushed.on("end", () => ids.push.push(id));
    pushed.resume();
});
subscribe("push").resume();

let id;
let rest = "";
subscribe("sse").on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
        if (line.startsWith("id: ")) {
            id = line.slice(4);
        } else if (line.startsWith("data: ")) {
            ids.sse.push(id);
        }
    }
});

process.stdin.resume();
process.stdin.on("end", () => {
    console.log(JSON.stringify(ids));
    session.destroy();
});
