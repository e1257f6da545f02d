/**
 * Files over HTTP with nothing but Node: proxies from the environment or from apt's configuration, redirects, a limit on
 * silence, progress. Whoever downloads says what the bytes must hash to.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, renameSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import tls from 'node:tls';

const SILENCE_MS = 30_000;
const REDIRECTS = 5;

/** The network or the other end does not answer as it should; the caller skips by name. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable';
}

export type ProxyRules = {
  /** environment variables, lower or upper case names */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** what `apt-config dump` says; empty where there is no apt */
  readonly apt: string;
};

/** @returns the proxy that `url` goes through, undefined for none */
export function proxyFor(url: URL, { env, apt }: ProxyRules): URL | undefined {
  const scheme = url.protocol.slice(0, -1);
  const lines = new Map(
    [...apt.matchAll(/^Acquire::(\S+) "(.*)";$/gm)].map((match) => [match[1], match[2]]),
  );
  const ours = lines.get(`${scheme}::Proxy::${url.hostname}`) ?? lines.get(`${scheme}::Proxy`);
  if (ours === 'DIRECT') return undefined;
  const variable = (name: string): string | undefined => env[name] ?? env[name.toUpperCase()];
  const direct = (variable('no_proxy') ?? '').split(',').map((entry) => entry.trim());
  const excluded = direct.some(
    (entry) =>
      entry === '*' ||
      entry === url.hostname ||
      (entry !== '' && url.hostname.endsWith(entry.startsWith('.') ? entry : `.${entry}`)),
  );
  const found = ours ?? (excluded ? undefined : variable(`${scheme}_proxy`));
  if (found === undefined || found === '') return undefined;
  return new URL(found.includes('://') ? found : `http://${found}`);
}

let rules: ProxyRules | undefined;

function machineRules(): ProxyRules {
  rules ??= {
    env: process.env,
    apt: spawnSync('apt-config', ['dump'], { encoding: 'utf8' }).stdout || '',
  };
  return rules;
}

function proxyHeaders(proxy: URL): http.OutgoingHttpHeaders {
  if (proxy.username === '') return {};
  const login = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(login).toString('base64')}` };
}

/** A connection to the other end of `url` through a proxy (HTTP CONNECT). */
function tunnel(url: URL, proxy: URL): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: proxy.hostname,
      port: proxy.port || 80,
      method: 'CONNECT',
      path: `${url.hostname}:${url.port || '443'}`,
      headers: proxyHeaders(proxy),
    });
    request.once('connect', (response, socket) => {
      if (response.statusCode === 200) resolve(socket);
      else reject(new Unavailable(`the proxy answers ${response.statusCode ?? 'nothing'}`));
    });
    request.once('error', reject);
    request.end();
  });
}

async function ask(url: URL): Promise<http.IncomingMessage> {
  const proxy = proxyFor(url, machineRules());
  const secure = url.protocol === 'https:';
  const socket = proxy !== undefined && secure ? await tunnel(url, proxy) : undefined;
  return new Promise((resolve, reject) => {
    let request: http.ClientRequest;
    if (socket !== undefined) {
      const createConnection = (): Duplex => tls.connect({ socket, servername: url.hostname });
      request = https.get(url, { agent: false, createConnection });
    } else if (proxy !== undefined) {
      const headers = { host: url.host, ...proxyHeaders(proxy) };
      request = http.get({
        host: proxy.hostname,
        port: proxy.port || 80,
        path: url.href,
        headers,
      });
    } else {
      request = (secure ? https : http).get(url);
    }
    request.setTimeout(SILENCE_MS, () => {
      request.destroy(new Unavailable(`no answer for ${SILENCE_MS / 1000} s`));
    });
    request.once('response', resolve);
    request.once('error', reject);
  });
}

/** The body of `url` after redirects. */
export async function open(url: URL, redirects = REDIRECTS): Promise<http.IncomingMessage> {
  let response: http.IncomingMessage;
  try {
    response = await ask(url);
  } catch (error) {
    throw new Unavailable(`${url.href}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const { statusCode = 0, headers } = response;
  if (statusCode === 200) return response;
  response.resume();
  if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined && redirects > 0) {
    return open(new URL(headers.location, url), redirects - 1);
  }
  throw new Unavailable(`${url.href}: HTTP status ${statusCode}`);
}

/** A whole small file. @throws Unavailable also if the SHA-256 differs */
export async function fetchBytes(url: URL, sha256?: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await open(url)) chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  if (sha256 !== undefined && createHash('sha256').update(bytes).digest('hex') !== sha256) {
    throw new Unavailable(`${url.href}: not the bytes that the index promises (SHA-256 differs)`);
  }
  return bytes;
}

/**
 * Downloads a large file; the name appears only when its content is right.
 * @param onProgress bytes so far
 */
export async function fetchFile(
  url: URL,
  file: string,
  sha256: string,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const response = await open(url);
  const hash = createHash('sha256');
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
    onProgress(bytes);
  });
  const part = `${file}.part`;
  await pipeline(response, createWriteStream(part));
  if (hash.digest('hex') !== sha256) {
    throw new Unavailable(`${url.href}: not the bytes that the index promises (SHA-256 differs)`);
  }
  renameSync(part, file);
}
