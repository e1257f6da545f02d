/** `uiommu completion`: what a shell needs to complete the command line, made from the help pages. */
import { PROFILE_NAMES } from '../../iommu/profile.ts';
import { UsageError, type Command } from '../command.ts';
import { oneOf } from '../options.ts';
import { print } from '../output.ts';
import { pageOf } from '../page.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

const HELP = `usage: uiommu completion bash | zsh | fish

Prints a script that completes the commands and options of uiommu.

Exit status: 0, or 2 on wrong usage.

examples:
  source <(uiommu completion bash)                               in ~/.bashrc
  uiommu completion zsh > ~/.zfunc/_uiommu                       in a folder of fpath
  uiommu completion fish > ~/.config/fish/completions/uiommu.fish
`;

/** Words by which the value of an option is completed; undefined: by files where it names one. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  '--profile': PROFILE_NAMES,
  '--color': ['auto', 'always', 'never'],
  '-m': ['pc', 'selftest'],
  '--machine': ['pc', 'selftest'],
};

/** Options that stand before a word that is a value. */
function valued(commands: readonly Command[]): string[] {
  const options = commands.flatMap((command) => pageOf(command).options);
  const takers = options.filter(({ value }) => value !== undefined && !/^[[=]/.test(value));
  return [...new Set(takers.flatMap(({ names }) => names))].sort();
}

function optionNames(command: Command): string[] {
  return [...new Set(pageOf(command).options.flatMap(({ names }) => names))].sort();
}

function bash(commands: readonly Command[]): string {
  const cases = commands.map(
    (command) => `    ${command.name}) words="${optionNames(command).join(' ')} --help" ;;`,
  );
  const values = Object.entries(VALUES).map(
    ([option, words]) =>
      `    ${option}) COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$cur") $(compgen -f -- "$cur")); return ;;`,
  );
  const others = valued(commands).filter((option) => !(option in VALUES));
  return `# bash completion of uiommu
_uiommu() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} words i
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ] || { [ "$COMP_CWORD" -eq 2 ] && [ "$prev" = help ]; }; then
    COMPREPLY=($(compgen -W "${[...commands.map(({ name }) => name), 'help', '--version'].join(' ')}" -- "$cur"))
    return
  fi
  # What stands behind -- is the program's own.
  for ((i = 2; i < COMP_CWORD; i++)); do
    [ "\${COMP_WORDS[i]}" = -- ] && { COMPREPLY=($(compgen -c -f -- "$cur")); return; }
  done
  case $prev in
${values.join('\n')}
    ${others.length === 0 ? '--none' : others.join('|')}) return ;;
  esac
  case \${COMP_WORDS[1]} in
${cases.join('\n')}
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _uiommu uiommu
`;
}

function quoted(text: string): string {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

function zsh(commands: readonly Command[]): string {
  const names = commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary}`)}`);
  const cases = commands.map((command) => {
    const specs = pageOf(command).options.flatMap(({ names: all, value, about }) =>
      all.map((name) => {
        const text = about.replace(/[[\]:]/g, '\\$&');
        const words = VALUES[name];
        const action = words === undefined ? '_files' : `(${words.join(' ')})`;
        return quoted(`${name}[${text}]${value === undefined ? '' : `:${name}:${action}`}`);
      }),
    );
    return `    ${command.name}) _arguments ${specs.join(' ')} '*::argument:_normal -p uiommu' ;;`;
  });
  return `#compdef uiommu
_uiommu() {
  local -a commands
  commands=(
${names.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
    help) _describe command commands ;;
${cases.join('\n')}
  esac
}
_uiommu "$@"
`;
}

function fish(commands: readonly Command[]): string {
  const first = commands.map(
    ({ name, summary }) =>
      `complete -c uiommu -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`,
  );
  const options = commands.flatMap((command) =>
    pageOf(command).options.flatMap(({ names, value, about }) =>
      names.map((name) => {
        const flag = name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`;
        const words = VALUES[name];
        const takes =
          value === undefined ? '' : ` -r${words ? ` -a ${quoted(words.join(' '))}` : ''}`;
        const when = `'__fish_seen_subcommand_from ${command.name}'`;
        return `complete -c uiommu -n ${when} ${flag}${takes} -d ${quoted(about)}`;
      }),
    ),
  );
  return `# fish completion of uiommu\n${[...first, ...options].join('\n')}\n`;
}

const SCRIPTS = { bash, zsh, fish } as const;

/** @param load all commands, this one included */
export function completionCommand(load: () => Promise<readonly Command[]>): Command {
  return {
    name: 'completion',
    summary: 'print the completion script of a shell',
    help: HELP,
    async run([shell, ...rest]) {
      if (shell === undefined || rest.length > 0) {
        throw new UsageError(`completion: expected one of ${SHELLS.join(', ')}`);
      }
      print(SCRIPTS[oneOf('completion', shell, SHELLS)](await load()));
      return 0;
    },
  };
}
