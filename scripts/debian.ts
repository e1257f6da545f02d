/**
 * Packages of Debian without apt and without root: the mirror comes from the machine's own apt sources, the index of a suite
 * is checked against its InRelease (whose signature is checked where gpgv and Debian's keyring are), a package against the
 * index.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { fetchBytes, Unavailable } from './download.ts';

export type Source = { readonly uri: string; readonly suite: string };

/** sources.list: `deb [options] URI suite component…`. */
export function parseSourcesList(text: string): Source[] {
  return text.split('\n').flatMap((line) => {
    const words = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)/.exec(line);
    return words === null ? [] : [{ uri: words[1] ?? '', suite: words[2] ?? '' }];
  });
}

/** The fields of the stanzas of a deb822 file, names in lower case, continuation lines joined by spaces. */
export function parseStanzas(text: string): Map<string, string>[] {
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  const stanzas = lines.join('\n').split(/\n\s*\n/);
  return stanzas
    .map((stanza) => {
      const joined = stanza.replace(/\n[ \t]+/g, ' ');
      const fields = [...joined.matchAll(/^([\w-]+):[ \t]*(.*)$/gm)];
      return new Map(fields.map((match) => [match[1]?.toLowerCase() ?? '', match[2] ?? '']));
    })
    .filter((fields) => fields.size > 0);
}

/** *.sources: one stanza stands for every pair of its URIs and suites. */
export function parseDeb822(text: string): Source[] {
  const words = (value: string | undefined): string[] =>
    (value ?? '').split(/\s+/).filter((word) => word !== '');
  return parseStanzas(text).flatMap((stanza) => {
    const off = /^(no|false|0|off)$/i.test(stanza.get('enabled') ?? 'yes');
    if (off || !words(stanza.get('types')).includes('deb')) return [];
    return words(stanza.get('uris')).flatMap((uri) =>
      words(stanza.get('suites')).map((suite) => ({ uri, suite })),
    );
  });
}

/** Everything that apt on this machine installs from. */
export function machineSources(etc = '/etc/apt'): Source[] {
  const read = (file: string): string => (existsSync(file) ? readFileSync(file, 'utf8') : '');
  const parts = join(etc, 'sources.list.d');
  const files = existsSync(parts) && statSync(parts).isDirectory() ? readdirSync(parts).sort() : [];
  return [
    ...parseSourcesList(read(join(etc, 'sources.list'))),
    ...files
      .filter((name) => name.endsWith('.list'))
      .flatMap((name) => parseSourcesList(read(join(parts, name)))),
    ...files
      .filter((name) => name.endsWith('.sources'))
      .flatMap((name) => parseDeb822(read(join(parts, name)))),
  ];
}

/** Weight of a character in a version: `~` before the end of the string, letters before everything else. */
function weight(character: string | undefined): number {
  if (character === '~') return -1;
  if (character === undefined || /\d/.test(character)) return 0;
  return /[A-Za-z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256;
}

function compareParts(a: string, b: string): number {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    while ((i < a.length && !/\d/.test(a[i] ?? '')) || (j < b.length && !/\d/.test(b[j] ?? ''))) {
      const difference = weight(a[i]) - weight(b[j]);
      if (difference !== 0) return difference;
      i++;
      j++;
    }
    const first = /^\d*/.exec(a.slice(i))?.[0] ?? '';
    const second = /^\d*/.exec(b.slice(j))?.[0] ?? '';
    if (Number(first) !== Number(second)) return Number(first) - Number(second);
    i += first.length;
    j += second.length;
  }
  return 0;
}

/** Order of Debian versions, after deb-version(7). @returns negative, 0 or positive */
export function compareVersions(a: string, b: string): number {
  const split = (version: string): [number, string, string] => {
    const epoch = /^(\d+):/.exec(version);
    const rest = version.slice(epoch?.[0].length ?? 0);
    const dash = rest.lastIndexOf('-');
    return dash < 0
      ? [Number(epoch?.[1] ?? 0), rest, '']
      : [Number(epoch?.[1] ?? 0), rest.slice(0, dash), rest.slice(dash + 1)];
  };
  const [epochA, upstreamA, revisionA] = split(a);
  const [epochB, upstreamB, revisionB] = split(b);
  return (
    epochA - epochB || compareParts(upstreamA, upstreamB) || compareParts(revisionA, revisionB)
  );
}

export type Package = {
  readonly name: string;
  readonly version: string;
  readonly url: URL;
  readonly sha256: string;
  /** in bytes */
  readonly size: number;
  readonly suite: string;
};

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** One suite of one mirror. */
type Suite = { readonly base: string; readonly name: string };

function signed(release: Buffer): Buffer {
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  if (!existsSync(keyring) || spawnSync('gpgv', ['--version']).status !== 0) return release;
  const checked = spawnSync('gpgv', ['--keyring', keyring, '--output', '-'], { input: release });
  const said = checked.stderr.toString();
  // A suite newer than the machine's keyring has keys that it does not know; a wrong signature is refused all the same.
  if (checked.status !== 0 && (said.includes('BAD') || !said.includes('No public key'))) {
    throw new Unavailable(`the signature of the index is wrong: ${said.trim()}`);
  }
  return release;
}

async function indexOf({ base, name }: Suite): Promise<string> {
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const release = signed(await fetchBytes(new URL(`${base}/dists/${name}/InRelease`)));
  const sums = release.toString().split(/^SHA256:$/m)[1] ?? '';
  const xz = spawnSync('xz', ['--version']).status === 0;
  for (const extension of xz ? ['xz', 'gz'] : ['gz']) {
    const path = `main/binary-${architecture}/Packages.${extension}`;
    const line = new RegExp(`^ ([0-9a-f]{64}) +\\d+ ${path}$`, 'm').exec(sums);
    if (line === null) continue;
    const packed = await fetchBytes(new URL(`${base}/dists/${name}/${path}`), line[1]);
    if (extension === 'gz') return gunzipSync(packed).toString();
    return spawnSync('xz', ['-dc'], { input: packed, maxBuffer: 2 ** 30 }).stdout.toString();
  }
  throw new Unavailable(`${base}: suite ${name} has no index for ${architecture}`);
}

/** The packages of an index whose name matches. */
export function packagesIn(index: string, wanted: RegExp, suite: Suite): Package[] {
  return [...index.matchAll(/^Package: (\S+)\n(?:.+\n)*/gm)]
    .filter((match) => wanted.test(match[1] ?? ''))
    .flatMap((match) => parseStanzas(match[0]))
    .map((fields) => ({
      name: fields.get('package') ?? '',
      version: fields.get('version') ?? '',
      url: new URL(`${suite.base}/${fields.get('filename') ?? ''}`),
      sha256: fields.get('sha256') ?? '',
      size: Number(fields.get('size') ?? 0),
      suite: suite.name,
    }));
}

/** Mirrors of Debian among the sources: those that have the suite every such mirror has. */
async function mirrors(sources: readonly Source[]): Promise<string[]> {
  const bases = [...new Set(sources.map(({ uri }) => uri.replace(/\/+$/, '')))].filter((uri) =>
    /^https?:/.test(uri),
  );
  if (bases.length === 0) throw new Unavailable('apt on this machine has no source over HTTP');
  const problems: string[] = [];
  for (const base of bases) {
    try {
      await fetchBytes(new URL(`${base}/dists/unstable/InRelease`));
      return [base];
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      problems.push(error.message);
    }
  }
  throw new Unavailable(`none of apt's sources is a mirror of Debian (${problems.join('; ')})`);
}

/** The codename of what Debian calls stable today. The aliases of its backports are not kept up to date everywhere. */
async function stableCodename(base: string): Promise<string> {
  const release = (await fetchBytes(new URL(`${base}/dists/stable/InRelease`))).toString();
  return /^Codename: (\S+)$/m.exec(release)?.[1] ?? 'stable';
}

export type Search = {
  readonly wanted: RegExp;
  /** names of suites, `{stable}` standing for the codename of stable; missing suites are passed over */
  readonly suites: readonly string[];
  readonly onSuite: (suite: string) => void;
};

/** Every package that matches, newest first. @throws Unavailable offline, or where there is no mirror of Debian */
export async function findPackages({ wanted, suites, onSuite }: Search): Promise<Package[]> {
  const found: Package[] = [];
  for (const base of await mirrors(machineSources())) {
    const stable = suites.some((name) => name.includes('{stable}'))
      ? await stableCodename(base)
      : '';
    for (const name of new Set(suites.map((suite) => suite.replace('{stable}', stable)))) {
      onSuite(name);
      try {
        const suite = { base, name };
        found.push(...packagesIn(await indexOf(suite), wanted, suite));
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
      }
    }
  }
  return found.sort((a, b) => compareVersions(b.version, a.version));
}

/** The suites that the machine itself installs from: where libraries fit its C library. */
export function machineSuites(): string[] {
  return [...new Set(machineSources().map(({ suite }) => suite))];
}
