/**
 * Names: which path of a client means something of ours. The question is asked for every open and stat of every program, so
 * the answer "no" must be cheap: a path none of whose components is the last component of a node of ours can reach one only
 * through a symbolic link, and one readlink tells whether it is one.
 *
 * The others are walked as the kernel would, component by component through the client's own root, with nodes of ours laid
 * over the host's files. What turns out to be the host's is left to the kernel.
 *
 * The client may change the string after we read it. It then gets what the kernel finds under the new name, which it could
 * have asked for anyway.
 */
import { Errno } from '../../base/errno.ts';
import type { DeviceNode, Namespace } from '../../kernel/kernel.ts';
import { identifyPath, identity, readLink } from '../../os/files.ts';
import { AT_FDCWD } from '../../os/numbers.ts';
import type { Context } from '../context.ts';
import type { OpenEntry } from '../fds/files.ts';
import type { Mirrored } from './mirror.ts';
import { threadStatus } from '../process-table.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const MAX_LINKS = 40;
const PROCESS_STATUS = /^\/proc\/(\d+)\/status$/;

/** What a path means. */
export type Found =
  | { readonly kind: 'node'; readonly path: string; readonly node: DeviceNode }
  /** /proc/PID/fd/N of an open file of ours, not followed or followed */
  | { readonly kind: 'file'; readonly entry: OpenEntry; readonly followed: boolean }
  /** something in a folder of ours, which is a real one elsewhere */
  | { readonly kind: 'real'; readonly path: string; readonly real: Mirrored }
  /** /proc/PID/status of a process, which counts locked pages */
  | { readonly kind: 'status'; readonly path: string; readonly pid: number };

export type PathQuestion = {
  readonly directory: number;
  readonly path: string;
  /** a symbolic link at the end is followed */
  readonly follow: boolean;
};

function lastComponent(path: string): string {
  const trimmed = path.endsWith('/') ? path.replace(/\/+$/, '') : path;
  return trimmed.slice(trimmed.lastIndexOf('/') + 1);
}

function promising(names: Namespace, { path }: PathQuestion): boolean {
  if (path.includes('/fd/') || path.endsWith('/status') || /^\d+$/.test(path)) return true;
  if (names.basenames.has(lastComponent(path))) return true;
  return path.split('/').some((component) => names.basenames.has(component));
}

const baseLink = (tid: number, directory: number): string =>
  directory === AT_FDCWD ? `/proc/${tid}/cwd` : `/proc/${tid}/fd/${directory}`;

const isDirectory = (mode: number): boolean => (mode & S_IFMT) === S_IFDIR;

function isLink(context: Context, tid: number, { directory, path }: PathQuestion): boolean {
  const whole = path.startsWith('/') ? path : `${baseLink(tid, directory)}/${path}`;
  return context.links.read(whole) !== undefined;
}

/**
 * Finds what of ours a path means.
 * @returns undefined if it is the host's business
 * @throws Errno ENOTDIR where a file of ours is used as a directory
 */
export function findPath(context: Context, question: PathQuestion): Found | undefined {
  const { tid } = context.listener;
  if (question.path === '') return undefined;
  const worthwhile =
    promising(context.names, question) || (question.follow && isLink(context, tid, question));
  return worthwhile ? new Walk(context, tid, question).run() : undefined;
}

// The link of a file that is no directory may look like a path: "/memfd:name (deleted)".
function baseDirectory(tid: number, directory: number): string | undefined {
  const base = baseLink(tid, directory);
  const known = directory === AT_FDCWD || (identifyPath(base) === 0 && isDirectory(identity.mode));
  const link = known ? readLink(base) : undefined;
  return typeof link === 'string' && link.startsWith('/') ? link : undefined;
}

class Walk {
  readonly #context: Context;
  readonly #tid: number;
  readonly #question: PathQuestion;
  #pid: number | undefined;
  #links = 0;
  /** canonical so far; '' is the root */
  #at = '';
  #rest: string[] = [];

  constructor(context: Context, tid: number, question: PathQuestion) {
    this.#context = context;
    this.#tid = tid;
    this.#question = question;
  }

  run(): Found | undefined {
    const { path, directory, follow } = this.#question;
    if (!path.startsWith('/')) {
      const base = baseDirectory(this.#tid, directory);
      if (base === undefined) return undefined;
      this.#at = base === '/' ? '' : base;
    }
    const trailing = /\/\.?$/.test(path);
    this.#rest = path.split('/').filter((component) => component !== '' && component !== '.');
    while (this.#rest.length > 0) {
      const component = this.#rest.shift() ?? '';
      if (component === '..') {
        this.#at = this.#at.slice(0, Math.max(0, this.#at.lastIndexOf('/')));
        continue;
      }
      const last = this.#rest.length === 0;
      const next = `${this.#at}/${component}`;
      const asFile = last && !trailing;
      const node = this.#context.names.lookup(next);
      if (node !== undefined) return nodeAt(next, node, asFile);
      if (this.#context.names.folders.has(next)) return this.#inFolder(next);
      const status = last ? PROCESS_STATUS.exec(next) : null;
      if (status !== null) return { kind: 'status', path: next, pid: Number(status[1]) };
      const step = this.#step(next, { last: asFile, follow: !asFile || follow });
      if (step !== 'on') return step;
    }
    return undefined;
  }

  #inFolder(root: string): Found | undefined {
    const real = this.#context.mirror.real(root, this.#rest);
    return real === undefined
      ? undefined
      : { kind: 'real', path: [root, ...this.#rest].join('/'), real };
  }

  // One component of the host's: enters it, follows it, or finds a file of ours behind it.
  #step(
    next: string,
    { last, follow }: { last: boolean; follow: boolean },
  ): Found | 'on' | undefined {
    const own = this.#ownProc(next);
    if (own !== undefined) {
      this.#at = own;
      return 'on';
    }
    if (/^\/proc\/\d+(\/task\/\d+)?\/fd\/\d+$/.test(next)) {
      const entry = identifyPath(next) === 0 ? this.#context.files.identified() : undefined;
      if (entry !== undefined && last) return { kind: 'file', entry, followed: follow };
      if (entry !== undefined) throw new Errno('ENOTDIR', `${entry.link} is not a directory`);
    }
    const link = follow ? this.#context.links.read(`/proc/${this.#tid}/root${next}`) : undefined;
    if (link === undefined || link === '') {
      this.#at = next;
      return 'on';
    }
    if (++this.#links > MAX_LINKS) return undefined;
    this.#rest.unshift(...link.split('/').filter((part) => part !== '' && part !== '.'));
    if (link.startsWith('/')) this.#at = '';
    return 'on';
  }

  // /proc/self means the client here, not us.
  #ownProc(path: string): string | undefined {
    if (path !== '/proc/self' && path !== '/proc/thread-self') return undefined;
    this.#pid ??= threadStatus(this.#tid)?.pid ?? this.#tid;
    return path === '/proc/self' ? `/proc/${this.#pid}` : `/proc/${this.#pid}/task/${this.#tid}`;
  }
}

function nodeAt(path: string, node: DeviceNode, asFile: boolean): Found {
  if (asFile) return { kind: 'node', path, node };
  throw new Errno('ENOTDIR', `${path} is a device, not a directory`);
}
