// Node's ws as the client of the echo server, on each backend.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import WebSocket from 'ws';
import { backends, bytes, done, serve, test, until, within, words }
    from './lib.mjs';

const LARGE = 2 << 20;
const open = new Set(); // clients of the present case

// Opens a client whose messages, pongs and close are kept in order.
async function client(port, path = '/', protocols = [], options = {}) {
    const url = `ws://127.0.0.1:${port}${path}`;
    const ws = new WebSocket(url, protocols,
                             { maxPayload: 64 << 20, ...options });
    open.add(ws);
    ws.got = [];
    ws.pongs = [];
    ws.on('message', (data, binary) => ws.got.push({ data, binary }));
    ws.on('pong', (data) => ws.pongs.push(data.toString()));
    ws.closed = new Promise((resolve) => {
        ws.on('close', (code, reason) =>
            resolve({ code, reason: reason.toString() }));
    });
    await within(5000, `open ${url}`, once(ws, 'open'));
    return ws;
}

const messages = (ws, count, ms = 10000) =>
    until(ms, `${count} messages`, () => ws.got.length >= count);

function same(got, sent, name) {
    const want = Buffer.from(sent);
    assert.equal(got.binary, typeof sent !== 'string', `${name}: kind`);
    assert.equal(got.data.length, want.length, `${name}: length`);
    assert.ok(got.data.equals(want), `${name}: bytes`);
}

async function echoed(ws, list) {
    ws.got.length = 0;
    list.forEach((one) => ws.send(one));
    await messages(ws, list.length);
    list.forEach((one, i) => same(ws.got[i], one, `message ${i}`));
    assert.equal(ws.got.length, list.length);
}

// Ends well: the server has to answer the close with the same code.
async function goodbye(ws) {
    ws.close(1000);
    const end = await within(5000, 'close', ws.closed);
    assert.equal(end.code, 1000);
}

async function status(port, path, headers) {
    const request = http.request({
        host: '127.0.0.1', port, path,
        headers: {
            Connection: 'Upgrade',
            Upgrade: 'websocket',
            'Sec-WebSocket-Version': '13',
            'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
            ...headers,
        },
    });
    request.end();
    return within(5000, 'answer', new Promise((resolve, reject) => {
        request.on('error', reject);
        request.on('response', (response) => {
            response.resume();
            resolve({ status: response.statusCode, of: response.headers });
        });
        request.on('upgrade', (response, socket) => {
            socket.destroy();
            resolve({ status: response.statusCode, of: response.headers });
        });
    }));
}

const facts = {};

facts['texts and binaries come back with their kind'] = async (port) => {
    const ws = await client(port);
    await echoed(ws, ['hello', Buffer.from('hello'), '', Buffer.alloc(0),
                      words(500), bytes(500)]);
    await goodbye(ws);
};

facts['every size at an edge of a length field, both kinds'] =
    async (port) => {
        const ws = await client(port);
        for (const size of [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128,
                            129, 1000, 4095, 4096, 4097, 16383, 32768, 65534,
                            65535, 65536, 65537])
            await echoed(ws, [bytes(size, size), 'x'.repeat(size)]);
        await goodbye(ws);
    };

facts['1 MiB of each kind'] = async (port) => {
    const ws = await client(port);
    await echoed(ws, [bytes(1 << 20)]);
    await echoed(ws, [words(1 << 20)]);
    await goodbye(ws);
};

facts['two thousand small messages in one burst keep their order'] =
    async (port) => {
        const ws = await client(port);
        const list = [];
        for (let i = 0; i < 2000; i++)
            list.push(i % 2 ? `message ${i}` : bytes(i % 300, i));
        await echoed(ws, list);
        await goodbye(ws);
    };

facts['fragments are joined, with a ping between them answered first'] =
    async (port) => {
        const ws = await client(port);
        const order = [];
        ws.on('message', () => order.push('message'));
        ws.on('pong', () => order.push('pong'));
        for (const whole of [words(3000), bytes(3000)]) {
            const all = Buffer.from(whole);
            const binary = typeof whole !== 'string';
            order.length = ws.got.length = 0;
            ws.send(all.subarray(0, 1), { fin: false, binary });
            ws.send(all.subarray(1, 1000), { fin: false, binary });
            ws.ping('between');
            ws.send(all.subarray(1000, 1000), { fin: false, binary });
            ws.send(all.subarray(1000), { fin: true, binary });
            await messages(ws, 1);
            same(ws.got[0], whole, 'joined');
            assert.deepEqual(order, ['pong', 'message']);
        }
        await goodbye(ws);
    };

facts['a character cut by a fragment is still one character'] =
    async (port) => {
        const ws = await client(port);
        const all = Buffer.from('a😀漢ü');
        for (let i = 0; i <= all.length; i++) {
            ws.got.length = 0;
            ws.send(all.subarray(0, i), { fin: false, binary: false });
            ws.send(all.subarray(i), { fin: true, binary: false });
            await messages(ws, 1);
            same(ws.got[0], 'a😀漢ü', `cut at ${i}`);
        }
        await goodbye(ws);
    };

facts['ten pings get their ten pongs, empty and of 125 bytes too'] =
    async (port) => {
        const ws = await client(port);
        const sent = ['', 'x'.repeat(125)];
        for (let i = 0; i < 8; i++)
            sent.push(`ping ${i}`);
        for (const one of sent) {
            ws.ping(one);
            await until(5000, 'pong', () => ws.pongs.length);
            assert.equal(ws.pongs.shift(), one);
        }
        sent.forEach((one) => ws.ping(one)); // and in one packet
        await until(5000, 'pongs', () => ws.pongs.length >= sent.length);
        assert.deepEqual(ws.pongs, sent);
        await goodbye(ws);
    };

facts['an unasked pong is no news'] = async (port) => {
    const ws = await client(port);
    ws.pong('nobody asked');
    await echoed(ws, ['still here']);
    await goodbye(ws);
};

facts['a close is answered with its own code'] = async (port) => {
    for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011,
                        1012, 1013, 1014, 3000, 3999, 4000, 4999]) {
        const ws = await client(port);
        ws.close(code, 'r'.repeat(code % 2 ? 0 : 123));
        const end = await within(5000, `close ${code}`, ws.closed);
        assert.equal(end.code, code);
    }
};

facts['a close without a code is answered without one'] = async (port) => {
    const ws = await client(port);
    ws.close();
    assert.equal((await within(5000, 'close', ws.closed)).code, 1005);
};

facts['what was sent before a close is echoed before its answer'] =
    async (port) => {
        const ws = await client(port);
        for (let i = 0; i < 50; i++)
            ws.send(`last words ${i}`);
        ws.close(1000);
        await within(5000, 'close', ws.closed);
        assert.equal(ws.got.length, 50);
        ws.got.forEach((one, i) => same(one, `last words ${i}`, `word ${i}`));
    };

facts['a text that is not UTF-8 is closed with 1007'] = async (port) => {
    for (const bad of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0x61, 0xe6],
                       [0xf4, 0x90, 0x80, 0x80]]) {
        const ws = await client(port);
        ws.send(Buffer.from(bad), { binary: false });
        assert.equal((await within(5000, 'close', ws.closed)).code, 1007);
        assert.equal(ws.got.length, 0);
    }
};

facts['a fragment that cannot become UTF-8 is closed at once'] =
    async (port) => {
        const ws = await client(port);
        ws.send(Buffer.from([0x61, 0xff]), { binary: false, fin: false });
        assert.equal((await within(5000, 'close', ws.closed)).code, 1007);
    };

// Frames that ws itself would not send: straight to its socket.
facts['a frame against the rules is closed with 1002'] = async (port) => {
    const frames = {
        'not masked': [0x81, 0x01, 0x61],
        'RSV1 set': [0xc1, 0x80, 0, 0, 0, 0],
        'unknown opcode': [0x83, 0x80, 0, 0, 0, 0],
        'unknown control opcode': [0x8b, 0x80, 0, 0, 0, 0],
        'a ping in fragments': [0x09, 0x80, 0, 0, 0, 0],
        'a ping of 126 bytes': [0x89, 0xfe, 0, 126, 0, 0, 0, 0],
        'a continuation of nothing': [0x80, 0x80, 0, 0, 0, 0],
        'a close of one byte': [0x88, 0x81, 0, 0, 0, 0, 3],
        'a close with 1005': [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed],
    };
    for (const [name, frame] of Object.entries(frames)) {
        const ws = await client(port);
        ws._socket.write(Buffer.from(frame));
        const end = await within(5000, name, ws.closed);
        assert.equal(end.code, 1002, name);
        assert.equal(ws.got.length, 0, name);
    }
};

facts['compression is declined and messages pass uncompressed'] =
    async (port) => {
        const ws = await client(port, '/', [], { perMessageDeflate: true });
        assert.equal(ws.extensions, '');
        await echoed(ws, [words(2000)]);
        await goodbye(ws);
    };

facts['any path and query is served'] = async (port) => {
    for (const path of ['/', '/a/b/c', '/?x=1&y=2', '/%20?%20']) {
        const ws = await client(port, path);
        await echoed(ws, [path]);
        await goodbye(ws);
    }
};

facts['a sub-protocol that nobody chose is not in the answer'] =
    async (port) => {
        const answer = await status(port, '/',
                                    { 'Sec-WebSocket-Protocol': 'chat, x' });
        assert.equal(answer.status, 101);
        assert.equal(answer.of['sec-websocket-protocol'], undefined);
        assert.equal(answer.of['sec-websocket-extensions'], undefined);
        assert.equal(answer.of['sec-websocket-accept'],
                     's3pPLMBiTxaQ9kYGzzhZRbK+xOo='); // RFC 6455, 1.3
    };

facts['a handshake against the rules is refused'] = async (port) => {
    const bad = [
        [{ 'Sec-WebSocket-Version': '12' }, 426],
        [{ 'Sec-WebSocket-Key': 'short' }, 400],
        [{ 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ' }, 400],
    ];
    for (const [headers, want] of bad) {
        const answer = await status(port, '/', headers);
        assert.equal(answer.status, want, JSON.stringify(headers));
        if (want === 426)
            assert.equal(answer.of['sec-websocket-version'], '13');
    }
};

facts['two hundred clients at once each get their own echoes'] =
    async (port) => {
        const all = await Promise.all(
            Array.from({ length: 200 }, () => client(port)));
        await Promise.all(all.map((ws, i) => echoed(ws,
            Array.from({ length: 20 }, (_, k) => `client ${i} says ${k}`))));
        await Promise.all(all.map(goodbye));
    };

facts['clients that vanish in the middle leave the others alone'] =
    async (port) => {
        const stays = await client(port);
        const all = await Promise.all(
            Array.from({ length: 50 }, () => client(port)));
        for (const ws of all) {
            ws.send(bytes(70000), { fin: false });
            ws._socket.resetAndDestroy();
        }
        await Promise.all(all.map((ws) => ws.closed));
        await echoed(stays, ['still', bytes(1000)]);
        await goodbye(stays);
    };

facts['a client that does not read for a while loses nothing'] =
    async (port) => {
        const ws = await client(port);
        const list = Array.from({ length: 400 }, (_, i) => bytes(20000, i));
        ws.pause();
        list.forEach((one) => ws.send(one));
        await new Promise((resolve) => setTimeout(resolve, 300));
        ws.resume();
        await messages(ws, list.length);
        list.forEach((one, i) => same(ws.got[i], one, `message ${i}`));
        await goodbye(ws);
    };

for (const backend of backends) {
    let server;
    test(`${backend}: the echo server starts`, async () => {
        server = await serve('echo_server',
                             ['--host', '127.0.0.1', '--port', 0,
                              '--backend', backend, '--max-message', LARGE]);
    });
    for (const [name, fact] of Object.entries(facts))
        test(`${backend}: ${name}`, async () => {
            try {
                await fact(server.port);
            } finally {
                open.forEach((ws) => ws.terminate());
                open.clear();
            }
        });
    test(`${backend}: the echo server ends well`, () => server.stop());
}

// Limits need servers of their own.
async function limited(args, fact) {
    const server = await serve('echo_server',
                               ['--host', '127.0.0.1', '--port', 0, ...args]);
    try {
        await fact(server.port);
    } finally {
        open.forEach((ws) => ws.terminate());
        open.clear();
        await server.stop();
    }
}

test('a message of the limit passes, one byte more is closed with 1009', () =>
    limited(['--max-message', 10000], async (port) => {
        const ws = await client(port);
        await echoed(ws, [bytes(10000), 'x'.repeat(10000)]);
        ws.send(bytes(10001));
        assert.equal((await within(5000, 'close', ws.closed)).code, 1009);
        const parts = await client(port); // and over many fragments
        for (let i = 0; i < 11; i++)
            parts.send(bytes(1000), { fin: false });
        assert.equal((await within(5000, 'close', parts.closed)).code, 1009);
    }));

test('more fragments than the limit are closed with 1009', () =>
    limited(['--max-fragments', 8], async (port) => {
        const ws = await client(port);
        for (let i = 0; i < 8; i++)
            ws.send('x', { fin: i === 7 });
        await messages(ws, 1);
        same(ws.got[0], 'xxxxxxxx', 'eight fragments');
        for (let i = 0; i < 9; i++)
            ws.send('x', { fin: i === 8 });
        assert.equal((await within(5000, 'close', ws.closed)).code, 1009);
        assert.equal(ws.got.length, 1);
    }));

const largest = ['--max-message', 16 << 20, '--max-fragments', 65536];

test('16 MiB in one frame', () =>
    limited(largest, async (port) => {
        const ws = await client(port);
        await echoed(ws, [bytes(16 << 20)]);
        await goodbye(ws);
    }), 30000);

// Copying all that came for each fragment would take a minute.
test('16 MiB in 65,536 fragments, in linear time', () =>
    limited(largest, async (port) => {
        const ws = await client(port);
        const all = bytes(16 << 20);
        for (let i = 0; i < 65536; i++)
            ws.send(all.subarray(i * 256, (i + 1) * 256),
                    { fin: i === 65535 });
        await messages(ws, 1, 10000);
        same(ws.got[0], all, 'fragments');
        await goodbye(ws);
    }), 30000);

await done();
