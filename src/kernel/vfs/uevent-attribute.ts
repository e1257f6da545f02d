/**
 * The file `uevent` of an object: shows the keys of its events, and sends one when written.
 *
 * After drivers/base/core.c (uevent_show, uevent_store) and lib/kobject_uevent.c (kobject_synth_uevent): an action, then
 * optionally a UUID and KEY=VALUE words, which arrive as SYNTH_UUID and SYNTH_ARG_KEY.
 */
import { Errno } from '../../base/errno.ts';
import { quoted, word } from './parse.ts';
import { atOnce, writable, type Attribute } from './tree.ts';
import { UEVENT_ACTIONS, type UeventAction } from './uevent.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const ARGUMENT = /^([0-9A-Za-z]+)=([0-9A-Za-z]*)$/;

/** @param emit sends the event @param keys what reading shows; without, it can only be written */
export function ueventAttribute(
  emit: (action: UeventAction, synthetic: readonly string[]) => void,
  keys?: () => readonly string[],
): Attribute {
  const store = atOnce((text) => {
    const { action, synthetic } = parseRequest(text);
    emit(action, synthetic);
  });
  if (keys === undefined) return writable(store);
  return writable(store, {
    show: () =>
      keys()
        .map((key) => `${key}\n`)
        .join(''),
  });
}

function parseRequest(text: string): { action: UeventAction; synthetic: string[] } {
  const [written = '', uuid, ...rest] = word(text).split(' ');
  const action = UEVENT_ACTIONS.find((each) => each === written);
  if (action === undefined) {
    throw new Errno('EINVAL', `${quoted(written)} is none of ${UEVENT_ACTIONS.join(', ')}`);
  }
  if (uuid === undefined) return { action, synthetic: ['SYNTH_UUID=0'] };
  if (!UUID.test(uuid)) throw new Errno('EINVAL', `${quoted(uuid)} is not a UUID`);
  const words = rest
    .filter((each) => each !== '')
    .map((each) => [each, ARGUMENT.exec(each)] as const);
  const wrong = words.find(([, match]) => match === null);
  if (wrong !== undefined) {
    throw new Errno('EINVAL', `${quoted(wrong[0])} is not KEY=VALUE of letters and digits`);
  }
  const found = words.map(([, match]) => `SYNTH_ARG_${match?.[1] ?? ''}=${match?.[2] ?? ''}`);
  return { action, synthetic: [`SYNTH_UUID=${uuid}`, ...found] };
}
