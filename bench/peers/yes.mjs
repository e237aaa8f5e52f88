// Node: an application that is asked by pushd's hooks and always says yes, as cheaply as it can.
//
// Usage: node yes.mjs PORT

import http from "node:http";

http
  .createServer((request, response) => {
    request.resume();
    request.on("end", () => response.writeHead(200, { "Content-Type": "application/json" }).end("{}"));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
