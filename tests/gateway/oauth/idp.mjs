// An OpenID provider (npm oidc-provider) that signs in whom the header x-user names, unasked. Rotates refresh tokens.
// node idp.mjs MODULES. Prints its origin.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(`${process.argv[2]}/x.js`));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const server = createServer();
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const origin = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(origin, {
  routes: { authorization: '/authorize', jwks: '/jwks' },
  scopes: ['openid', 'offline_access', 'read'],
  clientDefaults: { token_endpoint_auth_method: 'none' },
  ttl: { AccessToken: 3600 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        audience: resource, scope: 'read', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

const handle = provider.callback();
server.on('request', async (request, response) => {
  if (request.url.startsWith('/interaction/')) {
    const { params } = await provider.interactionDetails(request, response);
    const accountId = request.headers['x-user'];
    const grant = new provider.Grant({ accountId, clientId: params.client_id });
    grant.addOIDCScope(`openid offline_access ${params.scope ?? ''}`);
    grant.addResourceScope(params.resource, params.scope ?? 'read');
    const result = { login: { accountId }, consent: { grantId: await grant.save() } };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    return;
  }
  if (request.url === '/.well-known/oauth-authorization-server') request.url = '/.well-known/openid-configuration';
  handle(request, response);
});
console.log(origin);
