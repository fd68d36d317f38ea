// The official TypeScript clients, as their READMEs use them: node typescript.mjs {"url", "client": "v1"|"v2", "mode", "modules"}.
// v1 is @modelcontextprotocol/sdk (sessions), v2 @modelcontextprotocol/client (mode: legacy, auto or a pinned revision).
// Prints what it saw as JSON.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { url, client: which, mode, modules } = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(`${modules}/x.js`));
const load = (name) => import(pathToFileURL(require.resolve(name)));

const info = { name: 'interop', version: '1' };
const capabilities = { elicitation: { form: {} }, sampling: {}, roots: {} };
const answers = { action: 'accept', content: { color: 'green', name: 'interop' } };
let client, transport;
if (which === 'v1') {
  const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { ElicitRequestSchema } = await load('@modelcontextprotocol/sdk/types.js');
  client = new Client(info, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, async () => answers);
  transport = new StreamableHTTPClientTransport(new URL(url));
} else {
  const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
  const negotiation = mode.startsWith('2') ? { pin: mode } : mode;
  client = new Client(info, { capabilities, versionNegotiation: { mode: negotiation, probe: { timeoutMs: 60000 } } });
  client.setRequestHandler('elicitation/create', async () => answers);
  transport = new StreamableHTTPClientTransport(new URL(url));
}
const options = { timeout: 60000 };
await client.connect(transport, options);
const text = (result) => result.content.map((part) => part.text ?? '').join('');
const call = async (name, args, more = {}) =>
  text(await client.callTool({ name, arguments: args }, ...(which === 'v1' ? [undefined] : []), { ...options, ...more }));

const progress = [];
const onprogress = (step) => progress.push(step.progress);
const tools = (await client.listTools({}, options)).tools.map((tool) => tool.name);
const prompts = (await client.listPrompts({}, options)).prompts.map((prompt) => prompt.name);
const resources = (await client.listResources({}, options)).resources.map((resource) => resource.uri);
const saw = {
  revision: transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.(),
  tools,
  prompts,
  resources,
  echo: await call('everything_echo', { message: 'hello' }),
  time: await call('time_convert_time', { source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo' }),
  search: await call('github_search_code', { query: 'gateway' }),
  asked: await call('github_ask', {}),
  steps: await call('github_steps', { count: 3 }, { onprogress }),
  progress,
  prompt: JSON.stringify(await client.getPrompt({ name: 'github_review', arguments: { path: 'a.py' } }, options)),
  resource: JSON.stringify(await client.readResource({ uri: 'github+repo://readme' }, options)),
  unknown: await call('github_nonsense', {}).catch((error) => String(error.message)),
};
await client.close();
console.log(JSON.stringify(saw));
