// node websocket_h2.mjs URI...: opens a WebSocket for each URI, all over one connection of HTTP/2. Prints what comes as
// lines {"socket":number,...}: "open", "data" and "closed"; each line of its input {"socket":number,"send":..} or
// {"socket":number,"close":code} is done. It ends when all have closed.

import { createInterface } from "node:readline";
import { Agent, WebSocket } from "undici";

const dispatcher = new Agent({ allowH2: true, connections: 1, pipelining: 100, connect: { ca: process.env.CA_PEM } });
const lines = createInterface({ input: process.stdin });
let open = 0;

const sockets = process.argv.slice(2).map((uri, number) => {
  const socket = new WebSocket(uri, { dispatcher });
  const say = (facts) => console.log(JSON.stringify({ socket: number, ...facts }));
  open += 1;
  socket.onopen = () => say({ open: true });
  socket.onmessage = ({ data }) => say({ data });
  socket.onerror = ({ message }) => say({ error: message });
  socket.onclose = ({ code, reason, wasClean }) => {
    say({ closed: code, reason, wasClean });
    open -= 1;
    if (open === 0) {
      lines.close();
      dispatcher.destroy();
    }
  };
  return socket;
});
lines.on("line", (line) => {
  const { socket, send, close } = JSON.parse(line);
  if (send !== undefined) {
    sockets[socket].send(send);
  } else {
    sockets[socket].close(close);
  }
});
