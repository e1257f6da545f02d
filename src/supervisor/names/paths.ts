/**
 * Names: which path of a client means something of the machine. The question is asked for every open and stat of every
 * program, so the answer "no" must be cheap: a path that neither begins like one of the machine nor is relative to one of its
 * directories can reach one only through a symbolic link, and one readlink tells whether it is one.
 *
 * The others are walked as the kernel would, component by component through the client's own root, with the tree of the
 * machine laid over the host's files. What turns out to be the host's is left to the kernel, unless the kernel would look for
 * it in the mirror, where the walk began.
 *
 * The client may change the string after we read it. It then gets what the kernel finds under the new name, which it could
 * have asked for anyway.
 */
import { Errno } from '../../base/errno.ts';
import type { Entry } from '../../kernel/vfs/tree.ts';
import { identifyPath, identity, readLink } from '../../os/files.ts';
import { AT_FDCWD } from '../../os/numbers.ts';
import type { Context } from '../context.ts';
import type { OpenEntry } from '../fds/files.ts';
import { threadStatus } from '../process-table.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const MAX_LINKS = 40;
const PROCESS_STATUS = /^\/proc\/(\d+)\/status$/;

/** What a path means. */
export type Found =
  /** an entry of the machine's tree; a link only where it was not to be followed */
  | { readonly kind: 'entry'; readonly path: string; readonly entry: Entry }
  /** /proc/PID/fd/N of an open file of ours, not followed or followed */
  | { readonly kind: 'file'; readonly entry: OpenEntry; readonly followed: boolean }
  /** /proc/PID/status of a process, which counts locked pages */
  | { readonly kind: 'status'; readonly path: string; readonly pid: number }
  /** a file of the host that the kernel would not find by the path that it was given */
  | { readonly kind: 'host'; readonly path: string };

export type PathQuestion = {
  readonly directory: number;
  readonly path: string;
  /** a symbolic link at the end is followed */
  readonly follow: boolean;
};

function promising({ names, mirror }: Context, { path }: PathQuestion): boolean {
  if (path.includes('/fd/') || path.endsWith('/status') || /^\d+$/.test(path)) return true;
  if (path.endsWith('fail-nth')) return true;
  if (!path.startsWith('/') && mirror.used) return true;
  const components = path.split('/').filter((component) => component !== '');
  if (path.startsWith('/') && names.roots.has(components[0] ?? '')) return true;
  return components.some((component) => names.borders.has(component));
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
 * @throws Errno ENOENT, ENOTDIR, ELOOP as the kernel finds them in the tree of the machine
 */
export function findPath(context: Context, question: PathQuestion): Found | undefined {
  const { tid } = context.listener;
  if (question.path === '') return undefined;
  const worthwhile =
    promising(context, question) || (question.follow && isLink(context, tid, question));
  return worthwhile ? new Walk(context, tid, question).run() : undefined;
}

/** The machine's path of a directory or file of the mirror that a client has open, or has as its working directory. */
export function mirroredName({ mirror }: Context, tid: number, fd: number): string | undefined {
  if (!mirror.used) return undefined;
  const link = readLink(baseLink(tid, fd));
  return typeof link === 'string' ? mirror.nameOf(link) : undefined;
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
  /** the kernel would end somewhere else */
  #own = false;

  constructor(context: Context, tid: number, question: PathQuestion) {
    this.#context = context;
    this.#tid = tid;
    this.#question = question;
  }

  run(): Found | undefined {
    const { path, directory, follow } = this.#question;
    if (!path.startsWith('/') && !this.#startAt(directory)) return undefined;
    const trailing = /\/\.?$/.test(path);
    this.#rest = path.split('/').filter((component) => component !== '' && component !== '.');
    while (this.#rest.length > 0) {
      const component = this.#rest.shift() ?? '';
      if (component === '..') {
        this.#at = this.#at.slice(0, Math.max(0, this.#at.lastIndexOf('/')));
        continue;
      }
      const asFile = this.#rest.length === 0 && !trailing;
      const step = this.#enter(`${this.#at}/${component}`, { asFile, follow: !asFile || follow });
      if (step !== 'on') return step;
    }
    return this.#end();
  }

  #startAt(directory: number): boolean {
    const base = baseDirectory(this.#tid, directory);
    if (base === undefined) return false;
    const name = this.#context.mirror.nameOf(base);
    this.#own = name !== undefined;
    this.#at = name ?? (base === '/' ? '' : base);
    return true;
  }

  #enter(
    next: string,
    { asFile, follow }: { readonly asFile: boolean; readonly follow: boolean },
  ): Found | 'on' | undefined {
    const meaning = this.#context.names.at(next);
    if (meaning === 'none') throw new Errno('ENOENT', `the machine has no ${next}`);
    if (meaning === 'host') return this.#enterHost(next, { asFile, follow });
    if (meaning.kind === 'link' && follow) {
      this.#follow(meaning.target);
      this.#own = true;
      return 'on';
    }
    // A directory that only the machine has would end the kernel's own walk.
    if (meaning.kind === 'directory' && meaning.shared === undefined) this.#own = true;
    if (meaning.kind === 'directory' && !asFile) {
      this.#at = next;
      return 'on';
    }
    if (asFile) return { kind: 'entry', path: next, entry: meaning };
    throw new Errno('ENOTDIR', `${next} is not a directory`);
  }

  #enterHost(
    next: string,
    { asFile, follow }: { readonly asFile: boolean; readonly follow: boolean },
  ): Found | 'on' | undefined {
    const status = this.#rest.length === 0 ? PROCESS_STATUS.exec(next) : null;
    if (status !== null) return { kind: 'status', path: next, pid: Number(status[1]) };
    return this.#step(next, { last: asFile, follow });
  }

  /** The last component was a directory, or there was none. */
  #end(): Found | undefined {
    const path = this.#at === '' ? '/' : this.#at;
    const meaning = this.#context.names.at(this.#at);
    if (meaning === 'none') throw new Errno('ENOENT', `the machine has no ${path}`);
    if (meaning !== 'host') return { kind: 'entry', path, entry: meaning };
    return this.#own ? { kind: 'host', path } : undefined;
  }

  #follow(link: string): void {
    if (++this.#links > MAX_LINKS) {
      throw new Errno('ELOOP', `${this.#question.path} leads through more than ${MAX_LINKS} links`);
    }
    this.#rest.unshift(...link.split('/').filter((part) => part !== '' && part !== '.'));
    if (link.startsWith('/')) this.#at = '';
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
      const found = this.#openFile(next, { last, follow });
      if (found !== undefined) return found;
    }
    const link = follow ? this.#context.links.read(`/proc/${this.#tid}/root${next}`) : undefined;
    if (link === undefined || link === '') {
      this.#at = next;
      return 'on';
    }
    const name = this.#context.mirror.nameOf(link);
    if (name !== undefined) this.#own = true;
    this.#follow(name ?? link);
    return 'on';
  }

  #openFile(next: string, { last, follow }: { last: boolean; follow: boolean }): Found | undefined {
    const info = next.replace(/fd\/(\d+)$/, 'fdinfo/$1');
    const entry = identifyPath(next) === 0 ? this.#context.files.identified(info) : undefined;
    if (entry === undefined) return undefined;
    if (last) return { kind: 'file', entry, followed: follow };
    throw new Errno('ENOTDIR', `${entry.link} is not a directory`);
  }

  // /proc/self means the client here, not us.
  #ownProc(path: string): string | undefined {
    if (path !== '/proc/self' && path !== '/proc/thread-self') return undefined;
    this.#pid ??= threadStatus(this.#tid)?.pid ?? this.#tid;
    return path === '/proc/self' ? `/proc/${this.#pid}` : `/proc/${this.#pid}/task/${this.#tid}`;
  }
}
