// An app on Node's http that prints what each request says of its caller. Arguments are HOST:PORT to listen on.
const http = require("http");

const handler = (request, response) => {
  const names = ["x-forwarded-client-cert", "x_forwarded_client_cert"];
  const said = names.map((name) => request.headers[name]).filter(Boolean).join(", ");
  console.log(JSON.stringify({ path: request.url, said }));
  response.end("seen");
};
for (const address of process.argv.slice(2)) {
  const [host, port] = address.split(":");
  http.createServer(handler).listen(Number(port), host);
}
