// An OpenID provider with the addresses and claims of Microsoft Entra ID, for
// the stories: oidc-provider does all that is OpenID, this file only lends it
// the shape. Started by e2e/openid_test.go:
//
//   node issuer.mjs PORT CERTIFICATE KEY TENANT...
//
// A token is asked for by client credentials with scope <audience>/.default.
// What an audience says behind a ; is how its tokens are odd: see odd below.
// POST /TENANT/rotate makes a new key; the one before stays published.
// POST /off and /on have every other request answered with 503, and not.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, certificate, key, ...tenants] = process.argv.slice(2);
const base = `https://localhost:${port}`;
const app = '2e8c0c4e-7d55-4c0a-9a6e-3b1f0a5d7c11';
const device = 'b3a1f2de-55aa-4c1e-8c77-0d9e6f5a4b33';
const service = '9d0f4b8a-1c2d-4e3f-8a9b-0c1d2e3f4a5b';

let serial = 0;
function newKeys() {
  const n = ++serial;
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  return [{ ...rsa, kid: `rsa-${n}`, use: 'sig' }, { ...ec, kid: `ec-${n}`, use: 'sig', alg: 'ES256' }];
}

// odd changes a token's payload before it is signed.
const odd = {
  later: (p) => { p.nbf = p.iat = p.iat + 7200; p.exp = p.iat + 3600; },
  version: (p) => { p.ver = '1.0'; },
  issuer: (p) => { p.iss = base + '/someone/else/v2.0'; },
  tenant: (p) => { p.tid = tenants[tenants.length - 1]; },
  notenant: (p) => { delete p.tid; },
  user: (p) => { p.preferred_username = 'ada@example.com'; delete p.deviceid; },
};
const life = { short: 2, long: 10 * 365 * 24 * 3600 };

function provider(tid, keys) {
  const made = new Provider(`${base}/${tid}/v2.0`, {
    jwks: { keys },
    clients: [{
      client_id: app, client_secret: 'secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      token_endpoint_auth_method: 'client_secret_post',
    }],
    routes: { token: '/oauth2/v2.0/token', jwks: '/discovery/v2.0/keys' },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // Entra's clients name no resource: it stands in the scope.
        defaultResource: (ctx) => ctx.oidc.params.scope.slice(0, ctx.oidc.params.scope.lastIndexOf('/')),
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource, scope: `${resource}/.default`, accessTokenFormat: 'jwt',
          accessTokenTTL: life[resource.split(';')[1]] ?? 3600,
          jwt: { sign: { alg: resource.split(';')[2] ?? 'RS256' } },
        }),
      },
    },
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256'], idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256'] },
    extraTokenClaims: () => ({ tid, oid: service, deviceid: device }),
    formats: {
      customizers: {
        jwt(ctx, token, parts) {
          const [audience, how] = parts.payload.aud.split(';');
          parts.header = { ...parts.header, typ: 'JWT' };
          const p = parts.payload;
          p.aud = audience;
          p.nbf = p.iat;
          if (audience.startsWith('https://')) { // as resources of version 1.0
            Object.assign(p, { iss: `https://sts.windows.net/${tid}/`, appid: app, ver: '1.0' });
          } else {
            Object.assign(p, { azp: app, azpacr: '1', ver: '2.0' });
          }
          odd[how]?.(p);
          return parts;
        },
      },
    },
  });
  made.on('server_error', (ctx, err) => console.error(err));
  return made;
}

const state = Object.fromEntries(tenants.map((tid) => {
  const keys = newKeys();
  return [tid, { keys, serve: provider(tid, keys).callback() }];
}));

let off = false;
createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (req, res) => {
  const [, tid, ...rest] = req.url.split('/');
  const tenant = state[tid];
  if (req.url === '/off' || req.url === '/on') {
    off = req.url === '/off';
    res.end();
  } else if (off) {
    res.writeHead(503).end();
  } else if (!tenant) {
    res.writeHead(404).end();
  } else if (rest.join('/') === 'rotate') {
    tenant.keys = [...newKeys(), ...tenant.keys].slice(0, 4);
    tenant.serve = provider(tid, tenant.keys).callback();
    res.end();
  } else {
    req.url = '/' + rest.join('/');
    if (req.url.startsWith('/.well-known/')) { // of version 1.0: there is none here
      res.writeHead(404).end();
      return;
    }
    if (req.url.startsWith('/v2.0/.well-known/')) req.url = req.url.slice('/v2.0'.length);
    req.originalUrl = `/${tid}${req.url}`;
    tenant.serve(req, res);
  }
}).listen(Number(port), '127.0.0.1', () => console.log('ready'));
