import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { compareVersions, packagesIn, parseDeb822, parseSourcesList } from './debian.ts';
import { proxyFor } from './download.ts';

test('parseSourcesList() takes deb lines with and without options, and nothing else', () => {
  const text = [
    '# deb http://old.example/debian sid main',
    'deb-src http://mirror.example/debian sid main',
    'deb http://mirror.example/debian sid main contrib',
    '  deb [arch=amd64 signed-by=/k.gpg] https://other.example/debian stable main',
  ].join('\n');
  assert.deepEqual(parseSourcesList(text), [
    { uri: 'http://mirror.example/debian', suite: 'sid' },
    { uri: 'https://other.example/debian', suite: 'stable' },
  ]);
});

test('parseDeb822() multiplies URIs and suites, and passes over what is disabled or source', () => {
  const text = [
    'Types: deb deb-src',
    '# a comment',
    'URIs: http://a.example/debian',
    ' http://b.example/debian',
    'Suites: x y',
    'Components: main',
    '',
    'Types: deb',
    'Enabled: no',
    'URIs: http://c.example/debian',
    'Suites: x',
    '',
    'Types: deb-src',
    'URIs: http://d.example/debian',
    'Suites: x',
  ].join('\n');
  const found = parseDeb822(text).map(({ uri, suite }) => `${uri} ${suite}`);
  assert.deepEqual(found, [
    'http://a.example/debian x',
    'http://a.example/debian y',
    'http://b.example/debian x',
    'http://b.example/debian y',
  ]);
});

// Examples and rules of deb-version(7).
test('compareVersions() orders as dpkg does', () => {
  const ascending = [
    '7.2~rc1-1',
    '7.2-1',
    '7.2.6-1~bpo13+1',
    '7.2.6-1',
    '7.2.13-1',
    '7.3~rc7-1~exp1',
    '7.3-1',
    '7.3.4-1~bpo13+1',
    '7.3.4-1',
    '7.3.4-1+b1',
    '7.10-1',
    '1:1.0-1',
  ];
  for (const [i, lower] of ascending.entries()) {
    assert.equal(compareVersions(lower, lower), 0);
    for (const higher of ascending.slice(i + 1)) {
      assert.ok(compareVersions(lower, higher) < 0, `${lower} < ${higher}`);
      assert.ok(compareVersions(higher, lower) > 0, `${higher} > ${lower}`);
    }
  }
});

test('compareVersions() is antisymmetric', () => {
  const version = fc.string({
    unit: fc.constantFrom('0', '1', '2', '9', '.', '~', '+', '-', 'a', 'b'),
    maxLength: 8,
  });
  fc.assert(
    fc.property(version, version, (a, b) => {
      assert.equal(Math.sign(compareVersions(a, b)), -Math.sign(compareVersions(b, a)) || 0);
    }),
  );
});

test('packagesIn() finds packages by name, with the address below the mirror', () => {
  const index = [
    'Package: linux-source\nVersion: 1\nFilename: pool/x.deb\nSize: 1\nSHA256: aa\n',
    'Package: linux-source-7.3\nVersion: 7.3.4-1\nFilename: pool/y.deb\nSize: 22\nSHA256: bb\n',
  ].join('\n');
  const suite = { base: 'http://mirror.example/debian', name: 'sid' };
  const [found, ...others] = packagesIn(index, /^linux-source-7\.\d+$/, suite);
  assert.deepEqual(others, []);
  assert.equal(found?.version, '7.3.4-1');
  assert.equal(found.url.href, 'http://mirror.example/debian/pool/y.deb');
  assert.equal(found.size, 22);
});

const NONE = { env: {}, apt: '' };
const mirror = new URL('http://mirror.example/debian');

test('proxyFor() finds none where none is configured', () => {
  assert.equal(proxyFor(mirror, NONE), undefined);
});

test('proxyFor() follows the environment, and no_proxy', () => {
  const env = { http_proxy: 'http://proxy.example:3128' };
  assert.equal(proxyFor(mirror, { env, apt: '' })?.port, '3128');
  assert.equal(proxyFor(new URL('https://mirror.example'), { env, apt: '' }), undefined);
  for (const excluded of ['mirror.example', 'example', '.example, other', '*']) {
    assert.equal(proxyFor(mirror, { env: { ...env, no_proxy: excluded }, apt: '' }), undefined);
  }
  const upper = { HTTPS_PROXY: 'proxy.example:1' };
  assert.equal(proxyFor(new URL('https://m.example'), { env: upper, apt: '' })?.port, '1');
});

test("proxyFor() prefers apt's own configuration, per host first", () => {
  const env = { http_proxy: 'http://proxy.example:3128' };
  const apt = 'Acquire::http::Proxy "http://apt.example:8000";\n';
  assert.equal(proxyFor(mirror, { env, apt })?.host, 'apt.example:8000');
  const direct = `${apt}Acquire::http::Proxy::mirror.example "DIRECT";\n`;
  assert.equal(proxyFor(mirror, { env, apt: direct }), undefined);
});
