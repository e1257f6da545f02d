import assert from 'node:assert/strict';
import test from 'node:test';
import { parseListing, share } from './harness.ts';

const row = (fixture: string, variant: string, name: string): string =>
  `${fixture.padEnd(20)} ${variant.padEnd(25)} ${name}`;

const LISTING = [
  row('# FIXTURE', 'VARIANT', 'TEST'),
  row('global', '', ''),
  '-'.repeat(80),
  row('plain', '', 'open'),
  row('', '', 'close'),
  '-'.repeat(80),
  row('a_fixture_with_a_long_name', 'first', 'map'),
  row('', 'a_variant_with_a_very_long_name', 'unmap'),
  row('', '', 'copy'),
  '-'.repeat(80),
  row('few', 'one', 'only'),
  row('', 'two', ''),
  '',
].join('\n');

test('parseListing() gives each variant each test', () => {
  assert.deepEqual(parseListing(LISTING), [
    'plain.open',
    'plain.close',
    'a_fixture_with_a_long_name.first.map',
    'a_fixture_with_a_long_name.first.unmap',
    'a_fixture_with_a_long_name.first.copy',
    'a_fixture_with_a_long_name.a_variant_with_a_very_long_name.map',
    'a_fixture_with_a_long_name.a_variant_with_a_very_long_name.unmap',
    'a_fixture_with_a_long_name.a_variant_with_a_very_long_name.copy',
    'few.one.only',
    'few.two.only',
  ]);
  assert.deepEqual(parseListing('unknown option\n'), []);
});

test('share() leaves no test out, runs none twice, and keeps together what shares something', () => {
  const names = ['a', 'b_huge', 'c', 'd', 'e_huge', 'f', 'g', 'h'];
  assert.deepEqual(share(names, 2, /_huge$/), [
    ['b_huge', 'c', 'e_huge', 'g'],
    ['a', 'd', 'f', 'h'],
  ]);
  assert.deepEqual(
    share(names, 3, /_huge$/)
      .flat()
      .sort(),
    names,
  );
  assert.deepEqual(share(['a_huge', 'b_huge', 'c'], 3, /_huge$/), [['a_huge', 'b_huge'], ['c']]);
  assert.deepEqual(share(['a', 'b'], 4, /_huge$/), [['a'], ['b']]);
  assert.deepEqual(share(names, 1, /_huge$/), [names]);
});
