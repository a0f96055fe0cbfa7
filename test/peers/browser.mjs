// Chromium plays the arena: two tabs and a phone see each other move, and all
// come back by themselves when the server was gone.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { build, done, freePort, root, serve, skip, sleep, test, until }
    from './lib.mjs';

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu',
               '--disable-quic', '--no-first-run',
               '--disable-background-networking',
               '--disable-component-update', '--disable-sync'];
const LEFT = 4, RIGHT = 8;

let arena, port, browser, ada, bob;
const errors = []; // what the pages threw

function needed() {
    if (!existsSync(BROWSER))
        skip('there is no Chromium');
    if (!browser)
        throw new Error('the browser did not start');
}

const startArena = () =>
    serve('arena', [port], { ready: /:(\d+)\b/, cwd: root });

async function tab(context, query) {
    const page = await context.newPage();
    page.on('pageerror', (error) => errors.push(error.message));
    page.setDefaultTimeout(10000);
    await page.goto(`http://127.0.0.1:${port}/${query}`);
    return page;
}

// What a page knows, players as an object by name.
const look = (page) => page.evaluate(() => {
    const { me, rtt, state, players } = window.arena;
    const all = {};
    for (const p of players.values())
        all[p.name] = { id: p.id, x: p.x, y: p.y };
    return { me, rtt, state, size: players.size, all,
             text: document.getElementById('status').innerText };
});

const live = (page, size, ms) => until(ms, `live with ${size}`, async () => {
    const now = await look(page);
    return now.state === 'live' && now.size === size && now.rtt !== null &&
           now.text.includes(`${size} player`) && now;
});

// While start() holds the keys, the player called name has to move on the
// page of the other one, further than a picture's rounding.
async function sees(page, name, start, stop) {
    const before = (await look(page)).all[name];
    const right = before.x < 800;
    await start(right);
    try {
        const way = right ? 1 : -1;
        await until(5000, `${name} moves`, async () =>
            ((await look(page)).all[name].x - before.x) * way > 60);
    } finally {
        await stop(right);
    }
    await sleep(500); // until it has come to rest
    const rest = (await look(page)).all[name].x;
    await sleep(300);
    const later = (await look(page)).all[name].x;
    assert.ok(Math.abs(later - rest) < 3, `${name} stops`);
}

const byKeyboard = (page) => [
    (right) => page.keyboard.down(right ? 'd' : 'a'),
    (right) => page.keyboard.up(right ? 'd' : 'a'),
];

const byPress = (page) => [
    (right) => page.evaluate((keys) => window.arena.press(keys),
                             right ? RIGHT : LEFT),
    () => page.evaluate(() => window.arena.press(0)),
];

async function comesBack(signal) {
    await arena.stop(signal);
    for (const page of [ada, bob])
        await until(10000, 'sees the loss', async () => {
            const now = await look(page);
            return now.state !== 'live' && /connecting/.test(now.text);
        });
    await sleep(1000);
    arena = await startArena();
    for (const page of [ada, bob])
        await live(page, 2, 40000);
    await sees(bob, 'Ada', ...byKeyboard(ada));
}

test('the arena and the browser start', async () => {
    if (!existsSync(BROWSER))
        skip('there is no Chromium');
    port = await freePort();
    arena = await startArena();
    browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS,
                                      timeout: 30000 });
}, 60000);

test('two tabs are live, one by its address, one by the form', async () => {
    needed();
    const context = await browser.newContext({
        viewport: { width: 1100, height: 700 },
    });
    ada = await tab(context, '?name=Ada');
    bob = await tab(context, '');
    await bob.fill('#name', 'Bob');
    await bob.press('#name', 'Enter');
    for (const page of [ada, bob]) {
        await live(page, 2, 10000);
        await until(5000, 'the new name', async () =>
            Object.keys((await look(page)).all).sort().join() === 'Ada,Bob');
    }
    const [a, b] = [await look(ada), await look(bob)];
    assert.equal(a.me, a.all.Ada.id);
    assert.equal(b.me, a.all.Bob.id);
    assert.equal(await bob.isVisible('#card'), false);
}, 60000);

test('the count, the round-trip time and the names are shown', async () => {
    needed();
    for (const page of [ada, bob]) {
        const now = await look(page);
        assert.match(now.text, /2 players/);
        assert.match(now.text, /[\d.]+ ms/);
        assert.ok(now.rtt > 0 && now.rtt < 2000, `${now.rtt} ms`);
        await until(5000, 'both names among the scores', async () => {
            const scores = await page.innerText('#scores');
            return /Ada/.test(scores) && /Bob/.test(scores);
        });
    }
});

test('each tab sees the other move', async () => {
    needed();
    await sees(bob, 'Ada', ...byKeyboard(ada));
    await sees(ada, 'Bob', ...byPress(bob));
}, 30000);

test('something is drawn; pictures are taken', async () => {
    needed();
    for (const [name, page] of [['ada', ada], ['bob', bob]]) {
        const colours = await page.evaluate(() => {
            const canvas = document.querySelector('canvas');
            const { data } = canvas.getContext('2d').getImageData(
                0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        });
        assert.ok(colours > 30, `${colours} colours`);
        await page.screenshot({ path: path.join(build, `arena-${name}.png`) });
    }
}, 30000);

test('a phone joins, moves by dragging, and leaves', async () => {
    needed();
    const context = await browser.newContext({
        viewport: { width: 390, height: 780 }, hasTouch: true,
        isMobile: true, deviceScaleFactor: 2,
    });
    const phone = await tab(context, '?name=Zoe');
    await live(phone, 3, 10000);
    const fingers = await context.newCDPSession(phone);
    const touch = (type, ...points) => fingers.send(
        'Input.dispatchTouchEvent',
        { type, touchPoints: points.map(([x, y]) => ({ x, y })) });
    await sees(ada, 'Zoe', async (right) => {
        await touch('touchStart', [190, 400]);
        await touch('touchMove', [right ? 290 : 90, 400]);
    }, () => touch('touchEnd'));
    await phone.screenshot({ path: path.join(build, 'arena-phone.png') });
    await context.close();
    for (const page of [ada, bob])
        await live(page, 2, 10000);
}, 40000);

test('both come back after the server was killed', async () => {
    needed();
    await comesBack('SIGKILL');
}, 90000);

test('both come back after the server was ended and restarted', async () => {
    needed();
    await comesBack('SIGTERM');
    await ada.screenshot({ path: path.join(build, 'arena-back.png') });
}, 90000);

test('the pages threw nothing', async () => {
    needed();
    assert.deepEqual(errors, []);
});

test('the browser and the arena end well', async () => {
    needed();
    await browser.close();
    await arena.stop();
}, 30000);

await done();
