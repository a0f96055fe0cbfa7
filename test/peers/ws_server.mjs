// Node's ws, and bare sockets, as the server that rtnet dials.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { rmSync } from 'node:fs';
import { WebSocketServer } from 'ws';
import { backends, bytes, done, freePort, run, test, within, words }
    from './lib.mjs';

const CAUSE = { app: 1, peer: 2, limit: 3, timeout: 4, error: 5 };

// A ws server on a free port; stop() cuts what is still connected.
async function listen(options = {}, where = { port: 0, host: '127.0.0.1' }) {
    const web = http.createServer();
    const self = new WebSocketServer({ server: web, maxPayload: 64 << 20,
                                       ...options });
    web.listen(where);
    await once(web, 'listening');
    self.url = where.path ? `unix:${where.path}`
                          : `ws://127.0.0.1:${web.address().port}/here?q=1`;
    self.on('connection', (ws) => ws.on('error', (error) => ws.why = error));
    self.stop = async () => {
        self.clients.forEach((ws) => ws.terminate());
        self.close();
        web.closeAllConnections();
        web.close();
        await within(5000, 'server closed', once(web, 'close'));
    };
    return self;
}

// A server of bare TCP: what it says is up to the case.
async function bare(talk) {
    const sockets = new Set();
    const server = net.createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        talk(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
        url: `ws://127.0.0.1:${server.address().port}/`,
        stop: async () => {
            sockets.forEach((socket) => socket.destroy());
            server.close();
            await within(5000, 'server closed', once(server, 'close'));
        },
    };
}

const acceptOf = (key) => createHash('sha1')
    .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

// Calls answer(socket, accept value) when a whole request has come.
function onRequest(socket, answer) {
    let text = '';
    const more = (data) => {
        text += data.toString('latin1');
        if (!text.includes('\r\n\r\n'))
            return;
        socket.off('data', more);
        const key = /^sec-websocket-key: *(\S+)/im.exec(text);
        answer(socket, key && acceptOf(key[1]), text);
    };
    socket.on('data', more);
}

const upgraded = (accept, more = '') =>
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n' +
    `Connection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${more}\r\n`;

// The lines of the dialer as values.
function told(dialer) {
    const number = (line, name) => {
        const found = new RegExp(`^${line}\\b.*?\\b${name}=(-?\\d+)`, 'm')
            .exec(dialer.out);
        return found ? Number(found[1]) : null;
    };
    return {
        opened: /^open /m.test(dialer.out),
        protocol: /^open protocol=(.*)$/m.exec(dialer.out)?.[1],
        rtt: number('rtt', 'us'),
        right: number('echoes', 'right'),
        code: number('end', 'code'),
        cause: number('end', 'cause'),
        reason: /^end .* reason=(.*)$/m.exec(dialer.out)?.[1],
    };
}

const echo = (ws) =>
    ws.on('message', (data, binary) => ws.send(data, { binary }));

const closed = (ws) => new Promise((resolve) => ws.on('close',
    (code, reason) => resolve({ code, reason: reason.toString() })));

const facts = {};

facts['echoes of every size and both kinds are right'] = async (flags) => {
    const server = await listen();
    server.on('connection', echo);
    try {
        for (const size of [0, 1, 2, 3, 4, 7, 125, 126, 127, 1000, 65535])
            for (const text of [0, 1]) {
                const dialer = await run('dialer',
                    [server.url, '--size', size, '--text', text, ...flags]);
                assert.equal(dialer.code, 0, dialer.out);
                assert.equal(told(dialer).right, 10);
                assert.equal(told(dialer).code, 1000);
                assert.equal(told(dialer).cause, CAUSE.app);
            }
    } finally {
        await server.stop();
    }
};

facts['1 MiB of each kind, each way'] = async (flags) => {
    const server = await listen();
    server.on('connection', echo);
    try {
        for (const text of [0, 1]) {
            const dialer = await run('dialer',
                [server.url, '--size', 1 << 20, '--text', text, '--messages',
                 4, '--window', 1, '--max-message', 1 << 20, ...flags]);
            assert.equal(dialer.code, 0, dialer.out);
            assert.equal(told(dialer).right, 4);
        }
    } finally {
        await server.stop();
    }
};

facts['a hundred sessions of one loop'] = async (flags) => {
    const server = await listen();
    server.on('connection', echo);
    try {
        const dialer = await run('dialer', [server.url, '--sessions', 100,
                                            '--messages', 50, ...flags]);
        assert.equal(dialer.code, 0, dialer.out);
        assert.equal(dialer.out.match(/^echoes right=50 wrong=0/gm).length,
                     100);
    } finally {
        await server.stop();
    }
};

facts['the request is whole, and each has a key of its own'] =
    async (flags) => {
        const requests = [];
        const server = await listen();
        server.on('connection', (ws, request) => {
            requests.push(request);
            echo(ws);
        });
        try {
            const dialer = await run('dialer',
                [server.url, '--sessions', 3, '--headers', 'X-Token: 7\r\n',
                 ...flags]);
            assert.equal(dialer.code, 0, dialer.out);
        } finally {
            await server.stop();
        }
        assert.equal(requests.length, 3);
        for (const { url, method, httpVersion, headers } of requests) {
            assert.equal(url, '/here?q=1');
            assert.equal(method, 'GET');
            assert.equal(httpVersion, '1.1');
            assert.equal(headers.host, server.url.split('/')[2]);
            assert.equal(headers['x-token'], '7');
            assert.equal(headers['sec-websocket-version'], '13');
            assert.equal(headers['sec-websocket-extensions'], undefined);
        }
        const keys = requests.map((r) => r.headers['sec-websocket-key']);
        assert.equal(new Set(keys).size, 3);
        keys.forEach((key) =>
            assert.equal(Buffer.from(key, 'base64').length, 16));
    };

facts['the sub-protocol that the server chose is told'] = async (flags) => {
    const server = await listen({ handleProtocols: () => 'two' });
    server.on('connection', echo);
    try {
        const dialer = await run('dialer',
            [server.url, '--protocols', 'one, two', ...flags]);
        assert.equal(dialer.code, 0, dialer.out);
        assert.equal(told(dialer).protocol, 'two');
    } finally {
        await server.stop();
    }
};

facts['a sub-protocol that was not offered is refused'] = async (flags) => {
    const server = await listen({ handleProtocols: () => 'three' });
    try {
        const dialer = await run('dialer',
            [server.url, '--protocols', 'one, two', ...flags]);
        assert.equal(dialer.code, 1, dialer.out);
        assert.equal(told(dialer).opened, false);
        assert.equal(told(dialer).code, 1006);
    } finally {
        await server.stop();
    }
};

facts['the code and the reason of a close by the server are told'] =
    async (flags) => {
        const server = await listen();
        let end;
        try {
            for (const code of [1000, 1001, 1008, 1011, 1013, 3000, 4000,
                                4999]) {
                server.once('connection', (ws) => {
                    end = closed(ws);
                    ws.close(code, `because ${code}`);
                });
                const dialer = await run('dialer', [server.url, '--messages',
                                                    0, '--wait', 1, ...flags]);
                assert.equal(told(dialer).code, code);
                assert.equal(told(dialer).cause, CAUSE.peer);
                assert.equal(told(dialer).reason, `because ${code}`);
                assert.equal((await within(5000, 'close', end)).code, code);
            }
            server.once('connection', (ws) => ws.close());
            const dialer = await run('dialer', [server.url, '--wait', 1,
                                                ...flags]);
            assert.equal(told(dialer).code, 1005);
            assert.equal(told(dialer).cause, CAUSE.peer);
        } finally {
            await server.stop();
        }
    };

facts['the code and the reason of our close reach the server'] =
    async (flags) => {
        const server = await listen();
        try {
            for (const [code, reason] of [[1000, ''], [1001, 'going'],
                                          [3000, 'x'.repeat(123)],
                                          [4321, 'ende gut, ü']]) {
                const end = new Promise((resolve) =>
                    server.once('connection', (ws) => {
                        echo(ws);
                        resolve(closed(ws));
                    }));
                const dialer = await run('dialer',
                    [server.url, '--code', code, '--reason', reason,
                     ...flags]);
                assert.equal(dialer.code, 0, dialer.out);
                assert.deepEqual(await within(5000, 'close', end),
                                 { code, reason });
                assert.equal(told(dialer).code, code);
                assert.equal(told(dialer).cause, CAUSE.app);
            }
        } finally {
            await server.stop();
        }
    };

facts['a line that just goes is 1006'] = async (flags) => {
    const server = await listen();
    server.on('connection', (ws) => ws.terminate());
    try {
        const dialer = await run('dialer', [server.url, '--wait', 1,
                                            '--messages', 0, ...flags]);
        assert.equal(told(dialer).opened, true);
        assert.equal(told(dialer).code, 1006);
    } finally {
        await server.stop();
    }
};

facts['a refusal ends the session without an open'] = async (flags) => {
    for (const status of [401, 404, 503]) {
        const server = await listen({
            verifyClient: (info, answer) => answer(false, status),
        });
        try {
            const dialer = await run('dialer', [server.url, ...flags]);
            assert.equal(dialer.code, 1, dialer.out);
            assert.equal(told(dialer).opened, false);
            assert.equal(told(dialer).code, 1006);
            assert.match(told(dialer).reason, new RegExp(status));
        } finally {
            await server.stop();
        }
    }
};

facts['nobody listening ends the session without an open'] =
    async (flags) => {
        const port = await freePort();
        const dialer = await run('dialer', [`ws://127.0.0.1:${port}/`,
                                            ...flags]);
        assert.equal(dialer.code, 1, dialer.out);
        assert.equal(told(dialer).opened, false);
        assert.equal(told(dialer).code, 1006);
        assert.equal(told(dialer).cause, CAUSE.error);
    };

facts['ten pings of the server get ten pongs'] = async (flags) => {
    const server = await listen();
    const pongs = [];
    server.on('connection', (ws) => {
        ws.on('pong', (data) => {
            pongs.push(data.toString());
            if (pongs.length === 10)
                ws.close(1000);
        });
        for (let i = 0; i < 10; i++)
            ws.ping(`ping ${i}`);
    });
    try {
        const dialer = await run('dialer', [server.url, '--messages', 0,
                                            '--wait', 1, ...flags]);
        assert.equal(dialer.code, 0, dialer.out);
        assert.deepEqual(pongs, Array.from({ length: 10 },
                                           (_, i) => `ping ${i}`));
    } finally {
        await server.stop();
    }
};

facts['our pings are answered and give the round-trip time'] =
    async (flags) => {
        const server = await listen();
        let pings = 0;
        server.on('connection', (ws) => ws.on('ping', () => {
            if (++pings === 3)
                ws.close(1000);
        }));
        try {
            const dialer = await run('dialer',
                [server.url, '--messages', 0, '--wait', 1, '--ping-ms', 40,
                 ...flags]);
            assert.equal(dialer.code, 0, dialer.out);
            assert.equal(told(dialer).code, 1000);
            assert.ok(told(dialer).rtt > 0, dialer.out);
            assert.ok(told(dialer).rtt < 1e6, dialer.out);
        } finally {
            await server.stop();
        }
    };

facts['a server that answers no ping is given up with 4002'] =
    async (flags) => {
        const server = await listen({ autoPong: false });
        let end;
        server.on('connection', (ws) => (end = closed(ws)));
        try {
            const dialer = await run('dialer',
                [server.url, '--messages', 0, '--wait', 1, '--ping-ms', 40,
                 ...flags]);
            assert.equal(told(dialer).code, 4002);
            assert.equal(told(dialer).cause, CAUSE.timeout);
            assert.equal((await within(5000, 'close', end)).code, 4002);
        } finally {
            await server.stop();
        }
    };

facts['the dialled side as the echo: kinds, sizes, fragments, pings'] =
    async (flags) => {
        const server = await listen();
        const sent = [];
        const got = [];
        const order = [];
        server.on('connection', (ws) => {
            const say = (data, options) => {
                sent.push(data);
                ws.send(data, options);
            };
            ws.on('message', (data, binary) => {
                got.push(binary ? data : data.toString());
                order.push('message');
                if (got.length === sent.length)
                    ws.close(1000);
            });
            ws.on('pong', () => order.push('pong'));
            say('hello');
            say('');
            say(Buffer.alloc(0));
            say(words(70000));
            say(bytes(70000));
            for (let i = 0; i < 200; i++)
                say(i % 2 ? `text ${i}` : bytes(i, i));
            ws.send('frag', { fin: false });
            ws.send('men', { fin: false });
            ws.ping();
            ws.send('ts', { fin: true });
            sent.push('fragments');
        });
        try {
            const dialer = await run('dialer',
                [server.url, '--echo', 1, '--max-message', 100000, ...flags]);
            assert.equal(dialer.code, 0, dialer.out);
            assert.deepEqual(got, sent);
            assert.equal(order.length, sent.length + 1);
            assert.ok(order.indexOf('pong') < order.length - 1);
        } finally {
            await server.stop();
        }
    };

facts['what breaks the rules is closed with its code'] = async (flags) => {
    const server = await listen();
    const wrongs = [
        ['a text that is not UTF-8', 1007,
         (ws) => ws.send(Buffer.from([0xff]), { binary: false })],
        ['a message above the limit', 1009, (ws) => ws.send(bytes(1001))],
        ['a masked frame', 1002, (ws) => ws._socket.write(
            Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x61]))],
        ['a reserved bit', 1002,
         (ws) => ws._socket.write(Buffer.from([0xc1, 0]))],
        ['an unknown opcode', 1002,
         (ws) => ws._socket.write(Buffer.from([0x83, 0]))],
    ];
    try {
        for (const [name, code, wrong] of wrongs) {
            const end = new Promise((resolve) =>
                server.once('connection', (ws) => {
                    resolve(closed(ws));
                    wrong(ws);
                }));
            const dialer = await run('dialer',
                [server.url, '--echo', 1, '--max-message', 1000, ...flags]);
            assert.equal(told(dialer).right, 0, name);
            assert.equal(told(dialer).code, code, name);
            assert.equal((await within(5000, name, end)).code, code, name);
        }
    } finally {
        await server.stop();
    }
};

facts['a local socket'] = async (flags) => {
    const file = path.join(os.tmpdir(), `rtnet-peers-${process.pid}.sock`);
    rmSync(file, { force: true });
    const server = await listen({}, { path: file });
    server.on('connection', echo);
    try {
        const dialer = await run('dialer', [server.url, ...flags]);
        assert.equal(dialer.code, 0, dialer.out);
        assert.equal(told(dialer).right, 10);
    } finally {
        await server.stop();
    }
};

facts['an answer byte by byte, and a frame in the packet of the 101'] =
    async (flags) => {
        const slow = await bare((socket) => onRequest(socket,
            async (_, accept) => {
                socket.setNoDelay(true);
                for (const c of upgraded(accept)) {
                    socket.write(c);
                    await new Promise(setImmediate);
                }
                socket.write(Buffer.from([0x88, 2, 0x03, 0xe8]));
            }));
        const quick = await bare((socket) => onRequest(socket, (_, accept) =>
            socket.write(Buffer.concat([
                Buffer.from(upgraded(accept)),
                Buffer.from([0x81, 2, 0x68, 0x69, 0x88, 2, 0x03, 0xe9]),
            ]))));
        try {
            const first = await run('dialer', [slow.url, '--echo', 1,
                                               ...flags]);
            assert.equal(told(first).opened, true, first.out);
            assert.equal(told(first).code, 1000);
            const second = await run('dialer', [quick.url, '--echo', 1,
                                                ...flags]);
            assert.equal(told(second).opened, true, second.out);
            assert.equal(told(second).right, 1);
            assert.equal(told(second).code, 1001);
        } finally {
            await slow.stop();
            await quick.stop();
        }
    };

facts['an answer that is no upgrade opens nothing'] = async (flags) => {
    const answers = {
        'another key': () => upgraded(acceptOf('AAAAAAAAAAAAAAAAAAAAAA==')),
        'no accept': (accept) => upgraded(accept).replace(
            /Sec-WebSocket-Accept.*\r\n/, ''),
        'no upgrade': (accept) => upgraded(accept).replace(
            /Upgrade: w.*\r\n/, ''),
        'status 200': (accept) => upgraded(accept).replace(
            '101 Switching Protocols', '200 OK'),
        'an extension nobody offered': (accept) => upgraded(accept,
            'Sec-WebSocket-Extensions: permessage-deflate\r\n'),
        'a sub-protocol nobody offered': (accept) => upgraded(accept,
            'Sec-WebSocket-Protocol: chat\r\n'),
        'not HTTP': () => 'SSH-2.0-OpenSSH_9.2\r\n\r\n',
        'endless headers': (accept) => upgraded(accept,
            `X: ${'y'.repeat(20000)}\r\n`),
    };
    for (const [name, answer] of Object.entries(answers)) {
        const server = await bare((socket) => onRequest(socket,
            (_, accept) => socket.write(answer(accept))));
        try {
            const dialer = await run('dialer', [server.url, ...flags]);
            assert.equal(dialer.code, 1, name + dialer.out);
            assert.equal(told(dialer).opened, false, name);
            assert.equal(told(dialer).code, 1006, name);
        } finally {
            await server.stop();
        }
    }
};

facts['a server that never answers is given up in time'] = async (flags) => {
    const server = await bare(() => {});
    const begin = Date.now();
    try {
        const dialer = await run('dialer',
            [server.url, '--handshake-ms', 300, ...flags]);
        const took = Date.now() - begin;
        assert.equal(dialer.code, 1, dialer.out);
        assert.equal(told(dialer).opened, false);
        assert.equal(told(dialer).code, 1006);
        assert.equal(told(dialer).cause, CAUSE.timeout);
        assert.ok(took >= 300 && took < 3000, `${took} ms`);
    } finally {
        await server.stop();
    }
};

facts['a server that does not read for a while gets it all'] =
    async (flags) => {
        const server = await listen();
        server.on('connection', (ws) => {
            echo(ws);
            ws.pause();
            setTimeout(() => ws.resume(), 400);
        });
        try {
            const dialer = await run('dialer',
                [server.url, '--messages', 60, '--size', 15000, '--window',
                 60, ...flags]);
            assert.equal(dialer.code, 0, dialer.out);
            assert.equal(told(dialer).right, 60);
        } finally {
            await server.stop();
        }
    };

for (const backend of backends)
    for (const [name, fact] of Object.entries(facts))
        test(`${backend}: ${name}`, () => fact(['--backend', backend]), 60000);

test('a wrong flag is told', async () => {
    const dialer = await run('dialer', ['ws://127.0.0.1:1/', '--no-such', 1]);
    assert.equal(dialer.code, 2);
    assert.match(dialer.err, /usage/);
});

await done();
