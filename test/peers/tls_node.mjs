// TLS with Node as the client and as the server, and with lines between the
// two that break, drip, or are never used.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { connect as rtnet } from '../../examples/rtnet.js';
import { bytes, done, sleep, until, within, words } from './lib.mjs';
import { cert, certFile, dial, key, keyFile, pin, test, withSecure }
    from './tls.mjs';

const CAUSE = { app: 1, peer: 2, limit: 3, timeout: 4, error: 5 };
const ca = cert('authority');
const urlOf = (port, path = '/') => `wss://localhost:${port}${path}`;

const opened = (ws) => within(5000, 'open', once(ws, 'open'));
const closed = (ws) => within(5000, 'close', new Promise((resolve) =>
    ws.on('close', (code, reason) => resolve([code, String(reason)]))));

async function echoed(ws, data) {
    ws.send(data);
    const [got, binary] = await within(10000, 'echo', once(ws, 'message'));
    assert.equal(binary, typeof data !== 'string');
    assert.ok(Buffer.from(data).equals(got), `${data.length} bytes`);
}

// A server is well when somebody new is served.
async function well(server, options = { ca }) {
    const ws = new WebSocket(urlOf(server.port), options);
    await opened(ws);
    await echoed(ws, 'well?');
    const done = closed(ws);
    ws.close(1000);
    assert.deepEqual(await done, [1000, '']);
}

// All that opened have ended: nobody is forgotten.
const quiet = (server) => until(8000, 'all ended', () =>
    server.count('open') === server.count('end'));

// ---- Node as the client ----

for (const name of ['host', 'rsa', 'deep'])
    test(`ws: echoes of every size are right: ${name}`, () =>
        withSecure([name], async (server) => {
            const ws = new WebSocket(urlOf(server.port), { ca });
            await opened(ws);
            for (const size of [0, 1, 125, 126, 16383, 16384, 16385, 32768,
                                65535, 65536, 1 << 20]) {
                await echoed(ws, bytes(size));
                await echoed(ws, words(size * 3 / 4));
            }
            const end = closed(ws);
            ws.close(3999, 'tschüß');
            assert.deepEqual(await end, [3999, '']);
            await server.sees('end code=3999 cause=2 reason=tschüß');
        }));

for (const backend of ['auto', 'select'])
    test(`ws: a hundred clients at once, ${backend}`, () =>
        withSecure(['host', '--backend', backend], async (server) => {
            await Promise.all(Array.from({ length: 100 }, async (_, n) => {
                const ws = new WebSocket(urlOf(server.port), { ca });
                await opened(ws);
                for (let i = 0; i < 20; i++)
                    await echoed(ws, i % 2 ? bytes(n * i, n) : `${n} ${i}`);
                const end = closed(ws);
                ws.close(1000);
                await end;
            }));
            await quiet(server);
            assert.equal(server.count('end code=1000 cause=2'), 100);
        }));

test('ws: what is sent in a burst comes back in order', () =>
    withSecure(['host'], async (server) => {
        const ws = new WebSocket(urlOf(server.port), { ca });
        const got = [];
        ws.on('message', (data) => got.push(data));
        await opened(ws);
        const sent = Array.from({ length: 500 }, (_, i) => bytes(i * 61, i));
        sent.forEach((data) => ws.send(data));
        await until(10000, 'all', () => got.length === sent.length);
        sent.forEach((data, i) => assert.ok(data.equals(got[i]), `${i}`));
        const end = closed(ws);
        ws.send('close');
        assert.deepEqual(await end, [1000, 'as you wish']);
    }));

// Why Node did not connect.
async function unmet(name, options) {
    let code;
    await withSecure([name], async (server) => {
        const ws = new WebSocket(urlOf(server.port), options);
        const [error] = await within(5000, 'error', once(ws, 'error'));
        ({ code } = error);
        await well(server, { rejectUnauthorized: false });
        assert.equal(server.count('open'), 1);
    });
    return code;
}

test('ws distrusts what it must', async () => {
    assert.equal(await unmet('host', {}), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
    assert.equal(await unmet('foreign', { ca }),
                 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
    assert.equal(await unmet('other', { ca }), 'ERR_TLS_CERT_ALTNAME_INVALID');
    assert.equal(await unmet('late', { ca }), 'CERT_HAS_EXPIRED');
    assert.equal(await unmet('early', { ca }), 'CERT_NOT_YET_VALID');
    assert.equal(await unmet('lone', { ca }), 'DEPTH_ZERO_SELF_SIGNED_CERT');
}, 30000);

test('https: requests in a row go over one connection', () =>
    withSecure(['host'], async (server) => {
        const agent = new https.Agent({ ca, keepAlive: true, maxSockets: 1 });
        const ports = new Set();
        const get = (what) => within(5000, what, new Promise((resolve, no) =>
            https.get(`https://localhost:${server.port}${what}`, { agent },
                async (answer) => {
                    let body = '';
                    ports.add(answer.socket.localPort);
                    for await (const some of answer)
                        body += some;
                    resolve([answer.statusCode, body]);
                }).on('error', no)));
        for (let i = 0; i < 5; i++) {
            const [status, body] = await get('/rtnet.js');
            assert.equal(status, 200);
            assert.match(body, /export function connect/);
            assert.equal((await get('/'))[0], 200);
        }
        assert.equal(ports.size, 1);
        assert.equal((await get('/nothing'))[0], 404);
        agent.destroy();
    }));

// A bare client of TLS.
async function shake(port, options = {}) {
    const socket = tls.connect({ port, host: '127.0.0.1', ca,
                                 servername: 'localhost', ...options });
    socket.on('error', () => {});
    await within(5000, 'handshake', once(socket, 'secureConnect'));
    return socket;
}

test('tls: a session is reused, its bytes come back', () =>
    withSecure(['host', '--scheme', 'tls'], async (server) => {
        const first = await shake(server.port, { maxVersion: 'TLSv1.2' });
        const session = first.getSession();
        assert.equal(first.isSessionReused(), false);
        first.destroy();
        for (let i = 0; i < 3; i++) {
            const again = await shake(server.port,
                                      { session, maxVersion: 'TLSv1.2' });
            assert.equal(again.isSessionReused(), true);
            again.write('abc');
            const [data] = await within(5000, 'echo', once(again, 'data'));
            assert.equal(String(data), 'abc');
            const end = once(again, 'end'); // close_notify, and the FIN
            again.end();
            await within(5000, 'end', end);
        }
        await quiet(server);
    }));

test('tls: half a client may end and still be answered', () =>
    withSecure(['host', '--scheme', 'tls'], async (server) => {
        const data = bytes(300000);
        const socket = await shake(server.port, { allowHalfOpen: true });
        const parts = [];
        socket.on('data', (part) => parts.push(part));
        socket.write(data);
        await until(5000, 'the echo', () =>
            Buffer.concat(parts).length === data.length);
        assert.ok(Buffer.concat(parts).equals(data));
        const end = once(socket, 'end');
        socket.end();
        await within(5000, 'end', end);
        await server.sees('end code=1005 cause=2');
    }));

test('tls: who does not read for a while gets all of it, whole', () =>
    withSecure(['host', '--scheme', 'tls'], async (server) => {
        const data = bytes(32 << 20), parts = [];
        let got = 0;
        const socket = await shake(server.port);
        socket.pause();
        socket.write(data);
        // More than fits on the way, so that the server waits for us.
        await sleep(1000);
        assert.ok(socket.writableLength > 0, 'the server reads no more');
        socket.on('data', (part) => (got += part.length, parts.push(part)));
        socket.resume();
        await until(20000, 'the echo', () => got >= data.length);
        assert.ok(Buffer.concat(parts).equals(data));
        socket.end();
        await server.sees('end code=1005 cause=2');
    }), 30000);

// ---- Node as the server ----

async function listen(name, options = {}) {
    const web = https.createServer({ cert: cert(name), key: key(name),
                                     ...options });
    const self = new WebSocketServer({ server: web, maxPayload: 64 << 20 });
    self.failed = [];
    self.shaken = [];
    web.on('tlsClientError', (error) => self.failed.push(error.code));
    web.on('secureConnection', (socket) => self.shaken.push({
        name: socket.servername, alpn: socket.alpnProtocol,
        cipher: socket.getCipher().name,
        user: socket.getPeerCertificate().subject?.CN,
    }));
    self.on('connection', (ws) => ws.on('message', (data, binary) =>
        ws.send(data, { binary })));
    web.listen(0, '127.0.0.1');
    await once(web, 'listening');
    self.port = web.address().port;
    self.url = urlOf(self.port, '/here');
    self.stop = async () => {
        self.clients.forEach((ws) => ws.terminate());
        self.close();
        web.closeAllConnections();
        web.close();
        await within(5000, 'server closed', once(web, 'close'));
    };
    return self;
}

// What the dialer says of a server with that certificate.
async function dialled(name, args, options, check = () => {}) {
    const server = await listen(name, options);
    try {
        const told = await dial(server.url, ...args);
        check(server, told);
        return told;
    } finally {
        await server.stop();
    }
}

const trust = ['--ca', certFile('authority')];

for (const name of ['host', 'rsa', 'deep'])
    test(`dialled: ws over https, sizes, both backends: ${name}`,
        async () => {
            for (const backend of ['epoll', 'select'])
                for (const size of [0, 100, 16384, 65536, 1 << 20]) {
                    const told = await dialled(name,
                        [...trust, '--size', size, '--messages', 4,
                         '--window', size > 65536 ? 1 : 4,
                         '--max-message', 1 << 20, '--backend', backend]);
                    assert.equal(told.exit, 0, told.out);
                    assert.deepEqual([told.right, told.code, told.cause],
                                     [4, 1000, CAUSE.app]);
                }
        }, 60000);

test('dialled: a hundred sessions of one loop', async () => {
    const told = await dialled('host', [...trust, '--sessions', 100,
                                        '--messages', 20]);
    assert.equal(told.exit, 0, told.out);
    assert.equal(told.out.match(/^echoes right=20 wrong=0/gm).length, 100);
});

test('dialled: SNI and ALPN are said', async () => {
    const told = await dialled('host', trust, { ALPNProtocols: ['http/1.1'] },
        (server) => {
            const [{ name, alpn, cipher }] = server.shaken;
            assert.deepEqual([name, alpn], ['localhost', 'http/1.1']);
            assert.match(cipher, /^(ECDHE-ECDSA|TLS)[-_].*(GCM|POLY1305)/);
        });
    assert.equal(told.exit, 0, told.out);
});

test('dialled: who is not to be trusted is told by name', async () => {
    const why = { other: 'wrong host', late: 'expired', lone: 'not trusted',
                  early: 'not valid yet', foreign: 'not trusted' };
    for (const [name, reason] of Object.entries(why)) {
        const told = await dialled(name, trust, {}, (server) =>
            assert.equal(server.shaken.length, 0));
        assert.notEqual(told.exit, 0);
        assert.deepEqual([told.code, told.cause, told.reason],
                         [1006, CAUSE.error, `certificate: ${reason}`]);
        assert.doesNotMatch(told.out, /^open/m);
    }
}, 30000);

test('dialled: --name and the authority decide together', async () => {
    assert.equal((await dialled('other', [...trust, '--name',
                                          'other.example'])).exit, 0);
    const told = await dialled('host', [...trust, '--name', 'other.example']);
    assert.equal(told.reason, 'certificate: wrong host');
    const self = await dialled('lone', ['--ca', certFile('lone')]);
    assert.equal(self.exit, 0, self.out);
});

test('dialled: pins, with and without an authority', async () => {
    for (const name of ['host', 'rsa', 'lone', 'late', 'other']) {
        const told = await dialled(name, ['--pin', pin(name)]);
        assert.equal(told.exit, 0, told.out);
    }
    const two = await dialled('host',
                              ['--pin', `${pin('rsa')} ${pin('host')}`]);
    assert.equal(two.exit, 0, two.out);
    const wrong = await dialled('host', ['--pin', pin('rsa')]);
    assert.equal(wrong.reason, 'certificate: not the pinned key');
    const lone = await dialled('lone', [...trust, '--pin', pin('lone')]);
    assert.equal(lone.reason, 'certificate: not trusted');
}, 30000);

test('dialled: a client shows its certificate when it is asked', async () => {
    const asks = { requestCert: true, rejectUnauthorized: true, ca };
    const shown = await dialled('host',
        [...trust, '--cert', certFile('user'), '--key', keyFile('user')],
        asks, (server) => assert.equal(server.shaken[0].user, 'user'));
    assert.equal(shown.exit, 0, shown.out);
    assert.notEqual((await dialled('host', trust, asks)).exit, 0);
});

test('dialled: an old TLS, a weak suite, h2 alone: none is spoken',
    async () => {
        const weak = [
            { minVersion: 'TLSv1', maxVersion: 'TLSv1.1',
              ciphers: 'ALL:@SECLEVEL=0' },
            { maxVersion: 'TLSv1.2', ciphers: 'AES128-GCM-SHA256' },
            { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-SHA' },
            { ALPNProtocols: ['h2'] },
        ];
        for (const options of weak) {
            const told = await dialled('rsa', trust, options, (server) =>
                assert.equal(server.failed.length, 1));
            assert.notEqual(told.exit, 0);
            assert.deepEqual([told.code, told.cause], [1006, CAUSE.error]);
            assert.match(told.reason, /^TLS: /);
        }
    }, 30000);

test('dialled: close_notify is an end, the mere end of a line is not',
    async () => {
        const ends = [(socket) => socket.end(),
                      (socket) => socket.destroy()];
        const codes = [];
        for (const end of ends) {
            const server = tls.createServer(
                { cert: cert('host'), key: key('host') }, end);
            server.listen(0, '127.0.0.1');
            await once(server, 'listening');
            const told = await dial(`tls://localhost:${server.address().port}`,
                                    ...trust, '--messages', 0, '--wait', 1);
            codes.push(told.code);
            server.close();
        }
        assert.deepEqual(codes, [1005, 1006]);
    });

test('dialled: what speaks no TLS is told so', async () => {
    const plain = net.createServer((socket) => {
        socket.on('error', () => {});
        socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    const told = await dial(urlOf(plain.address().port), ...trust);
    assert.deepEqual([told.code, told.cause], [1006, CAUSE.error]);
    assert.match(told.reason, /^TLS: /);
    plain.close();
});

// ---- lines that break ----

// The whole records in what came.
class Records {
    #rest = Buffer.alloc(0);

    put(data) {
        const whole = [];
        this.#rest = Buffer.concat([this.#rest, data]);
        for (;;) {
            const size = this.#rest.length < 5 ? Infinity :
                5 + this.#rest.readUInt16BE(3);
            if (this.#rest.length < size)
                return whole;
            whole.push(this.#rest.subarray(0, size));
            this.#rest = this.#rest.subarray(size);
        }
    }
}

// Between a client and that port.  The records of the side `way` (0: the
// client's) pass up to number k, and of that one the first part(size) bytes;
// then both ends see a FIN, or a reset.
async function between(port, way = 0, k = Infinity, part, how) {
    const self = { records: [0, 0], cuts: 0 };
    const sockets = new Set();
    const server = net.createServer((client) => {
        const pair = [client, net.connect(port, '127.0.0.1')];
        const pass = (side, record) => {
            if (self.cuts)
                return;
            const here = side === way && self.records[side] === k;
            self.records[side]++;
            pair[1 - side].write(here ? record.subarray(0, part(record.length))
                                      : record);
            if (!here)
                return;
            self.cuts++;
            pair.forEach((one) => how === 'end' ? one.end()
                                                : one.resetAndDestroy());
        };
        pair.forEach((from, side) => {
            const records = new Records();
            sockets.add(from);
            from.setNoDelay(true);
            from.on('error', () => {});
            from.on('close', () => pair[1 - side].destroy());
            from.on('data', (data) =>
                records.put(data).forEach((one) => pass(side, one)));
        });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    self.port = server.address().port;
    self.stop = async () => {
        sockets.forEach((socket) => socket.destroy());
        server.close();
        await within(5000, 'line closed', once(server, 'close'));
    };
    return self;
}

// Where a record is cut: in its header, in the middle, before its last byte,
// and behind it.
const parts = [() => 3, (size) => size >> 1, (size) => size - 1,
               (size) => size];

// play(line) once for each record of a side and each part of it; whole is how
// many records there are.  The last one, a close_notify, need not come.
async function cutEach(port, way, whole, how, play) {
    for (let k = 0; k < whole; k++)
        for (const part of parts) {
            const line = await between(port, way, k, part, how);
            await play(line);
            await line.stop();
            assert.ok(line.cuts === 1 || k === whole - 1, `cut in ${k}`);
        }
}

// A whole conversation of Node with the server over that line; what fails
// because the line does is no fault.
function converse(port) {
    return within(10000, 'the end', new Promise((resolve) => {
        const ws = new WebSocket(urlOf(port), { ca, maxVersion: 'TLSv1.2' });
        ws.on('error', () => {});
        ws.on('close', (code) => resolve(code));
        ws.on('open', () => ws.send('a question'));
        ws.on('message', () => ws.close(1000));
    }));
}

async function recordsOf(port, way, talk) {
    const line = await between(port);
    await talk(line.port);
    await sleep(50);
    await line.stop();
    assert.ok(line.records[way] >= 6, `${line.records[way]} records`);
    return line.records[way];
}

for (const how of ['end', 'reset'])
    for (const [way, side] of ['client', 'server'].entries())
        test(`the line of a server breaks in each record: ${side}, ${how}`,
            () => withSecure(['host'], async (server) => {
                const whole = await recordsOf(server.port, way,
                    async (port) => assert.equal(await converse(port), 1000));
                await cutEach(server.port, way, whole, how,
                              (line) => converse(line.port));
                await quiet(server);
                await well(server);
                await quiet(server);
                // Without its close_notify nobody has said goodbye.
                assert.equal(server.count('end code=1005'), 0);
            }), 60000);

for (const [way, side] of ['client', 'server'].entries())
    test(`the line of a dial breaks in each record: ${side}`, async () => {
        const server = await listen('host', { maxVersion: 'TLSv1.2' });
        const talk = (port) => dial(urlOf(port), ...trust, '--messages', 2,
                                    '--limit-ms', 5000);
        const whole = await recordsOf(server.port, way, async (port) =>
            assert.equal((await talk(port)).exit, 0));
        await cutEach(server.port, way, whole, 'end', async (line) => {
            const { out } = await talk(line.port);
            // It has one end, and not as if the peer had said so.
            assert.match(out, /^end code=(1000|1006) /m, out);
            assert.equal(out.match(/^end /gm).length, 1);
        });
        await server.stop();
    }, 60000);

// ---- lines that drip, or stay silent ----

// The first record that Node sends.
async function clientHello() {
    const mute = net.createServer();
    mute.listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const client = tls.connect({ port: mute.address().port, ca,
                                 host: '127.0.0.1', servername: 'localhost' });
    client.on('error', () => {});
    const [socket] = await once(mute, 'connection');
    const [hello] = await once(socket, 'data');
    client.destroy();
    mute.close();
    return hello;
}

async function raw(port) {
    const socket = net.connect(port, '127.0.0.1');
    socket.over = false;
    socket.on('error', () => {});
    socket.on('close', () => (socket.over = true));
    socket.on('end', () => (socket.over = true));
    socket.resume();
    socket.setNoDelay(true);
    await within(5000, 'connected', once(socket, 'connect'));
    return socket;
}

test('a ClientHello byte by byte meets the deadline', () =>
    withSecure(['host', '--handshake-ms', 1000], async (server) => {
        const hello = await clientHello();
        const start = Date.now();
        const slow = await raw(server.port);
        for (let i = 0; i < hello.length - 1 && !slow.over; i++) {
            slow.write(hello.subarray(i, i + 1));
            await sleep(20);
        }
        const ms = Date.now() - start;
        assert.ok(slow.over, 'it was closed');
        assert.ok(ms > 900 && ms < 5000, `${ms} ms`);
        slow.destroy();
        await well(server);
        assert.equal(server.count('open'), 1);
    }));

test('a ClientHello byte by byte in time is served', () =>
    withSecure(['host'], async (server) => {
        const line = net.createServer((client) => {
            const up = net.connect(server.port, '127.0.0.1');
            up.setNoDelay(true);
            let chain = Promise.resolve();
            client.on('data', (data) => (chain = chain.then(async () => {
                for (const byte of data) {
                    up.write(Buffer.of(byte));
                    await sleep(1);
                }
            })));
            up.on('data', (data) => client.write(data));
            for (const [one, other] of [[client, up], [up, client]]) {
                one.on('error', () => {});
                one.on('close', () => other.destroy());
            }
        });
        line.listen(0, '127.0.0.1');
        await once(line, 'listening');
        await well(line.address());
        line.close();
    }));

test('half-open handshakes are capped; a good client comes in', () =>
    withSecure(['host', '--max-handshakes', 50, '--handshake-ms', 20000],
               async (server) => {
        const hello = await clientHello();
        const silent = [];
        for (let i = 0; i < 200; i++) {
            silent.push(await raw(server.port));
            if (i % 2)
                silent[i].write(hello.subarray(0, hello.length / 2));
        }
        const over = () => silent.filter((socket) => socket.over).length;
        await until(5000, 'the oldest go', () => over() >= 150);
        await sleep(100);
        assert.equal(over(), 150);
        assert.ok(silent.slice(0, 150).every((socket) => socket.over));
        for (let i = 0; i < 3; i++)
            await well(server);
        silent.forEach((socket) => socket.destroy());
        await well(server);
    }));

test('half-open handshakes that stay are gone by the deadline', () =>
    withSecure(['host', '--handshake-ms', 700], async (server) => {
        const silent = [];
        for (let i = 0; i < 100; i++)
            silent.push(await raw(server.port));
        await well(server); // beside them
        await until(3000, 'all are closed', () =>
            silent.every((socket) => socket.over));
        await well(server);
    }));

test('a handshake that stops behind TLS, before HTTP, meets it too', () =>
    withSecure(['host', '--handshake-ms', 700], async (server) => {
        const start = Date.now();
        const socket = await shake(server.port);
        socket.resume();
        await within(3000, 'closed', once(socket, 'close'));
        assert.ok(Date.now() - start > 600);
        await well(server);
    }));

// ---- rtnet.js ----

test('rtnet.js comes back over wss without loss', () =>
    withSecure(['host', '--resume', 15000], async (server) => {
        const told = [];
        class Trusting extends WebSocket {
            constructor(url, protocols) {
                super(url, protocols, { ca });
            }
        }
        const c = rtnet(urlOf(server.port), {
            WebSocket: Trusting, minDelay: 10, maxDelay: 100,
            open: () => told.push('open'), away: () => told.push('away'),
            back: (lost) => told.push(`back ${lost}`),
            message: (data) => told.push(data),
            close: (end) => told.push(`close ${end.code}`),
        });
        const sees = (what) =>
            until(5000, what, () => told.includes(what));
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
        await server.sees('end code=1000');
        assert.equal(server.count('open'), 1);
        assert.deepEqual(told.filter((what) => what !== 'close 1000'),
                         ['open', 'one', 'away', 'back 0', 'two', 'three']);
    }));

await done();
