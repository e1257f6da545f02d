/** Machines that need no file, by the name that `-m` takes. They are machine files like any other. */
export const BUILTIN_MACHINES: Readonly<Record<string, string>> = {
  selftest: `kind: selftest
name: selftest
iommu: none
`,
  pc: `kind: pc
name: pc
devices:
  - address: 00:00.0
    type: host-bridge
  # A card alone behind a root port with ACS: a group of its own, ready for a program.
  - address: 00:01.0
    type: root-port
    secondary: 0000:01
    driver: pcieport
  - address: 01:00.0
    label: edu
    ids: 1234:11e8
    driver: vfio-pci
    bars:
      - { index: 0, size: 1M, kind: memory32 }
    msi: 1
  # Two functions of one card, neither isolated from the other: one group.
  - address: 00:02.0
    type: root-port
    secondary: 0000:02
    driver: pcieport
  - address: 02:00.0
    label: GPU
    ids: 10de:1b80
    class: "030000"
    bars:
      - { index: 0, size: 16M, kind: memory32 }
  - address: 02:00.1
    label: audio of the GPU
    ids: 10de:10f0
    class: "040300"
    driver: snd_hda_intel
    bars:
      - { index: 0, size: 16K, kind: memory32 }
`,
};
