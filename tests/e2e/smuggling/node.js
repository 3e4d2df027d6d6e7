// Node's own HTTP server on the socket that is its standard input. Answers every request with what it was, as JSON; /_seen
// tells of all requests so far whose bodies came whole.
const seen = [];
require("http")
  .createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      let answer = seen;
      if (request.url !== "/_seen") {
        answer = { method: request.method, target: request.url, body: Buffer.concat(parts).toString("latin1") };
        seen.push(answer);
      }
      const text = Buffer.from(JSON.stringify(answer));
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": text.length });
      response.end(text);
    });
  })
  .listen({ fd: 0 });
