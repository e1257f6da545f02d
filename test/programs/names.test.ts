/** /sys and /dev of a machine as real programs see them: listed, read, written, waited for. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';

import { hasProgram, scratch, uiommuRun, type Outcome } from './support.ts';

const MACHINE = `
kind: pc
devices:
  - { address: 00:01.0, type: root-port, secondary: 0000:01, driver: pcieport }
  - address: 01:00.0
    ids: 8086:10c9
    class: '020000'
    driver: vfio-pci
    msix: 10
    bars: [ { index: 0, size: 128K, kind: memory32 } ]
  - { address: 00:02.0, ids: 8086:1533 }
`;
const DEVICE = '/sys/bus/pci/devices/0000:01:00.0';
const DRIVERS = '/sys/bus/pci/drivers';

/** Runs a shell script on the machine. */
function script(t: TestContext, lines: readonly string[], shell = 'sh'): Promise<Outcome> {
  const machine = join(scratch(t), 'machine.yaml');
  writeFileSync(machine, MACHINE);
  return uiommuRun([shell, '-c', lines.join('\n')], { options: ['-m', machine] });
}

test('directories list what the machine has, and what the computer has where both have it', async (t) => {
  const { stdout, status } = await script(t, [
    'ls /sys/bus/pci/devices /dev/vfio',
    'ls /sys/bus | grep -x pci; ls /sys | grep -x bus; ls /dev | grep -x null; ls /dev | grep -x iommu',
    `cd ${DEVICE}/.. 2>/dev/null; find ${DEVICE}/ -maxdepth 1 -name vendor`,
    `ls -d ${DEVICE}/driver/ ${DEVICE}/iommu_group/devices/0000:01:00.0`,
  ]);
  assert.equal(status, 0);
  assert.deepEqual(stdout.split('\n'), [
    '/dev/vfio:',
    '1',
    'devices',
    'vfio',
    '',
    '/sys/bus/pci/devices:',
    '0000:00:01.0',
    '0000:00:02.0',
    '0000:01:00.0',
    'pci',
    'bus',
    'null',
    'iommu',
    `${DEVICE}/vendor`,
    `${DEVICE}/driver/`,
    `${DEVICE}/iommu_group/devices/0000:01:00.0`,
    '',
  ]);
});

test('stat, readlink and statfs of names are those of sysfs and devtmpfs', async (t) => {
  const { stdout } = await script(t, [
    `stat -c '%F %a %s %n' ${DEVICE}/vendor ${DEVICE}/config ${DEVICE}/remove ${DEVICE}/. ${DEVICE}`,
    `stat -c '%F %a %Hr:%Lr' /dev/vfio/devices/vfio0; cat ${DEVICE}/vfio-dev/vfio0/dev`,
    `readlink ${DEVICE}; readlink -f ${DEVICE}/driver; stat -f -c %T ${DEVICE} ${DEVICE}/vendor`,
    `cat ${DEVICE}/vendor; test -w ${DEVICE}/nothing || echo none; cat ${DEVICE}/nothing 2>&1`,
  ]);
  assert.deepEqual(stdout.trim().split('\n'), [
    `regular file 444 4096 ${DEVICE}/vendor`,
    `regular file 644 4096 ${DEVICE}/config`,
    `regular file 220 4096 ${DEVICE}/remove`,
    `directory 755 0 ${DEVICE}/.`,
    `symbolic link 777 0 ${DEVICE}`,
    'character special file 600 246:0',
    '246:0',
    '../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0',
    `${DRIVERS}/vfio-pci`,
    'sysfs',
    'sysfs',
    '0x8086',
    'none',
    `cat: '${DEVICE}/nothing': No such file or directory`,
  ]);
});

test('writes of a shell act before they return, and fail as on Linux', async (t) => {
  if (!hasProgram('bash')) {
    t.skip('there is no bash');
    return;
  }
  const lines = [
    `exec 2>&1; echo 0000:01:00.0 > ${DRIVERS}/vfio-pci/unbind; echo $?; ls /dev/vfio; ls ${DEVICE}/driver`,
    `echo 0000:01:00.0 > ${DRIVERS}/vfio-pci/unbind; echo $?`,
    `echo pci-stub > ${DEVICE}/driver_override; echo 0000:01:00.0 > /sys/bus/pci/drivers_probe`,
    `basename $(readlink ${DEVICE}/driver); printf '' > ${DEVICE}/driver_override; cat ${DEVICE}/driver_override`,
    `echo > ${DEVICE}/driver_override; cat ${DEVICE}/driver_override; echo 1 > ${DEVICE}/vendor`,
    `echo 1 > ${DEVICE}/remove; ls /sys/bus/pci/devices | grep -c 01:00.0; echo 1 > /sys/bus/pci/rescan; ls -d ${DEVICE}`,
  ];
  const { stdout } = await script(t, lines, 'bash');
  assert.deepEqual(stdout.trim().split('\n'), [
    '0',
    'vfio',
    `ls: cannot access '${DEVICE}/driver': No such file or directory`,
    'bash: line 2: echo: write error: No such device',
    '1',
    'pci-stub',
    'pci-stub',
    '(null)',
    `bash: line 5: ${DEVICE}/vendor: Permission denied`,
    '0',
    DEVICE,
  ]);
});

test('an unbind waits for the last file of the device, while everything else goes on', async (t) => {
  const { stdout } = await script(t, [
    'exec 3<>/dev/vfio/devices/vfio0',
    `(echo 0000:01:00.0 > ${DRIVERS}/vfio-pci/unbind; echo unbound) 3<&- &`,
    'sleep 0.3; ls /dev/vfio/devices 2>/dev/null; echo still open; cat /sys/bus/pci/devices/0000:00:02.0/vendor',
    'exec 3<&-; wait; ls /dev/vfio',
  ]);
  assert.equal(stdout, 'still open\n0x8086\nunbound\nvfio\n');
});

const LISTENER = `
import os, socket
s = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind((0, 1))
for path, text in (('${DRIVERS}/vfio-pci/unbind', '0000:01:00.0'), ('${DEVICE}/uevent', 'change')):
    with open(path, 'w') as f: f.write(text)
s.setblocking(False)
try:
    while True: print(s.recv(4096).split(b'\\0')[0].decode())
except BlockingIOError: print('no more', s.getsockname()[1])
try: open('${DRIVERS}/nosuch/bind', 'w')
except FileNotFoundError: print('no such driver')
fd = os.open('${DEVICE}/reset', os.O_WRONLY)
try: os.write(fd, b'0')
except OSError as e: print(e.strerror)
fd = os.open('${DEVICE}/config', os.O_RDWR)
os.pwrite(fd, b'\\xff' * 4, 0x10)
print(os.pread(fd, 4, 0x10).hex(), os.pread(fd, 2, 0).hex())
`;

test('Python hears uevents, gets errnos, and sizes a BAR through config', async (t) => {
  if (!hasProgram('python3')) {
    t.skip('there is no python3');
    return;
  }
  const { stdout, stderr } = await script(t, [
    `exec python3 -c "$(cat <<'END'\n${LISTENER}\nEND\n)"`,
  ]);
  const path = '/devices/pci0000:00/0000:00:01.0/0000:01:00.0';
  assert.equal(stderr, '');
  assert.deepEqual(stdout.trim().split('\n'), [
    `remove@${path}/vfio-dev/vfio0`,
    'remove@/devices/virtual/vfio/1',
    `unbind@${path}`,
    `change@${path}`,
    'no more 1',
    'no such driver',
    'Invalid argument',
    '0000feff 8680',
  ]);
});
