// curl, as anybody's HTTP client, against the arena; its /metrics through a
// parser of Prometheus' format.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { once } from 'node:events';
import parsePrometheus from 'parse-prometheus-text-format';
import path from 'node:path';
import WebSocket from 'ws';
import { checkSane, done, freePort, root, serve, skip, sleep,
         test, within } from './lib.mjs';

let arena;
let base;

// curl's output and exit code; fails when curl is still busy after 10 s.
function curl(...args) {
    const all = ['--silent', '--show-error', '--max-time', '10', '--noproxy',
                 '*', ...args];
    return new Promise((resolve) => execFile('curl', all,
        { encoding: 'latin1', timeout: 15000, maxBuffer: 4 << 20 },
        (error, out, err) =>
            resolve({ code: error ? error.code : 0, out, err })));
}

// One answer with its status line, headers and body.
async function ask(...args) {
    const { code, out, err } = await curl('--include', ...args);
    assert.equal(code, 0, err);
    const cut = out.indexOf('\r\n\r\n');
    assert.ok(cut > 0, out);
    const [first, ...lines] = out.slice(0, cut).split('\r\n');
    const headers = {};
    for (const line of lines) {
        const [, name, value] = /^([^:\s]+): *(.*)$/.exec(line);
        headers[name.toLowerCase()] = value;
    }
    const status = /^HTTP\/1\.1 (\d{3}) \S/.exec(first);
    assert.ok(status, first);
    return { status: Number(status[1]), headers, body: out.slice(cut + 4) };
}

async function metrics() {
    const { body } = await ask(`${base}/metrics`);
    const families = {};
    for (const family of parsePrometheus(body))
        families[family.name] = family;
    return { body, families };
}

const value = (family) =>
    family.metrics.reduce((sum, one) => sum + Number(one.value), 0);

// Buckets by their bounds, each with what the ones below it hold.
function checkHistogram(name, { buckets, count, sum }) {
    assert.ok(Number(sum) >= 0, `${name} ${sum}`);
    const counts = Object.entries(buckets)
        .map(([bound, n]) => [Number(bound.replace('+Inf', 'Infinity')),
                              Number(n)])
        .sort(([a], [b]) => a - b);
    assert.ok(counts.length > 2, name);
    counts.reduce((before, [, n]) => {
        assert.ok(n >= before, `${name} grows`);
        return n;
    }, 0);
    const [last, all] = counts.at(-1);
    assert.equal(last, Infinity, name);
    assert.equal(all, Number(count), `${name} counts all`);
}

test('the arena starts', async () => {
    const port = await freePort();
    arena = await serve('arena', [port],
                        { ready: /:(\d+)\b/, cwd: root });
    assert.equal(arena.port, port);
    base = `http://127.0.0.1:${port}`;
});

test('GET / is the page, whole', async () => {
    const { status, headers, body } = await ask(`${base}/`);
    const page = readFileSync(path.join(root, 'examples/arena.html'),
                              'latin1');
    assert.equal(status, 200);
    assert.match(headers['content-type'], /^text\/html/);
    assert.equal(Number(headers['content-length']), page.length);
    assert.ok(body === page, 'the bytes of the file');
});

test('GET /health', async () => {
    const { status, body } = await ask(`${base}/health`);
    assert.equal(status, 200);
    assert.match(body, /ok/);
});

test('HEAD has the headers of GET and no body', async () => {
    for (const what of ['/', '/health']) {
        const get = await ask(base + what);
        const head = await ask('--head', base + what);
        assert.equal(head.status, 200);
        assert.equal(head.headers['content-length'],
                     get.headers['content-length']);
        assert.equal(head.headers['content-type'],
                     get.headers['content-type']);
    }
    // On a bare socket too, where a body would be seen.
    const socket = net.connect(arena.port, '127.0.0.1');
    let text = '';
    socket.on('data', (data) => (text += data.toString('latin1')));
    socket.write('HEAD /health HTTP/1.1\r\nHost: x\r\n' +
                 'Connection: close\r\n\r\n');
    await within(5000, 'end', once(socket, 'close'));
    assert.match(text, /^HTTP\/1\.1 200 [^]*\r\n\r\n$/);
});

test('what is not there is 404, a plain request for /ws 426', async () => {
    assert.equal((await ask(`${base}/nothing`)).status, 404);
    assert.equal((await ask(`${base}/ws`)).status, 426);
});

test('five requests go over one connection', async () => {
    const { code, out, err } = await curl('--verbose',
        ...Array.from({ length: 5 }, () => `${base}/health`));
    assert.equal(code, 0, err);
    assert.equal(out.match(/ok/g).length, 5);
    assert.equal(err.match(/< HTTP\/1\.1 200/g).length, 5, err);
    assert.equal(err.match(/connection .*left intact/gi).length, 5, err);
    assert.equal(err.match(/Re-using existing connection/g).length, 4, err);
});

test('Connection: close and HTTP/1.0 close', async () => {
    for (const args of [['--header', 'Connection: close'], ['--http1.0']]) {
        const { code, out, err } = await curl('--verbose', ...args,
            `${base}/health`, `${base}/health`);
        assert.equal(code, 0, err);
        assert.equal(out.match(/ok/g).length, 2);
        assert.doesNotMatch(err, /Re-using existing connection/);
    }
});

test('pipelined requests are answered in order', async () => {
    const socket = net.connect(arena.port, '127.0.0.1');
    let text = '';
    socket.on('data', (data) => (text += data.toString('latin1')));
    const get = (path, more = '') =>
        `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;
    socket.write(get('/health') + get('/metrics') + get('/') +
                 get('/nothing', 'Connection: close\r\n'));
    await within(5000, 'end', once(socket, 'close'));
    assert.deepEqual(text.match(/HTTP\/1\.1 \d+|^(ok$|# HELP)|<title>/gm)
                         .filter((one, i, all) => one !== all[i - 1]),
                     ['HTTP/1.1 200', 'ok', 'HTTP/1.1 200', '# HELP',
                      'HTTP/1.1 200', '<title>', 'HTTP/1.1 404']);
});

test('POST with a body is read whole, and the next request too', async () => {
    const common = ['--silent', '--max-time', '10', '--noproxy', '*'];
    const { code, out, err } = await curl('--verbose', '--data', 'x=1&y=2',
        `${base}/health`, '--next', ...common, '--verbose',
        `${base}/health`);
    assert.equal(code, 0, err);
    assert.match(err, /> POST \/health/);
    assert.match(err, /Re-using existing connection/);
    assert.equal(err.match(/< HTTP\/1\.1 200/g).length, 2, err);
    assert.equal(out.match(/ok/g).length, 2);
    assert.equal((await ask('--data', 'x', `${base}/nothing`)).status, 404);
});

test('a body in chunks is read whole or refused, never misread', async () => {
    const { status } = await ask('--data', 'GET /health HTTP/1.1',
        '--header', 'Transfer-Encoding: chunked', `${base}/nothing`);
    assert.ok([400, 404, 411, 501].includes(status), status);
});

test('a body above the limit is 413', async () => {
    const { status } = await ask('--data-binary', 'x'.repeat(70000),
                                 '--header', 'Expect:', `${base}/health`);
    assert.equal(status, 413);
});

test('headers above the limit are 431', async () => {
    const { status } = await ask('--header', `X: ${'y'.repeat(9000)}`,
                                 `${base}/health`);
    assert.equal(status, 431);
});

// Twenty players who move and talk until they are told to stop.
async function play(run) {
    const players = Array.from({ length: 20 }, (_, i) => {
        const ws = new WebSocket(
            `ws://127.0.0.1:${arena.port}/ws?name=player${i}`);
        ws.on('message', () => {});
        return ws;
    });
    await within(5000, 'open', Promise.all(players.map((ws) =>
        once(ws, 'open'))));
    const timer = setInterval(() => players.forEach((ws) =>
        ws.send(Buffer.from([Math.random() * 32]))), 50);
    try {
        await run(players);
    } finally {
        clearInterval(timer);
        players.forEach((ws) => ws.terminate());
    }
}

const wellFormed = async () => {
    const { headers } = await ask(`${base}/metrics`);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4');
    const { body, families } = await metrics();
    assert.ok(body.endsWith('\n'), 'ends with a line feed');
    const names = Object.keys(families);
    assert.ok(names.length >= 6, names.join(' '));
    for (const name of names) {
        const family = families[name];
        assert.match(name, /^(rtnet|arena)_[a-z0-9_]+$/);
        assert.ok(family.help, `${name} has a HELP`);
        assert.match(family.type, /^(COUNTER|GAUGE|HISTOGRAM|SUMMARY)$/);
        // A name and its labels come once.
        const lines = family.metrics.map((one) =>
            JSON.stringify(one.labels ?? {}));
        assert.equal(new Set(lines).size, lines.length, name);
        if (family.type === 'COUNTER')
            assert.match(name, /_total$/);
        if (family.type === 'HISTOGRAM')
            assert.match(name, /_(seconds|bytes)$/);
        for (const one of family.metrics)
            if (family.type === 'HISTOGRAM')
                checkHistogram(name, one);
            else
                assert.ok(Number(one.value) >= 0, `${name} ${one.value}`);
    }
    // The parser is lenient: each line once more, by the format's grammar.
    for (const line of body.trimEnd().split('\n'))
        assert.match(line, new RegExp('^(# (HELP|TYPE) [a-z_0-9]+ .+|' +
            '[a-z_0-9]+(\\{[a-z_]+="[^"\\\\]*"' +
            '(,[a-z_]+="[^"\\\\]*")*\\})? [0-9.e+]+)$'));
};

test('/metrics is well formed for a parser of the format', wellFormed);

test('/metrics is well formed while the arena is played', () =>
    play(async () => {
        const before = (await metrics()).families;
        for (let i = 0; i < 20; i++) {
            await wellFormed();
            await sleep(20);
        }
        const after = (await metrics()).families;
        for (const name of ['rtnet_turn_seconds', 'rtnet_send_queue_bytes'])
            assert.ok(Number(after[name].metrics[0].count) >
                      Number(before[name].metrics[0].count), name);
        assert.equal(value(after.arena_players), 20);
    }));

test("promtool finds nothing wrong with /metrics", async () => {
    const { body } = await metrics();
    const promtool = spawnSync('promtool', ['check', 'metrics'],
                               { input: body, encoding: 'utf8' });
    if (promtool.error?.code === 'ENOENT')
        skip('there is no promtool');
    assert.equal(promtool.status, 0, promtool.stderr + promtool.stdout);
});

test('the counters count what happens', async () => {
    const before = (await metrics()).families;
    const ws = new WebSocket(`ws://127.0.0.1:${arena.port}/ws?name=counted`);
    ws.on('message', () => {});
    await within(5000, 'open', once(ws, 'open'));
    for (let i = 0; i < 20; i++)
        ws.send(Buffer.alloc(1));
    ws.ping();
    await within(5000, 'pong', once(ws, 'pong'));
    const during = (await metrics()).families;
    ws.close(1003);
    await within(5000, 'close', once(ws, 'close'));
    const after = (await metrics()).families;
    const grown = Object.keys(before).filter((name) =>
        before[name].type === 'COUNTER' &&
        value(during[name]) - value(before[name]) === 20);
    assert.ok(grown.some((name) => /messages_in/.test(name)),
              'twenty messages came');
    const lived = Object.keys(before).filter((name) =>
        before[name].type === 'GAUGE' &&
        value(during[name]) === value(before[name]) + 1 &&
        value(after[name]) === value(before[name]));
    assert.ok(lived.some((name) => /sessions/.test(name)),
              'one session more while it was open');
    const closes = Object.keys(before).find((name) => /closes/.test(name));
    const of1003 = (families) => Number(families[closes].metrics.find(
        (one) => one.labels?.code === '1003')?.value ?? 0);
    assert.equal(of1003(after), of1003(before) + 1, 'closes by code');
});

test('refusals are counted by their cause', async () => {
    const causes = async () => {
        const { families } = await metrics();
        return Object.fromEntries(families.rtnet_refused_total.metrics.map(
            (one) => [one.labels.cause, Number(one.value)]));
    };
    const before = await causes();
    const { status } = await ask('--header', 'Upgrade: websocket', '--header',
        'Connection: Upgrade', '--header', 'Sec-WebSocket-Version: 13',
        '--header', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', '--header',
        'Origin: http://elsewhere.example', `${base}/ws?name=stranger`);
    assert.equal(status, 403);
    const socket = net.connect(arena.port, '127.0.0.1');
    socket.write('nonsense\r\n\r\n');
    socket.resume();
    await within(5000, 'end', once(socket, 'close'));
    const wanted = { ...before, origin: before.origin + 1,
                     request: before.request + 1 };
    assert.deepEqual(await causes(), wanted);
});

// A connection of before the signal, on which a request is under way.
test('the arena drains at SIGTERM and ends with 0', () =>
    play(async (players) => {
        const closes = players.map((ws) => once(ws, 'close'));
        const socket = net.connect(arena.port, '127.0.0.1');
        let text = '';
        socket.on('data', (data) => (text += data.toString('latin1')));
        socket.write('GET /health HTTP/1.1\r\n');
        await sleep(50);
        arena.child.kill('SIGTERM');
        await within(5000, 'the first farewell', Promise.race(closes));
        socket.end('Host: x\r\n\r\n');
        await within(5000, 'end', once(socket, 'close'));
        assert.match(text, /^HTTP\/1\.1 503 /);
        for (const [code, reason] of await within(5000, 'all farewells',
                                                  Promise.all(closes))) {
            assert.equal(code, 1012);
            assert.match(String(reason), /^retry=\d{3,4}$/);
        }
        const how = await within(5000, 'the end', arena.ended);
        checkSane(arena);
        assert.deepEqual(how, { code: 0, signal: null });
    }));

await done();
