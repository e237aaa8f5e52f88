// node websocket.mjs URI: prints what comes over the WebSocket, a line for each message, and sends each line of its
// input; at the end of the input it closes. The last line that it prints is {"closed":code,"reason":".."}.

import { createInterface } from "node:readline";
import { WebSocket } from "ws";

const socket = new WebSocket(process.argv[2], { ca: process.env.CA_PEM });

socket.on("open", () => {
  console.log('{"open":true}');
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => socket.send(line));
  lines.on("close", () => socket.close(1000));
  socket.on("close", () => lines.close());
});
socket.on("message", (data) => console.log(data.toString()));
socket.on("error", (error) => console.log(JSON.stringify({ error: error.message })));
socket.on("close", (code, reason) => console.log(JSON.stringify({ closed: code, reason: reason.toString() })));
