/**
 * Network interfaces of a device and what depends on them: addresses and routes over the interface itself and over everything
 * that is built on it (VLAN, bond, bridge, macvlan, team), in every routing table; interfaces that are in another network name
 * space and can only be missed.
 */
import { execFileSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { names, readText, realPath, type HostRoots } from './files.ts';
import type { Holder } from './holders.ts';

/** What files do not show: asked of the running system, given by tests. */
export type NetworkState = {
  /** addresses by interface, without those of the link */
  readonly addresses: ReadonlyMap<string, readonly string[]>;
  /** interfaces that routes to everywhere lead over, of any table */
  readonly defaultRoutes: ReadonlySet<string>;
};

export class Network {
  readonly #roots: HostRoots;
  readonly #state: NetworkState;

  constructor(roots: HostRoots, state: NetworkState = readState()) {
    this.#roots = roots;
    const routes = new Set([...state.defaultRoutes, ...routesInProc(roots)]);
    this.#state = { addresses: state.addresses, defaultRoutes: routes };
  }

  /** What uses the interfaces of the device at the sysfs path `at`. */
  usesBelow(at: string): Holder[] {
    const own = names(this.#roots.sys, 'class/net').filter((name) =>
      realPath(this.#roots.sys, 'class/net', name)?.startsWith(`${at}/`),
    );
    const elsewhere = own.length === 0 && hasEmptyNet(at) ? [movedAway()] : [];
    return [...elsewhere, ...own.flatMap((name) => this.#usesOf(name))];
  }

  #usesOf(name: string): Holder[] {
    const chain = this.#builtOn(name, []);
    const above = (one: string): string =>
      one === name
        ? ''
        : ` (${name} is below it: ${chain.slice(0, chain.indexOf(one)).join(', ')})`;
    const route = chain.find((one) => this.#state.defaultRoutes.has(one));
    if (route !== undefined) {
      const sentence = `the default route goes over ${route}${route === name ? '' : ` (${name} is a port of it)`}`;
      return [{ kind: 'default-route', sentence, vital: true }];
    }
    const addressed = chain.find((one) => (this.#state.addresses.get(one) ?? []).length > 0);
    if (addressed !== undefined) {
      const list = (this.#state.addresses.get(addressed) ?? []).join(', ');
      const sentence = `network interface ${addressed} has ${list}${above(addressed)}`;
      return [{ kind: 'interface-up', sentence, vital: true }];
    }
    const [, upper] = chain;
    const up = chain.some(
      (one) => readText(this.#roots.sys, 'class/net', one, 'operstate') === 'up',
    );
    if (upper !== undefined) {
      return [{ kind: 'interface-up', sentence: `${name} is a port of ${upper}`, vital: up }];
    }
    return up
      ? [{ kind: 'interface-up', sentence: `network interface ${name} is up`, vital: false }]
      : [];
  }

  /** The interface and everything built on it, nearest first. */
  #builtOn(name: string, seen: string[]): string[] {
    if (seen.includes(name)) return seen;
    seen.push(name);
    const links = names(this.#roots.sys, 'class/net', name);
    const uppers = links
      .filter((link) => link === 'master' || link.startsWith('upper_'))
      .map((link) => realPath(this.#roots.sys, 'class/net', name, link)?.split('/').at(-1))
      .filter((upper) => upper !== undefined);
    for (const upper of uppers) this.#builtOn(upper, seen);
    return seen;
  }
}

function movedAway(): Holder {
  return {
    kind: 'interface-up',
    sentence:
      'its driver is bound and its network interface is not here: it is in another network name space',
    vital: true,
  };
}

/** The driver made interfaces, and none is left in this name space: at the device, or one bus below (virtio). */
function hasEmptyNet(at: string): boolean {
  const folders = [at, ...names(at).map((child) => `${at}/${child}`)].filter((folder) =>
    names(folder).includes('net'),
  );
  return folders.some((folder) => names(folder, 'net').length === 0);
}

/** Default routes of the main table: a whole one, or the two halves that VPNs set. */
function routesInProc(roots: HostRoots): string[] {
  const lines = (...path: string[]): string[][] =>
    (readText(roots.proc, ...path) ?? '').split('\n').map((line) => line.trim().split(/\s+/));
  const found = [
    ...lines('net/route')
      .filter(isEverywhere4)
      .map(([name]) => name),
    ...lines('net/ipv6_route')
      .filter(isEverywhere6)
      .map((words) => words.at(-1)),
  ];
  return found.filter((name) => name !== undefined).filter((name) => name !== 'lo');
}

// 0.0.0.0/0, or 0.0.0.0/1 and 128.0.0.0/1; lowest byte first.
function isEverywhere4([, destination = '', , , , , , mask = '']: readonly string[]): boolean {
  if (mask === '00000000') return destination === '00000000';
  return mask === '00000080' && ['00000000', '00000080'].includes(destination);
}

function isEverywhere6([destination = '', length = '']: readonly string[]): boolean {
  return /^[08]0{31}$/.test(destination) && ['00', '01'].includes(length);
}

type Route = { readonly dst?: string; readonly dev?: string; readonly nexthops?: Route[] };

const EVERYWHERE = ['default', '0.0.0.0/1', '128.0.0.0/1', '::/0', '::/1', '8000::/1'];

/** Tables other than the main one show in no file; the tool of every distribution reads them. */
function readState(): NetworkState {
  const addresses = new Map<string, string[]>();
  for (const [name, list = []] of Object.entries(networkInterfaces())) {
    const global = list.filter(({ address, internal }) => !internal && !/^fe80:/i.test(address));
    if (global.length > 0)
      addresses.set(
        name,
        global.map(({ address }) => address),
      );
  }
  const defaultRoutes = new Set<string>();
  for (const family of ['-4', '-6']) {
    for (const { dst, dev, nexthops = [] } of routesOf(family)) {
      if (!EVERYWHERE.includes(dst ?? '')) continue;
      for (const name of [dev, ...nexthops.map((hop) => hop.dev)]) {
        if (name !== undefined && name !== 'lo') defaultRoutes.add(name);
      }
    }
  }
  return { addresses, defaultRoutes };
}

const TOOL_MS = 2000;

function routesOf(family: string): Route[] {
  try {
    const args = ['-j', family, 'route', 'show', 'table', 'all'];
    const stdio = ['ignore', 'pipe', 'ignore'] as ['ignore', 'pipe', 'ignore'];
    const text = execFileSync('ip', args, { encoding: 'utf8', stdio, timeout: TOOL_MS });
    return JSON.parse(text) as Route[];
  } catch {
    return [];
  }
}
