/** Calls as text, one line each the way strace prints them, and as JSON lines: two renderings of the same events. */
import type { ErrnoCode } from '../../base/errno.ts';
import { describeCall, fieldsText } from '../../uapi/describe.ts';
import type { TimedCall, WaitingCall } from './observer.ts';

// The words of strerror(3).
const MEANING: Partial<Record<ErrnoCode, string>> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  ESRCH: 'No such process',
  EINTR: 'Interrupted system call',
  EIO: 'Input/output error',
  ENXIO: 'No such device or address',
  E2BIG: 'Argument list too long',
  EBADF: 'Bad file descriptor',
  EAGAIN: 'Resource temporarily unavailable',
  ENOMEM: 'Cannot allocate memory',
  EACCES: 'Permission denied',
  EFAULT: 'Bad address',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  ENFILE: 'Too many open files in system',
  EMFILE: 'Too many open files',
  ENOTTY: 'Inappropriate ioctl for device',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  ESPIPE: 'Illegal seek',
  EROFS: 'Read-only file system',
  ERANGE: 'Numerical result out of range',
  EDEADLK: 'Resource deadlock avoided',
  ENAMETOOLONG: 'File name too long',
  ENOSYS: 'Function not implemented',
  ELOOP: 'Too many levels of symbolic links',
  EBADE: 'Invalid exchange',
  ENODATA: 'No data available',
  EOVERFLOW: 'Value too large for defined data type',
  EBADFD: 'File descriptor in bad state',
  EMSGSIZE: 'Message too long',
  EOPNOTSUPP: 'Operation not supported',
};

// Calls whose value is a file number.
const OPENS = new Set(['open', 'openat', 'openat2', 'creat', 'dup', 'fcntl']);

function argumentText(event: TimedCall | WaitingCall): string {
  const parts = [...event.arguments];
  if (event.call !== undefined) parts.push(event.call);
  const { input, output } = describeCall(event);
  if (input !== undefined) {
    const changes =
      output === undefined || Object.keys(output).length === 0 ? '' : ` => ${fieldsText(output)}`;
    parts.push(fieldsText(input) + changes);
  }
  return parts.join(', ');
}

function resultText({ error, reason, result, syscall, opened }: TimedCall): string {
  if (error !== undefined) return `-1 ${error} (${MEANING[error] ?? error}): ${reason ?? ''}`;
  return OPENS.has(syscall) && opened !== undefined ? `${result}<${opened}>` : String(result);
}

/**
 * One call as one line without its end.
 * @param withPid puts the process in front, for runs with more than one
 */
export function eventText(event: TimedCall, withPid: boolean): string {
  const pid = withPid ? `[pid ${event.pid}] ` : '';
  const duration = `<${Math.round(event.microseconds)}µs>`;
  const gone = event.callerGone === true ? ' (its caller had ended)' : '';
  const warning = event.warning === undefined ? '' : ` [${event.warning}]`;
  const outcome = `${resultText(event)}${warning}`;
  return `${pid}${event.syscall}(${argumentText(event)}) = ${outcome} ${duration}${gone}`;
}

/** A call whose answer comes later as one line without its end, as {@link eventText} shows it then. */
export function waitingText(event: WaitingCall, withPid: boolean): string {
  const pid = withPid ? `[pid ${event.pid}] ` : '';
  return `${pid}${event.syscall}(${argumentText(event)}) = ? <unfinished: ${event.why}>`;
}

// 64-bit numbers that a double cannot hold are written as decimal strings.
function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value;
  return value >= -(2n ** 53n) && value <= 2n ** 53n ? Number(value) : value.toString();
}

function described(event: TimedCall | WaitingCall): Record<string, unknown> {
  const { pid, tid, syscall, call, struct } = event;
  return {
    pid,
    tid,
    syscall,
    call,
    arguments: event.arguments,
    struct: struct?.name,
    ...describeCall(event),
  };
}

/** One call as one JSON object without the end of line. */
export function eventJson(event: TimedCall): string {
  const { result, error, reason, warning, microseconds, callerGone } = event;
  const rounded = Math.round(microseconds * 10) / 10;
  const outcome = { result, error, reason, warning, microseconds: rounded, callerGone };
  return JSON.stringify({ ...described(event), ...outcome }, jsonValue);
}

/** A call whose answer comes later as one JSON object: it has `waitsFor` in place of a result. */
export function waitingJson(event: WaitingCall): string {
  return JSON.stringify({ ...described(event), waitsFor: event.why }, jsonValue);
}
