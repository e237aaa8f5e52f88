// Node: WebSocket with the package ws, Server-Sent Events with its own http. Whatever comes to /publish, as a
// WebSocket message or as a POST, goes to every subscriber.
//
// Usage: node ws.mjs PORT TLS_PORT CERTIFICATE KEY

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const [port, tlsPort, certificate, key] = process.argv.slice(2);
const sockets = new WebSocketServer({ noServer: true });
const publishers = new WebSocketServer({ noServer: true });
const responses = new Set();
let number = 0;

function publish(data) {
  for (const socket of sockets.clients) socket.send(data, { binary: false });
  if (responses.size === 0) return;
  const block = `id: ${++number}\ndata: ${data}\n\n`;
  for (const response of responses) response.write(block);
}

function serve(request, response) {
  if (request.method === "POST") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      publish(Buffer.concat(parts));
      response.writeHead(201, { "Content-Type": "application/json" }).end("{}");
    });
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.flushHeaders();
  responses.add(response);
  response.on("close", () => responses.delete(response));
}

function upgrade(request, socket, head) {
  if (request.url === "/publish") {
    publishers.handleUpgrade(request, socket, head, (publisher) => publisher.on("message", publish));
  } else {
    sockets.handleUpgrade(request, socket, head, () => {});
  }
}

const credentials = { cert: readFileSync(certificate), key: readFileSync(key) };
for (const [server, at] of [
  [http.createServer(serve), port],
  [https.createServer(credentials, serve), tlsPort],
]) {
  server.on("upgrade", upgrade);
  server.on("clientError", () => {});
  server.keepAliveTimeout = 0;
  server.listen({ host: "127.0.0.1", port: Number(at), backlog: 4096 });
}
sockets.on("connection", (socket) => socket.on("error", () => {}));
