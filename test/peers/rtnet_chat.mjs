// examples/rtnet.js over bad lines: two in Node, and two tabs of Chromium, chat
// with the library and with a second implementation.  10,000 messages, none
// lost, none twice.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { WebSocketServer, WebSocket } from 'ws';
import { connect } from '../../examples/rtnet.js';
import { done, freePort, root, serve, skip, sleep, test as add, until }
    from './lib.mjs';
import { startRelay } from './relay.mjs';
import { startRef } from './rtnet_ref.mjs';

// ONLY=word runs the cases whose names have it.
const test = (name, ...rest) =>
    name.includes(process.env.ONLY ?? '') && add(name, ...rest);

// Sends total messages to a server that gives every message to all, and sees
// to it that those of both come once and in order.  No more are under way than
// the server can keep: every eighth is reported as seen.  Runs in a page, too,
// so it may use nothing from outside.
function chat(connect, url, me, other, total, options) {
    const seen = { [me]: 0, [other]: 0 };
    let c, sent = 0, theySaw = 0, reported = 0, started = false;
    let backs = 0, digest = 0;
    const decoder = new TextDecoder(), encoder = new TextEncoder();
    const body = (n) => '.é'.repeat(n % 101 === 0 ? 900 : n % 41);
    const message = (n) => {
        const text = `${me} m ${n} ${body(n)}`;
        return n % 3 ? text : encoder.encode(text);
    };
    return new Promise((resolve, reject) => {
        const over = () => seen[me] === total && seen[other] === total &&
            theySaw === total && reported === total;
        const fail = (text) => reject(new Error(`${me}: ${text}`));
        const fill = () => {
            const due = seen[other] - reported;
            if ((due >= 8 || (due && seen[other] === total)) &&
                c.send(`${me} s ${seen[other]} `))
                reported = seen[other];
            while (started && sent < total && sent - theySaw < 24 &&
                   c.send(message(sent)))
                sent++;
            if (over())
                resolve({ me, backs, digest, close: () => c.close() });
        };
        const read = (data) => {
            const text = typeof data === 'string' ? data :
                decoder.decode(data);
            const [from, kind, number, ...rest] = text.split(' '), n = +number;
            if (from !== me && !started)
                started = c.send(`${me} s 0 `);
            if (kind === 's' && from === other)
                theySaw = Math.max(theySaw, n);
            if (kind === 'm' && (n !== seen[from] || rest.join() !== body(n)))
                fail(`${from} ${n} instead of ${seen[from]}`);
            if (kind === 'm') {
                seen[from] = n + 1;
                digest = (digest * 31 + from.charCodeAt(0) + n) >>> 0;
            }
            fill();
        };
        c = connect(url, {
            ...options, message: read, writable: fill,
            open: () => c.send(`${me} s 0 `),
            back: (lost) => {
                backs++;
                if (lost)
                    fail(`${lost} lost`);
            },
            close: (end) => end.code === 1000 ||
                fail(`closed ${end.code} ${end.reason}`),
        });
    });
}

// What two chats returned: enough troubles, and one order for both.
function checkChats(results, backs) {
    for (const { me, backs: times } of results)
        assert.ok(times >= backs, `${me} came back ${times} times`);
    assert.equal(results[0].digest, results[1].digest);
}

const TOTAL = 5000; // of each of the two
const FAST = { minDelay: 20, maxDelay: 400 };
const library = (backend, port = 0) => serve('fanout_server', [
    '--port', port, '--resume', 30000, '--backend', backend,
    '--max-message', 1 << 20]);
const servers = [
    ['a second implementation', startRef, 1000, 3],
    ['the library, epoll', () => library('epoll'), TOTAL, 10],
    ['the library, select', () => library('select'), 1000, 3],
];

// play(url) with a bad line to a server in between.
async function overBadLine(start, seed, play) {
    const server = await start();
    const relay = await startRelay(server.port, { seed });
    try {
        await play(`ws://127.0.0.1:${relay.port}/`);
        console.log(`     ${JSON.stringify(relay.count)}`);
    } finally {
        await relay.stop();
        await server.stop();
    }
}

for (const [name, start, total, backs] of servers)
    test(`two in Node chat over bad lines: ${name}`, () =>
        overBadLine(start, 11, async (url) => {
            const results = await Promise.all([['A', 'B'], ['B', 'A']].map(
                ([me, other]) => chat(connect, url, me, other, total,
                                      { ...FAST, WebSocket })));
            results.forEach(({ close }) => close());
            checkChats(results, backs);
        }), 120000);

// ---- with the library, one thing at a time ----

// A client with what it got, through a relay that obeys.
async function through(server, more = {}) {
    const relay = await startRelay(server.port);
    relay.calm = true;
    const got = [], backs = [], ends = [];
    const c = connect(`ws://127.0.0.1:${relay.port}/`, {
        WebSocket, minDelay: 1, maxDelay: 200, message: (data) => got.push(data),
        back: (lost) => backs.push(lost), close: (end) => ends.push(end),
        ...more,
    });
    await until(5000, 'open', () => c.state === 'open');
    return { c, relay, got, backs, ends };
}

// n messages of B while A is away for as long as that takes.
async function whileAway(n, check) {
    const server = await library('epoll');
    const a = await through(server), b = await through(server);
    try {
        b.c.send('first');
        await until(5000, 'the first', () => a.got.length === 1);
        a.relay.dead = true;
        a.relay.cut();
        for (let i = 0; i < n; i++) {
            b.c.send(`${i}`);
            await until(5000, 'its echo', () => b.got.length === i + 2);
        }
        a.relay.dead = false;
        await until(5000, 'back', () => a.backs.length === 1);
        b.c.send('last');
        await until(5000, 'the last', () => a.got.at(-1) === 'last');
        check(a.got.slice(1, -1), a.backs[0]);
    } finally {
        a.c.close();
        b.c.close();
        await a.relay.stop();
        await b.relay.stop();
        await server.stop();
    }
}

test('128 messages while away: all of them, nothing is lost', () =>
    whileAway(128, (got, lost) => {
        assert.equal(lost, 0);
        assert.deepEqual(got, Array.from({ length: 128 }, (_, i) => `${i}`));
    }), 30000);

test('129 messages while away: a gap of 129, then live', () =>
    whileAway(129, (got, lost) => {
        assert.equal(lost, 129);
        assert.deepEqual(got, []);
    }), 30000);

test('the server is killed and started: 4503, then a new one', async () => {
    const port = await freePort();
    let server = await library('epoll', port);
    const a = await through(server);
    a.c.send('1');
    await until(5000, 'its echo', () => a.got.length === 1);
    await server.stop('SIGKILL');
    await until(5000, 'away', () => a.c.state === 'away');
    a.c.send('2');
    server = await library('epoll', port);
    await until(5000, 'the end', () => a.ends.length === 1);
    const { code, lost, final } = a.ends[0];
    assert.equal(code, 4503);
    assert.ok(lost >= 1 && lost <= 2, `${lost} lost`);
    assert.equal(final, false);
    a.c.send('3');
    await until(5000, 'the echo of 3', () => a.got.length === 2);
    assert.deepEqual(a.got, ['1', '3']);
    a.c.close();
    await a.relay.stop();
    await server.stop();
}, 30000);

test('many messages larger than all that is kept are just acknowledged',
    async () => {
        const server = await library('epoll');
        const a = await through(server);
        const plain = new WebSocket(`ws://127.0.0.1:${server.port}/`);
        await once(plain, 'open');
        plain.on('message', () => {});
        for (let i = 0; i < 100; i++)
            plain.send(Buffer.alloc(70000, i));
        await until(10000, 'all', () => a.got.length === 100);
        a.c.send('still here');
        await until(5000, 'the echo', () => a.got.length === 101);
        assert.deepEqual([a.backs, a.ends], [[], []]);
        plain.terminate();
        a.c.close();
        await a.relay.stop();
        await server.stop();
    }, 30000);

test('a line that is cut all the time: the server has it wait', async () => {
    const server = await library('epoll');
    const reasons = [];
    const a = await through(server, {
        away: (code, reason) => reasons.push(reason),
    });
    const timer = setInterval(() => a.relay.cut(), 10);
    await sleep(1500);
    clearInterval(timer);
    const started = a.backs.length;
    assert.ok(started >= 5 && started <= 20, `${started} times in 1.5 s`);
    a.c.send('still here');
    await until(20000, 'the echo', () => a.got.length === 1);
    assert.deepEqual(a.ends, []);
    a.c.close();
    await a.relay.stop();
    await server.stop();
}, 40000);

// ---- the same in a browser ----

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu',
               '--disable-quic', '--no-first-run',
               '--disable-background-networking',
               '--disable-component-update', '--disable-sync'];

// Serves rtnet.js and a page that has it.
async function startPages() {
    const text = await readFile(path.join(root, 'examples/rtnet.js'));
    const page = `<!DOCTYPE html><title>chat</title><script type=module>
        import { connect } from '/rtnet.js';
        window.connect = connect;
        window.chat = ${chat};
        </script>`;
    const server = http.createServer((request, response) => {
        const script = request.url === '/rtnet.js';
        response.setHeader('Content-Type', script ? 'text/javascript' :
            'text/html; charset=utf-8');
        response.end(script ? text : page);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server;
}

// play(open) where open(url) gives a tab; none of them may throw anything.
async function inBrowser(play) {
    if (!existsSync(BROWSER))
        skip('there is no Chromium');
    const { chromium } = await import('playwright-core');
    const errors = [];
    const browser = await chromium.launch({ executablePath: BROWSER,
                                            args: FLAGS, timeout: 30000 });
    try {
        await play(async (url) => {
            const page = await browser.newPage();
            page.on('pageerror', (error) => errors.push(error.message));
            await page.goto(url);
            return page;
        });
        assert.deepEqual(errors, []);
    } finally {
        await browser.close();
    }
}

// The same with two tabs that have loaded the page above.
const inTabs = (play) => inBrowser(async (open) => {
    const server = await startPages();
    const url = `http://127.0.0.1:${server.address().port}/`;
    try {
        await play([await open(url), await open(url)]);
    } finally {
        server.close();
    }
});

// As chat(), in a page.
const chatIn = (page, ...rest) => page.evaluate(async (rest) => {
    const { close, ...result } = await window.chat(window.connect, ...rest);
    window.done = close;
    return result;
}, rest);

test('two tabs chat over bad lines', () =>
    inTabs((pages) => overBadLine(() => library('epoll'), 12, async (url) => {
        const results = await Promise.all([['A', 'B'], ['B', 'A']].map(
            ([me, other], i) =>
                chatIn(pages[i], url, me, other, TOTAL, FAST)));
        await Promise.all(pages.map((page) =>
            page.evaluate(() => window.done())));
        checkChats(results, 10);
    })), 180000);

test('Chromium and a server that does not choose: plain sessions', () =>
    inTabs(async ([page]) => {
        const server = new WebSocketServer({ port: 0, host: '127.0.0.1',
                                             handleProtocols: () => false });
        await once(server, 'listening');
        server.on('connection', (ws) => {
            ws.on('message', (data) => ws.send(`not ${data}`));
        });
        assert.equal(await page.evaluate((url) => new Promise((resolve) => {
            const c = window.connect(url, {
                open: () => c.send('mhello'), message: resolve,
            });
        }), `ws://127.0.0.1:${server.address().port}/`), 'not mhello');
        server.close();
    }), 60000);

test('the arena: a cut line costs a player nothing', () =>
    inBrowser(async (open) => {
        const arena = await serve('arena', [await freePort()], {
            ready: /:(\d+)\b/, cwd: root,
        });
        const relay = await startRelay(arena.port);
        relay.calm = true;
        const page = await open(`http://127.0.0.1:${relay.port}/?name=Ada`);
        const state = (wanted) => until(20000, wanted, () => page.evaluate(
            (wanted) => window.arena.state === wanted, wanted));
        const me = () => page.evaluate(() =>
            [window.arena.me, window.arena.players.size]);
        await state('live');
        await until(5000, 'a world', async () => (await me())[1] === 1);
        const [before] = await me();
        relay.dead = true;
        relay.cut();
        await state('reconnecting');
        relay.dead = false;
        await state('live');
        assert.deepEqual(await me(), [before, 1]);
        await relay.stop();
        await arena.stop();
    }), 60000);

await done();
