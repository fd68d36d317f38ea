// An OpenID provider (npm oidc-provider) in the URL layout of a product; people are signed in as alice unasked.
// node idp.mjs LAYOUT-JSON: {prefix, discovery, routes}. Prints its origin.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { prefix, discovery, routes, modules } = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(`${modules}/x.js`));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const server = createServer();
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const origin = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(`${origin}${prefix}`, {
  routes,
  scopes: ['openid', 'offline_access', 'mcp:read', 'mcp:write'],
  clientDefaults: { token_endpoint_auth_method: 'none' },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `${prefix}/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'api://mcp',
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        audience: resource, scope: 'mcp:read mcp:write', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

const handle = provider.callback();
server.on('request', async (request, response) => {
  const url = new URL(request.url, origin);
  if (url.pathname.startsWith(`${prefix}/interaction/`)) {
    const { params, grantId } = await provider.interactionDetails(request, response);
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: 'alice', clientId: params.client_id });
    grant.addOIDCScope(`openid offline_access ${params.scope ?? ''}`);
    grant.addResourceScope(params.resource ?? 'api://mcp', params.scope ?? 'mcp:read');
    const result = { login: { accountId: 'alice' }, consent: { grantId: await grant.save() } };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    return;
  }
  request.originalUrl = request.url;
  if (url.pathname === discovery) request.originalUrl = request.url = `${prefix}/.well-known/openid-configuration`;
  request.url = request.url.slice(prefix.length) || '/';
  request.baseUrl = prefix;
  handle(request, response);
});
console.log(origin);
