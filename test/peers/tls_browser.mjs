// Chromium over wss, trusting an authority of the test's alone: as any user's,
// through the NSS database of its home.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { done, skip } from './lib.mjs';
import { certFile, dir, test, withSecure } from './tls.mjs';

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu',
               '--disable-quic', '--no-first-run',
               '--disable-background-networking',
               '--disable-component-update', '--disable-sync'];

let browser;

function tools() {
    if (!existsSync(BROWSER))
        skip('there is no Chromium');
    if (spawnSync('certutil').error)
        skip('there is no certutil (libnss3-tools)');
}

function needed() {
    tools();
    if (!browser)
        throw new Error('the browser did not start');
}

// A home in which that authority is trusted, and nobody else.
function home() {
    const nss = path.join(dir, 'home/.pki/nssdb');
    mkdirSync(nss, { recursive: true });
    const certutil = (...args) =>
        execFileSync('certutil', ['-d', `sql:${nss}`, ...args]);
    certutil('-N', '--empty-password');
    certutil('-A', '-n', 'authority', '-t', 'C,,', '-i',
             certFile('authority'));
    return path.join(dir, 'home');
}

// play(page) on the page of the server.
async function visit(server, play) {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    page.setDefaultTimeout(10000);
    try {
        await page.goto(`https://localhost:${server.port}/`);
        assert.equal(await page.title(), 'secure');
        await play(page);
        assert.deepEqual(errors, []);
    } finally {
        await page.close();
    }
}

test('the browser starts', async () => {
    tools();
    browser = await chromium.launch({
        executablePath: BROWSER, args: FLAGS, timeout: 30000,
        env: { ...process.env, HOME: home() },
    });
}, 60000);

for (const name of ['host', 'rsa', 'deep'])
    test(`a page over https and an echo over wss: ${name}`, async () => {
        needed();
        await withSecure([name], (server) => visit(server, async (page) => {
            const told = await page.evaluate(() => new Promise((resolve) => {
                const ws = new WebSocket(`wss://${location.host}/ws`);
                const sizes = [0, 1, 126, 16384, 65536, 1 << 20], right = [];
                const data = (size) => size % 2 ? 'é' :
                    Uint8Array.from({ length: size }, (_, i) => i * 7 + size);
                ws.binaryType = 'arraybuffer';
                ws.onopen = () => sizes.forEach((size) => ws.send(data(size)));
                ws.onmessage = (event) => {
                    const got = event.data, want = data(sizes[right.length]);
                    right.push(typeof want === 'string' ? got === want :
                        new Uint8Array(got).every((b, i) => b === want[i]) &&
                        got.byteLength === want.length);
                    if (right.length === sizes.length)
                        ws.close(3001, 'enough');
                };
                ws.onclose = ({ code, wasClean }) =>
                    resolve({ right, code, wasClean });
            }));
            assert.deepEqual(told, { right: Array(6).fill(true), code: 3001,
                                     wasClean: true });
            await server.sees('end code=3001 cause=2 reason=enough');
        }));
    }, 30000);

test('rtnet.js comes back over wss without loss', async () => {
    needed();
    await withSecure(['host', '--resume', 15000], (server) =>
        visit(server, async (page) => {
            const told = await page.evaluate(async () => {
                const { connect } = await import('/rtnet.js');
                const told = [];
                const c = connect(`wss://${location.host}/ws`, {
                    minDelay: 10, maxDelay: 100,
                    open: () => told.push('open'),
                    away: () => told.push('away'),
                    back: (lost) => told.push(`back ${lost}`),
                    message: (data) => told.push(data),
                });
                const sees = async (what) => {
                    const end = performance.now() + 8000;
                    while (!told.includes(what) && performance.now() < end)
                        await new Promise((next) => setTimeout(next, 10));
                };
                await sees('open');
                c.send('one');
                await sees('one');
                c.send('drop');
                c.send('two');
                await sees('back 0');
                await sees('two');
                c.send('three');
                await sees('three');
                c.close();
                return told;
            });
            assert.deepEqual(told, ['open', 'one', 'away', 'back 0', 'two',
                                    'three']);
            await server.sees('end code=1000');
            assert.equal(server.count('open'), 1);
        }));
}, 30000);

// How a socket to another server ends that a page of `near` opens: the server
// is asked to close it.
const across = (near, port) => new Promise((resolve, reject) =>
    visit(near, async (page) => resolve(await page.evaluate((port) =>
        new Promise((told) => {
            const ws = new WebSocket(`wss://localhost:${port}/`);
            ws.onopen = () => ws.send('close');
            ws.onclose = ({ code }) => told(code);
        }), port))).catch(reject));

const all = ['--origins', '*'];

test('a page of one server may talk to another that lets it', async () => {
    needed();
    await withSecure(['host'], async (near) => {
        await withSecure(['rsa', ...all], async (far) =>
            assert.equal(await across(near, far.port), 1000));
        await withSecure(['rsa'], async (far) =>
            assert.equal(await across(near, far.port), 1006));
    });
}, 30000);

const bad = { other: 'COMMON_NAME_INVALID', late: 'DATE_INVALID',
              early: 'DATE_INVALID', lone: 'AUTHORITY_INVALID',
              foreign: 'AUTHORITY_INVALID' };
for (const [name, why] of Object.entries(bad))
    test(`Chromium distrusts the certificate ${name}`, async () => {
        needed();
        await withSecure(['host'], (near) =>
            withSecure([name, ...all], async (server) => {
                const page = await browser.newPage();
                await assert.rejects(
                    page.goto(`https://localhost:${server.port}/`),
                    RegExp(`ERR_CERT_${why}`));
                await page.close();
                assert.equal(await across(near, server.port), 1006);
                assert.equal(server.count('open'), 0);
            }));
    }, 30000);

test('the browser ends well', async () => {
    needed();
    await browser.close();
}, 30000);

await done();
