// A web handler in the style of CGI: Spore.env() has the request, Spore.input() its body; what is printed is the answer.
//
//   GET  /fn/demo/web            the request, as JSON
//   GET  /fn/demo/web/hello/Ada  greets
//   POST /fn/demo/web/upper      the body in upper case
//   GET  /fn/demo/web/old        redirects to /new
const env = Spore.env();

function answer(status, type, body, ...fields) {
  const header = [`Status: ${status}`, `Content-Type: ${type}; charset=utf-8`, ...fields];
  Spore.output(header.join('\n') + '\n\n' + body);
}

const escaped = (text) => text.replace(/[<>&"]/g, (c) => `&#${c.charCodeAt(0)};`);

const path = env.PATH_INFO || '/';
if (path === '/') {
  const query = Object.fromEntries(
    env.QUERY_STRING.split('&').filter(Boolean).map((pair) => pair.split('=').map(decodeURIComponent)));
  answer(200, 'application/json', JSON.stringify({ method: env.REQUEST_METHOD, query, agent: env.HTTP_USER_AGENT }) + '\n');
} else if (path.startsWith('/hello/')) {
  answer(200, 'text/html', `<p>Hello, ${escaped(path.slice(7))}!</p>\n`);
} else if (path === '/upper') {
  if (env.REQUEST_METHOD === 'POST') answer(200, 'text/plain', Spore.input().toUpperCase());
  else answer(405, 'text/plain', 'use POST\n', 'Allow: POST');
} else if (path === '/old') {
  answer(302, 'text/plain', '', `Location: ${env.SCRIPT_NAME}/new`);
} else {
  answer(404, 'text/plain', 'there is no such page\n');
}
