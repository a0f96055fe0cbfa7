// examples/rtnet.js against a scripted server: each row of the client's state
// table, each violation, each close code.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import util from 'node:util';
import { WebSocketServer, WebSocket } from 'ws';
import { connect } from '../../examples/rtnet.js';
import { done, root, sleep, test as add, until, within } from './lib.mjs';

// ONLY=word runs the cases whose names have it.
const test = (name, ...rest) =>
    name.includes(process.env.ONLY ?? '') && add(name, ...rest);

const TOKENS = ['AAAAAAAAAAAAAAAAAAAAAA', 'BBBBBBBBBBBBBBBBBBBBBQ',
                'CCCCCCCCCCCCCCCCCCCC-g', 'DDDDDDDDDDDDDDDDDDDD_w'];
const [T1, T2, T3] = TOKENS;
const NEW = `w${T1} me 0 0 new 15000`;

// ---- the scripted server ----

// One connection as the server sees it; next() is what came, in order: texts
// as they are, binary ones as arrays, and a close as a number.
class Peer {
    came = [];
    waiting = [];

    constructor(ws) {
        this.ws = ws;
        ws.on('message', (data, binary) =>
            this.put(binary ? [...data] : data.toString()));
        ws.on('close', (code) => this.put(code));
        ws.on('error', () => {});
    }

    put(event) {
        if (this.waiting.length)
            this.waiting.shift()(event);
        else
            this.came.push(event);
    }

    next(ms = 2000) {
        if (this.came.length)
            return Promise.resolve(this.came.shift());
        return within(ms, 'a message of the client',
                      new Promise((resolve) => this.waiting.push(resolve)));
    }

    async expect(...events) {
        for (const event of events)
            assert.deepEqual(await this.next(), event);
    }

    async silent(ms = 60) {
        await sleep(ms);
        assert.deepEqual(this.came, []);
    }

    send(...messages) {
        messages.forEach((message) => this.ws.send(message));
    }
}

async function mock(options = {}) {
    const server = http.createServer();
    const peers = [], waiting = [];
    const wss = new WebSocketServer({
        server, perMessageDeflate: false,
        handleProtocols: (offered) => offered.has('rtnet.1') && 'rtnet.1',
        ...options,
    });
    wss.on('connection', (ws, request) => {
        const peer = new Peer(ws);
        peer.request = request;
        if (waiting.length)
            waiting.shift()(peer);
        else
            peers.push(peer);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
        server, peers,
        url: `ws://127.0.0.1:${server.address().port}/`,
        accept: (ms = 2000) => peers.length ? Promise.resolve(peers.shift()) :
            within(ms, 'a connection', new Promise((resolve) =>
                waiting.push(resolve))),
        async stop() {
            wss.clients.forEach((ws) => ws.terminate());
            server.close();
            server.closeAllConnections();
            await once(server, 'close');
        },
    };
}

// A client that notes what it is told: [name, ...values] in order.
function client(url, more = {}) {
    const told = [];
    const handlers = Object.fromEntries(
        ['open', 'message', 'away', 'back', 'close', 'writable', 'retry'].map(
            (name) => [name, (...values) => told.push([name, ...values])]));
    const self = connect(url, { WebSocket, minDelay: 2, maxDelay: 16,
                                ...handlers, ...more });
    const names = () => told.map(([name]) => name)
        .filter((name) => name !== 'retry');
    return { c: self, told, names,
             last: (name) => told.filter(([one]) => one === name).at(-1),
             see: (...all) => until(2000, all.join(), () =>
                 names().join() === all.join()) };
}

// run(server, client) between the start and the end of both.
async function scripted(play, more, options) {
    const server = await mock(options);
    const one = client(server.url, more);
    try {
        await play(server, one);
    } finally {
        one.c.close();
        await server.stop();
    }
}

// Until the client has read all that was sent to it.
async function heard(peer, { told }) {
    const before = told.length;
    peer.send('mheard');
    await until(2000, 'heard', () =>
        told.slice(before).some(([, data]) => data === 'heard'));
}

// The same with an open session, whose token is T1.
const opened = (play, more) => scripted(async (server, one) => {
    const peer = await server.accept();
    await peer.expect('h');
    peer.send(NEW);
    await peer.expect('a0');
    await one.see('open');
    await play(peer, server, one);
}, more);

const losses = {
    reset: (peer) => peer.ws._socket.resetAndDestroy(),
    end: (peer) => peer.ws.terminate(),
};

// ---- opening ----

test('it offers rtnet.1, says h, and then nothing until w', () =>
    scripted(async (server, { c, names, see }) => {
        const peer = await server.accept();
        assert.equal(peer.request.headers['sec-websocket-protocol'],
                     'rtnet.1');
        await peer.expect('h');
        assert.equal(c.send('early'), false);
        await peer.silent(150);
        assert.equal(c.state, 'connecting');
        assert.deepEqual(names(), []);
        peer.send(NEW);
        await peer.expect('a0');
        await see('open');
        assert.equal(c.state, 'open');
        assert.equal(c.id, 'me');
        await peer.silent();
    }));

test('text and binary go both ways, counted and uncounted', () =>
    opened(async (peer, server, { c, told }) => {
        assert.equal(c.send('é'), true);
        assert.equal(c.send(Uint8Array.of(1, 2)), true);
        assert.equal(c.send(Uint8Array.of(9, 3, 4, 9).subarray(1, 3)), true);
        assert.equal(c.send(Uint8Array.of(5).buffer), true);
        assert.equal(c.send(''), true);
        assert.equal(c.send('x', { droppable: true }), true);
        await peer.expect('mé', [109, 1, 2], [109, 3, 4], [109, 5], 'm', 'ux');
        peer.send('mä', Buffer.from('mab'), 'uñ', Buffer.from('u'), 'm');
        await until(2000, 'five', () => told.length === 6);
        const values = told.slice(1).map(([name, data]) => {
            assert.equal(name, 'message');
            return typeof data === 'string' ? data :
                [...new Uint8Array(data)];
        });
        assert.deepEqual(values, ['ä', [97, 98], 'ñ', [], '']);
        await peer.expect('a3'); // the u's do not count
    }));

test('what is sent was copied', () =>
    opened(async (peer, server, { c, see }) => {
        const data = Uint8Array.of(1, 2, 3);
        losses.reset(peer);
        await see('open', 'away');
        c.send(data);
        data.fill(0);
        const next = await server.accept();
        await next.expect(`h${T1} 0 1`);
        next.send(`w${T2} me 0 0 resumed 15000`);
        await next.expect('a0', [109, 1, 2, 3]);
    }));

// ---- acknowledgements and silence ----

test('an a goes after 16 messages at once', () =>
    opened(async (peer) => {
        const start = performance.now();
        for (let i = 0; i < 40; i++)
            peer.send(`m${i}`, 'u');
        await peer.expect('a16', 'a32');
        assert.ok(performance.now() - start < 450);
        await peer.expect('a40');
        assert.ok(performance.now() - start > 400);
        await peer.silent(700);
    }));

test('an a goes after 16 KiB at once, as UTF-8', () =>
    opened(async (peer) => {
        const start = performance.now();
        peer.send(`m${'é'.repeat(8191)}`);
        peer.send('m1');
        await peer.silent(200);
        peer.send('m2');
        await peer.expect('a3');
        peer.send(Buffer.alloc(16385, 'm'));
        await peer.expect('a4');
        assert.ok(performance.now() - start < 450);
    }));

test('an a goes 500 ms after the first', () =>
    opened(async (peer) => {
        const start = performance.now();
        peer.send('m');
        await sleep(300);
        peer.send('m');
        await peer.expect('a2');
        const ms = performance.now() - start;
        assert.ok(ms > 480 && ms < 1500, `${ms} ms`);
    }));

test('silent for ping ms, it says a', () => scripted(async (server) => {
    const peer = await server.accept();
    await peer.expect('h');
    peer.send(`w${T1} me 0 0 new 150`);
    await peer.expect('a0');
    const start = performance.now();
    await peer.expect('a0', 'a0', 'a0');
    const ms = performance.now() - start;
    assert.ok(ms > 420 && ms < 2000, `${ms} ms`);
}));

test('ping 0 is no ping, and the longest one is one', async () => {
    for (const ping of [0, 9007199254740991])
        await scripted(async (server, { see }) => {
            const peer = await server.accept();
            await peer.expect('h');
            peer.send(`w${T1} me 0 0 new ${ping}`);
            await peer.expect('a0');
            await see('open');
            peer.send('m');
            await peer.expect('a1');
            await peer.silent(200);
        });
});

test('it gives a silent line up, never with 1000, and hears it no more', () =>
    scripted(async (server, { c, told, see }) => {
        const old = await server.accept();
        await old.expect('h');
        old.send(`w${T1} me 0 0 new 100`);
        await see('open');
        c.send('x');
        const start = performance.now();
        const peer = await server.accept(8000);
        const ms = performance.now() - start;
        assert.ok(ms > 5100 && ms < 7500, `${ms} ms`);
        old.send('mlate');
        assert.equal(old.came.at(-1) === 4000 || await until(
            2000, 'the close', () => old.came.at(-1) === 4000), true);
        await peer.expect(`h${T1} 0 1`);
        peer.send(`w${T2} me 0 0 resumed 100`);
        await peer.expect('a0', 'mx');
        await see('open', 'away', 'back');
        assert.deepEqual(told.filter(([name]) => name === 'message'), []);
    }), 20000);

test('messages, even u, are life', () => scripted(async (server, { see }) => {
    const peer = await server.accept();
    await peer.expect('h');
    peer.send(`w${T1} me 0 0 new 100`);
    await see('open');
    const timer = setInterval(() => peer.send('u'), 1000);
    await sleep(6500);
    clearInterval(timer);
    assert.equal(peer.ws.readyState, WebSocket.OPEN);
}), 20000);

test('no w within 5 s: it tries anew', () =>
    scripted(async (server, { names }) => {
        const old = await server.accept();
        await old.expect('h');
        const start = performance.now();
        const peer = await server.accept(8000);
        const ms = performance.now() - start;
        assert.ok(ms > 4900 && ms < 7500, `${ms} ms`);
        await old.expect(4000);
        await peer.expect('h');
        assert.deepEqual(names(), []);
    }), 20000);

// ---- coming back ----

for (const [how, lose] of Object.entries(losses))
    test(`resumed after a ${how}: first a, then what is missing`, () =>
        opened(async (peer, server, { c, see, told }) => {
            c.send('1');
            c.send('2');
            await peer.expect('m1', 'm2');
            peer.send('mA', 'mB', 'mC');
            await see('open', 'message', 'message', 'message');
            lose(peer);
            await see('open', 'message', 'message', 'message', 'away');
            assert.equal(c.state, 'away');
            assert.equal(c.send('3'), true);
            assert.equal(c.send('u', { droppable: true }), false);
            const next = await server.accept();
            await next.expect(`h${T1} 3 1`);
            await next.silent();
            next.send(`w${T2} me 1 3 resumed 15000`, 'mD');
            await next.expect('a3', 'm2', 'm3');
            c.send('4');
            await next.expect('m4', 'a4');
            assert.deepEqual(told.find(([name]) => name === 'back'),
                             ['back', 0]);
            assert.deepEqual(told.at(-1), ['message', 'D']);
            next.send('a4');
            losses.reset(next);
            const third = await server.accept();
            await third.expect(`h${T2} 4 1`); // the new token, a new count
        }));

test('an attempt whose w is lost names the same token, try + 1', () =>
    opened(async (peer, server, { see }) => {
        losses.reset(peer);
        for (const attempt of [1, 2, 3]) {
            const next = await server.accept();
            await next.expect(`h${T1} 0 ${attempt}`);
            losses.reset(next);
        }
        const next = await server.accept();
        await next.expect(`h${T1} 0 4`);
        next.send(`w${T2} me 0 0 resumed 15000`);
        await next.expect('a0');
        await see('open', 'away', 'back');
    }));

test('sends from the handler of back come after the kept ones', () => {
    let c;
    return scripted(async (server, one) => {
        ({ c } = one);
        const peer = await server.accept();
        peer.send(NEW);
        await peer.expect('h', 'a0');
        c.send('1');
        losses.end(peer);
        await until(2000, 'away', () => c.state === 'away');
        c.send('2');
        const next = await server.accept();
        next.send(`w${T2} me 0 0 resumed 15000`);
        await next.expect(`h${T1} 0 1`, 'a0', 'm1', 'm2', 'mback');
    }, { back: () => c.send('back') });
});

test('a gap: the loss is told, counting goes on behind it', () =>
    opened(async (peer, server, { c, told, see }) => {
        c.send('1');
        peer.send('mA');
        await see('open', 'message');
        losses.reset(peer);
        const next = await server.accept();
        await next.expect(`h${T1} 1 1`);
        next.send(`w${T2} me 0 7 gap 15000`, 'm8');
        await next.expect('a7', 'm1', 'a8');
        assert.deepEqual(told.filter(([name]) => name === 'back'),
                         [['back', 6]]);
    }));

test('a new session where there was one: 4503, nothing is replayed', () =>
    opened(async (peer, server, { c, told, see }) => {
        c.send('1');
        c.send('2');
        peer.send('a1', 'mA');
        await see('open', 'message');
        losses.reset(peer);
        await see('open', 'message', 'away');
        c.send('3');
        const next = await server.accept();
        await next.expect(`h${T1} 1 1`);
        next.send(`w${T3} you 0 0 new 15000`);
        await next.expect('a0');
        await see('open', 'message', 'away', 'close', 'open');
        const [, end] = told.find(([name]) => name === 'close');
        assert.deepEqual([end.code, end.lost, end.final], [4503, 2, false]);
        assert.equal(c.id, 'you');
        await next.silent();
        c.send('fresh');
        await next.expect('mfresh');
        next.send('a1');
        losses.reset(next);
        const third = await server.accept();
        await third.expect(`h${T3} 0 1`);
    }));

test('close() in the handler of a close ends the new session, too', () => {
    let one;
    return opened(async (peer, server, it) => {
        one = it;
        losses.reset(peer);
        const next = await server.accept();
        next.send(`w${T3} you 0 0 new 15000`);
        await next.expect(`h${T1} 0 1`, 'a0', 1000);
        await sleep(50);
        assert.deepEqual(it.names(), ['open', 'away']);
        assert.equal(it.c.state, 'closed');
    }, { close: () => one.c.close() });
});

test('without a token (-) a session ends with its socket', () =>
    scripted(async (server, { c, told, see }) => {
        const peer = await server.accept();
        peer.send('w- me 0 0 new 15000');
        await peer.expect('h', 'a0');
        c.send('1');
        await peer.expect('m1');
        losses.reset(peer);
        await see('open', 'close');
        const [, end] = told.find(([name]) => name === 'close');
        assert.deepEqual([end.code, end.lost, end.final], [1006, 1, false]);
        const next = await server.accept();
        await next.expect('h');
    }));

// ---- violations ----

// Any of these is final: the session ends, here and there, for ever.
async function isViolation(peer, server, { c, told, names }, lost = 0) {
    await until(2000, 'the end', () => c.state === 'closed');
    await sleep(0);
    const [, end] = told.filter(([name]) => name === 'close').at(-1);
    assert.deepEqual([end.code, end.lost, end.final], [1002, lost, true]);
    assert.equal(names().filter((name) => name === 'close').length, 1);
    await until(2000, 'the close', () => peer.came.at(-1) === 1000);
    await sleep(40);
    assert.equal(server.peers.length, 0, 'it came again');
    assert.equal(c.send('x'), false);
}

const binary = (text) => Buffer.from(text);
const badWelcomes = [
    'm', 'mx', 'ux', 'a0', 'h', 'q', '', binary(''), binary('m1'),
    binary(NEW), 'w', NEW + ' ', NEW + '\n', ' ' + NEW, NEW + ' 1',
    NEW.replace(' ', '  '), NEW.replace('new', 'old'),
    NEW.replace('new', 'NEW'), NEW.replace('15000', '-1'),
    NEW.replace('15000', '015'), NEW.replace('15000', '1e3'),
    NEW.replace('15000', ''), NEW.replace('15000', '9007199254740992'),
    NEW.replace('15000', '10000000000000000'), NEW.replace('me', ''),
    NEW.replace('me', 'x'.repeat(23)), NEW.replace('me', 'm.e'),
    NEW.replace('0 0', '1 0'), NEW.replace('0 0', '0 1'),
    NEW.replace('0 0', '00 0'), NEW.replace('0 0', '0'),
    NEW.replace(T1, T1.slice(1)), NEW.replace(T1, T1 + 'A'),
    NEW.replace(T1, T1.slice(0, 21) + 'B'), // not the only spelling
    NEW.replace(T1, T1.slice(0, 20) + '+A'), NEW.replace(T1, ''),
    `w${T1} me 0 0 resumed 15000`, `w${T1} me 0 1 gap 15000`,
];

test('every bad answer to the first h is a violation', async () => {
    for (const bad of badWelcomes)
        await scripted(async (server, one) => {
            const peer = await server.accept();
            await peer.expect('h');
            peer.send(bad);
            await isViolation(peer, server, one).catch((error) => {
                throw new Error(`${bad}: ${error.message}`);
            });
            assert.deepEqual(one.names(), ['close']);
        });
}, 60000);

// The client has sent 3, of which 1 is acknowledged, and received 2.
const badResumes = [
    `w${T2} you 2 2 resumed 15000`, `w${T2} me 0 2 resumed 15000`,
    `w${T2} me 4 2 resumed 15000`, `w${T2} me 2 1 resumed 15000`,
    `w${T2} me 2 3 resumed 15000`, `w${T2} me 2 2 gap 15000`,
    `w${T2} me 2 1 gap 15000`, `w${T2} me 4 5 gap 15000`,
    `w${T2} me 0 5 gap 15000`, `w${T2} you 2 5 gap 15000`,
    'w- me 2 2 resumed 15000', 'w- me 2 5 gap 15000',
    `w${T2} me 2 9007199254740992 gap 15000`, `w${T2} me 2 2 new 15000`,
    `w${T2} me 0 2 new 15000`, `w${T2} me 2 2 resumed`, 'mx', 'a1', '',
];

const kept = (play) => opened(async (peer, server, one) => {
    ['1', '2', '3'].forEach((data) => one.c.send(data));
    await peer.expect('m1', 'm2', 'm3');
    peer.send('a1', 'mA', 'mB');
    await one.see('open', 'message', 'message');
    losses.reset(peer);
    await one.see('open', 'message', 'message', 'away');
    const next = await server.accept();
    await next.expect(`h${T1} 2 1`);
    await play(next, server, one);
});

test('every bad answer to a resuming h is a violation', async () => {
    for (const bad of badResumes)
        await kept(async (peer, server, one) => {
            peer.send(bad);
            await isViolation(peer, server, one, 2).catch((error) => {
                throw new Error(`${bad}: ${error.message}`);
            });
        });
}, 60000);

test('the good neighbours of the bad answers are taken', async () => {
    const rest = { 1: ['m2', 'm3'], 2: ['m3'], 3: [] };
    for (const received of [1, 2, 3])
        for (const [base, status] of [[2, 'resumed'], [3, 'gap'],
                                      [9007199254740990, 'gap']])
            await kept(async (peer, server, { c, told, see }) => {
                peer.send(`w${T2} me ${received} ${base} ${status} 15000`);
                await peer.expect(`a${base}`, ...rest[received]);
                await see('open', 'message', 'message', 'away', 'back');
                assert.equal(c.state, 'open');
                c.close();
                await sleep(0);
                assert.equal(told.at(-1)[1].lost, 3 - received);
            });
}, 30000);

// Sent 3, 1 acknowledged, received 2, open.
const badWhenOpen = [
    NEW, `w${T2} me 3 2 resumed 15000`, 'h', `h${T1} 0 1`, 'a0', 'a4', 'a',
    'a-1', 'a01', 'a1 ', ' a1', 'a1\n', 'a 1', 'a1.0', 'a0x1', 'q', 'M1', 'U',
    'p', 'c1000', '', binary(''), binary('a1'), binary('w'), binary('M1'),
    binary('\0'), 'a9007199254740992', 'a10000000000000000',
];

test('everything else in an open session is a violation', async () => {
    for (const bad of badWhenOpen)
        await opened(async (peer, server, one) => {
            ['1', '2', '3'].forEach((data) => one.c.send(data));
            await peer.expect('m1', 'm2', 'm3');
            peer.send('a1', 'mA', 'mB');
            await one.see('open', 'message', 'message');
            peer.send(bad, 'mno');
            await isViolation(peer, server, one, 2).catch((error) => {
                throw new Error(`${bad}: ${error.message}`);
            });
            assert.deepEqual(one.names(),
                             ['open', 'message', 'message', 'close']);
        });
}, 60000);

test('a repeated a is none, and what it names is forgotten', () =>
    opened(async (peer, server, one) => {
        const { c, told } = one;
        c.send('1');
        c.send('2');
        await peer.expect('m1', 'm2');
        peer.send('a0', 'a1', 'a1', 'a2', 'a2');
        await heard(peer, one);
        assert.equal(c.state, 'open');
        c.close();
        await sleep(0);
        assert.equal(told.at(-1)[1].lost, 0);
    }));

// ---- close codes ----

const codes = {
    final: [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3500, 3999, 4500, 4501,
            4502, 4503, 4504, 4999],
    away: [1001, 1005, 1011, 1013, 1014, 3000, 3499, 4000, 4001, 4002, 4003,
           4499],
};
const closeWith = (peer, code, reason) =>
    code === 1005 ? peer.ws.close() : peer.ws.close(code, reason);

test('close codes that are final', async () => {
    for (const code of codes.final)
        await opened(async (peer, server, { c, told, see }) => {
            c.send('1');
            closeWith(peer, code, 'why');
            await see('open', 'close');
            assert.deepEqual(told.at(-1)[1], { code, reason: 'why', lost: 1,
                                               final: true });
            assert.equal(c.state, 'closed');
            await sleep(40);
            assert.equal(server.peers.length, 0);
        });
}, 30000);

test('close codes after which it comes back', async () => {
    for (const code of codes.away)
        await opened(async (peer, server, { c, told, see }) => {
            c.send('1');
            closeWith(peer, code, 'why');
            await see('open', 'away');
            assert.deepEqual(told.find(([name]) => name === 'away'),
                             ['away', code, code === 1005 ? '' : 'why']);
            const next = await server.accept();
            await next.expect(`h${T1} 0 1`);
            // The same once more, while it is away: nothing is told.
            closeWith(next, code, 'why');
            const third = await server.accept();
            await third.expect(`h${T1} 0 2`);
            await see('open', 'away');
        });
}, 30000);

test('final codes are final while away and before it is open', async () => {
    for (const code of codes.final) {
        await opened(async (peer, server, { told, see }) => {
            losses.reset(peer);
            const next = await server.accept();
            await next.expect(`h${T1} 0 1`);
            closeWith(next, code, '');
            await see('open', 'away', 'close');
            assert.equal(told.at(-1)[1].final, true);
        });
        await scripted(async (server, { told, see }) => {
            const peer = await server.accept();
            await peer.expect('h');
            closeWith(peer, code, '');
            await see('close');
            assert.deepEqual(told.at(-1)[1], { code, reason: '', lost: 0,
                                               final: true });
        });
    }
}, 30000);

test('1012: the session is over, it connects anew after retry', async () => {
    for (const away of [false, true])
        await opened(async (peer, server, { c, told, see }) => {
            c.send('1');
            if (away)
                losses.reset(peer);
            const last = away ? await server.accept() : peer;
            const start = performance.now();
            last.ws.close(1012, 'retry=200');
            await see(...['open', 'away', 'close'].filter(
                (name) => away || name !== 'away'));
            const end = told.filter(([name]) => name === 'close').at(-1)[1];
            assert.deepEqual([end.code, end.lost, end.final],
                             [1012, 1, false]);
            const next = await server.accept();
            const ms = performance.now() - start;
            assert.ok(ms > 195 && ms < 1500, `${ms} ms`);
            await next.expect('h');
            next.send(`w${T2} you 0 0 new 15000`);
            await next.expect('a0');
            await next.silent();
        });
});

test('retry=<ms> is obeyed, wherever it stands; nonsense is not', async () => {
    const waits = { 'retry=150': 150, 'full, retry=150': 150, 'retry=0': 0,
                    'retry=': 0, 'retry=-5': 0, 'retry=99999999999': 0,
                    'xretry=150': 0 };
    for (const [reason, ms] of Object.entries(waits))
        await opened(async (peer, server, { told }) => {
            peer.ws.close(1013, reason);
            const start = performance.now();
            const next = await server.accept();
            const took = performance.now() - start;
            assert.ok(took > ms - 5 && took < ms + 1500, `${reason}: ${took}`);
            const wait = told.find(([name]) => name === 'retry')[1];
            assert.ok(wait >= ms && wait <= ms + 2, `${reason}: ${wait}`);
            await next.expect(`h${T1} 0 1`);
        });
});

test('4003: it tries again with a greater number', () =>
    opened(async (peer, server) => {
        losses.reset(peer);
        for (let attempt = 1; attempt < 6; attempt++) {
            const next = await server.accept();
            await next.expect(`h${T1} 0 ${attempt}`);
            next.ws.close(4003);
        }
    }));

// ---- waiting ----

// A WebSocket that never connects.
class Dead {
    constructor() {
        setTimeout(() => this.onclose?.({ code: 1006, reason: '' }), 0);
    }

    close() {}
}

async function waitsOf(count, options = {}) {
    const waits = [];
    await new Promise((resolve) => {
        const c = connect('ws://x/', {
            WebSocket: Dead, minDelay: 2, maxDelay: 20, ...options,
            retry: (ms) => waits.push(ms) === count && resolve(c.close()),
        });
    });
    return waits;
}

test('the wait doubles from minDelay to maxDelay, full jitter', async () => {
    const { random } = Math;
    try {
        Math.random = () => 1;
        assert.deepEqual(await waitsOf(6), [2, 4, 8, 16, 20, 20]);
        Math.random = () => 0;
        assert.deepEqual(await waitsOf(4), [0, 0, 0, 0]);
        Math.random = () => 1;
        assert.deepEqual(await waitsOf(1, { minDelay: undefined,
                                            maxDelay: undefined }), [500]);
    } finally {
        Math.random = random;
    }
    const waits = await waitsOf(40, { minDelay: 8, maxDelay: 8 });
    assert.ok(waits.every((ms) => ms >= 0 && ms < 8));
    assert.ok(Math.max(...waits) > 6 && Math.min(...waits) < 2);
});

test('a line that lasted makes the wait short again', () =>
    opened(async (peer, server, { told }) => {
        const { random } = Math;
        Math.random = () => 1;
        try {
            const waits = () => told.filter(([name]) => name === 'retry')
                .map(([, ms]) => ms);
            losses.reset(peer);
            for (let i = 0; i < 3; i++)
                losses.reset(await server.accept());
            const next = await server.accept();
            assert.deepEqual(waits(), [2, 4, 8, 16]);
            next.send(`w${T2} me 0 0 resumed 15000`);
            await sleep(60);
            losses.reset(next);
            await until(2000, 'a wait', () => waits().length === 5);
            assert.equal(waits()[4], 2);
        } finally {
            Math.random = random;
        }
    }));

test('lines that open and do not last make the wait longer', () =>
    opened(async (peer, server, { told }) => {
        const { random } = Math;
        Math.random = () => 1;
        try {
            losses.reset(peer);
            for (const token of [T2, T3]) {
                const next = await server.accept();
                next.send(`w${token} me 0 0 resumed 15000`);
                await next.next();
                await next.expect('a0');
                losses.reset(next);
            }
            await server.accept();
            assert.deepEqual(told.filter(([name]) => name === 'retry')
                .map(([, ms]) => ms), [100, 200, 400]);
        } finally {
            Math.random = random;
        }
    }, { minDelay: 100, maxDelay: 1000 }));

test('retry() tries now, once', () =>
    opened(async (peer, server, { c, told }) => {
        peer.ws.close(1013, 'retry=60000');
        await until(2000, 'a wait', () => told.at(-1)[0] === 'retry');
        c.retry();
        c.retry();
        const next = await server.accept();
        await next.expect(`h${T1} 0 1`);
        await sleep(50);
        assert.equal(server.peers.length, 0);
    }));

test('a refused upgrade: 503 and 429 wait, other 4xx are final', async () => {
    for (const status of [404, 401, 503, 429]) {
        let asked = 0;
        const server = http.createServer();
        server.on('upgrade', (request, socket) => {
            asked++;
            socket.on('error', () => {});
            socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n` +
                       'Connection: close\r\n\r\n');
        });
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
        const one = client(`ws://127.0.0.1:${server.address().port}/`);
        if (status === 503 || status === 429) {
            await until(2000, `attempts after ${status}`, () => asked > 3);
            assert.deepEqual(one.names(), []);
        } else {
            await one.see('close');
            await sleep(50);
            assert.equal(asked, 1);
            const [, end] = one.told.at(-1);
            assert.equal(end.code, 1006);
            assert.match(end.reason, RegExp(status));
            assert.equal(end.final, true);
        }
        one.c.close();
        server.close();
        await once(server, 'close');
    }
});

test('a url that is a function is asked for each attempt', async () => {
    let asked = 0;
    const server = await mock();
    const one = client(() => `${server.url}?n=${++asked}`);
    for (const n of [1, 2, 3]) {
        const peer = await server.accept();
        assert.equal(peer.request.url, `/?n=${n}`);
        losses.reset(peer);
    }
    one.c.close();
    await server.stop();
});

// ---- sending ----

test('a full ring refuses, and tells when half is free: 128 messages', () =>
    opened(async (peer, server, one) => {
        const { c, names } = one;
        const times = () => names().filter((n) => n === 'writable').length;
        for (let i = 0; i < 128; i++)
            assert.equal(c.send(`${i}`), true);
        assert.equal(c.send('no'), false);
        assert.equal(c.send('u', { droppable: true }), true);
        for (let i = 0; i < 128; i++)
            await peer.expect(`m${i}`);
        await peer.expect('uu');
        peer.send('a63');
        await heard(peer, one);
        assert.equal(c.send('no'), false);
        assert.equal(times(), 0);
        peer.send('a64');
        await until(2000, 'writable', () => times() === 1);
        for (let i = 128; i < 192; i++)
            assert.equal(c.send(`${i}`), true);
        assert.equal(c.send('no'), false);
        peer.send('a192');
        await heard(peer, one);
        assert.equal(times(), 2);
    }));

test('a full ring refuses: 64 KiB, of which the type is no part', () =>
    opened(async (peer, server, one) => {
        const { c, names } = one;
        assert.equal(c.send('é'.repeat(16384)), true);
        assert.equal(c.send(new Uint8Array(32767)), true);
        assert.equal(c.send(new Uint8Array(2)), false);
        peer.send('a0');
        await heard(peer, one);
        assert.equal(c.send('x'), false); // not before half is free
        peer.send('a1');
        await until(2000, 'writable', () => names().includes('writable'));
        peer.send('a2');
        await heard(peer, one);
        assert.equal(c.send('x'.repeat(65536)), true);
        assert.equal(c.send(''), true);
        assert.equal(c.send('x'), false);
        assert.throws(() => c.send('x'.repeat(65537)), RangeError);
        assert.throws(() => c.send('é'.repeat(32769)), RangeError);
    }));

test('while it is away the ring fills, refuses, and all of it arrives', () =>
    opened(async (peer, server, { c, names }) => {
        losses.reset(peer);
        await until(2000, 'away', () => c.state === 'away');
        let n = 0;
        while (c.send(`${n}`))
            n++;
        assert.equal(n, 128);
        const next = await server.accept();
        next.send(`w${T2} me 0 0 resumed 15000`);
        await next.expect(`h${T1} 0 1`, 'a0');
        for (let i = 0; i < 128; i++)
            await next.expect(`m${i}`);
        assert.equal(names().includes('writable'), false);
        next.send('a128');
        await until(2000, 'writable', () => names().includes('writable'));
    }));

// ---- closing ----

test('close() flushes, says 1000, and nothing comes after it', () =>
    opened(async (peer, server, { c, told, names }) => {
        c.send('1');
        c.send('bye');
        peer.send('m1', 'm2');
        c.close();
        c.close();
        assert.equal(c.state, 'closed');
        assert.equal(c.send('x'), false);
        await peer.expect('m1', 'mbye', 1000);
        await sleep(40);
        assert.deepEqual(names(), ['open', 'close']);
        assert.deepEqual(told.at(-1)[1], { code: 1000, reason: '', lost: 2,
                                           final: true });
        assert.equal(server.peers.length, 0);
    }));

test('close() in the handler of a message: the next is not delivered', () => {
    let one;
    return opened(async (peer, server, it) => {
        one = it;
        peer.ws._socket.cork();
        peer.send('m1', 'm2', 'm3');
        peer.ws._socket.uncork();
        await peer.expect(4321);
        await it.see('open', 'close');
        assert.deepEqual(it.names(), ['open', 'close']);
        assert.equal(it.told.at(-1)[1].reason, 'enough');
    }, { message: () => one.c.close(4321, 'enough') });
});

test('close() while away is final and local', () =>
    opened(async (peer, server, { c, told, see }) => {
        peer.ws.close(1013, 'retry=200');
        await see('open', 'away');
        c.send('1');
        c.close();
        await see('open', 'away', 'close');
        assert.equal(told.at(-1)[1].lost, 1);
        await sleep(400);
        assert.equal(server.peers.length, 0);
    }));

test('close() before it is open is final', async () => {
    const server = await mock();
    for (const wait of [0, 50]) {
        const { c, told, see } = client(server.url);
        await sleep(wait);
        c.close();
        await see('close');
        assert.deepEqual(told.at(-1)[1], { code: 1000, reason: '', lost: 0,
                                           final: true });
    }
    const came = server.peers.length;
    await sleep(60);
    assert.equal(server.peers.length, came);
    await server.stop();
});

test('a wrong code is refused and changes nothing', () =>
    opened(async (peer, server, { c }) => {
        assert.throws(() => c.close(1005));
        assert.equal(c.state, 'open');
        c.send('still');
        await peer.expect('mstill');
    }));

// ---- the rest ----

// ws and browsers fail a connection when nothing they offered was chosen.
async function passesProbes(server) {
    for (let times = 0; times < 3; times++) {
        const offered = await server.accept();
        assert.equal(offered.request.headers['sec-websocket-protocol'],
                     'rtnet.1');
        await offered.expect(1006);
        if (times < 2)
            await (await server.accept()).expect(1000);
    }
    const peer = await server.accept();
    assert.equal(peer.request.headers['sec-websocket-protocol'], undefined);
    return peer;
}

test('a server that does not choose rtnet.1: plain sessions', () =>
    scripted(async (server, { c, told, see }) => {
        const peer = await passesProbes(server);
        await see('open');
        assert.equal(c.id, '');
        assert.equal(c.rtt, null);
        await peer.silent();
        peer.send('w1', Buffer.from('m2'), '');
        await see('open', 'message', 'message', 'message');
        assert.equal(told[1 + told.findIndex(([n]) => n === 'open')][1], 'w1');
        c.send('x');
        c.send('y', { droppable: true });
        c.send(Uint8Array.of(1));
        await peer.expect('x', 'y', [1]);
        peer.ws.close(1001, 'later');
        await see('open', 'message', 'message', 'message', 'close', 'open');
        const end = told.find(([name]) => name === 'close')[1];
        assert.deepEqual(end, { code: 1001, reason: 'later', lost: 0,
                                final: false });
        const next = await server.accept(); // and at once from now on
        next.ws.close(1000, 'enough');
        await until(2000, 'the end', () => c.state === 'closed');
        assert.equal(told.at(-1)[1].final, true);
    }, {}, { handleProtocols: () => false }));

test('a client that tells what was not chosen needs no proof', () => {
    // As Firefox: nothing chosen is a connection like any other.
    class Lenient extends WebSocket {
        constructor(url) {
            super(url);
        }
    }
    return scripted(async (server, { see }) => {
        const peer = await server.accept();
        await see('open');
        peer.ws.close(1001);
        await server.accept();
        await see('open', 'close', 'open');
    }, { WebSocket: Lenient }, { handleProtocols: () => false });
});

test('first attempts that fail otherwise cost no rtnet.1', async () => {
    // Each that is told here is cut in its handshake, offered or not.
    for (const cut of [[0], [0, 1], [0, 1, 2], [0, 2], [0, 1, 2, 3, 4, 5]]) {
        const server = await mock();
        let n = 0;
        server.server.prependListener('upgrade', (request, socket) => {
            socket.on('error', () => {});
            if (cut.includes(n++))
                socket.destroy();
        });
        const one = client(server.url);
        let peer, event;
        do { // a plain one is a probe, and over at once
            peer = await server.accept();
            event = await peer.next();
        } while (event === 1000);
        assert.equal(event, 'h', `cut ${cut}`);
        peer.send(NEW);
        await one.see('open');
        assert.equal(one.c.id, 'me');
        one.c.close();
        await server.stop();
    }
});

test('once rtnet.1 was chosen, it is always offered', () =>
    opened(async (peer, server) => {
        const offered = [];
        server.server.prependListener('upgrade', (request, socket) => {
            offered.push(request.headers['sec-websocket-protocol']);
            socket.on('error', () => {});
            if (offered.length < 8)
                socket.destroy();
        });
        losses.reset(peer);
        const next = await server.accept();
        await next.expect(`h${T1} 0 1`);
        assert.deepEqual(offered, Array(8).fill('rtnet.1'));
    }));

test('the round trip is measured at w, and held by acknowledgements', () =>
    scripted(async (server, one) => {
        const { c } = one, peer = await server.accept();
        await peer.expect('h');
        await sleep(300);
        peer.send(NEW);
        await one.see('open');
        assert.ok(c.rtt > 290 && c.rtt < 1000, `${c.rtt}`);
        c.send('1');
        await peer.expect('a0', 'm1');
        peer.send('a1');
        await heard(peer, one);
        const less = c.rtt;
        assert.ok(less < 290, `${less}: an a cannot come before`);
        c.send('2');
        await peer.expect('m2');
        await sleep(900);
        peer.send('a2');
        await heard(peer, one);
        assert.ok(c.rtt > 390 && c.rtt < 1200,
                  `${c.rtt}: an a is at most 500 ms late`);
    }));

test('what a handler throws is reported and stops nothing', () =>
    scripted(async (server, one) => {
        const caught = [], others = process.listeners('uncaughtException');
        process.removeAllListeners('uncaughtException');
        process.on('uncaughtException', (error) => caught.push(error.message));
        try {
            const peer = await server.accept();
            peer.send(NEW);
            await peer.expect('h', 'a0');
            peer.send('m1', 'm2');
            await peer.expect('a2');
            assert.deepEqual(caught, ['1', '2']);
            assert.equal(one.c.state, 'open');
        } finally {
            process.removeAllListeners('uncaughtException');
            others.forEach((run) => process.on('uncaughtException', run));
        }
    }, { message: (data) => { throw new Error(data); } }));

test('no token is shown: not by the client, not by what it is told', () =>
    kept(async (peer, server, { c, told, see }) => {
        peer.send(`w${T2} me 2 5 gap 15000`);
        await see('open', 'message', 'message', 'away', 'back');
        losses.reset(peer);
        const next = await server.accept();
        next.send(`w${T3} me 9 5 resumed 15000`);
        await until(2000, 'the end', () => c.state === 'closed');
        await sleep(0);
        const shown = JSON.stringify([c, told]) + c + util.inspect(
            [c, told], { depth: 9, showHidden: true, getters: true });
        TOKENS.forEach((token) => assert.ok(!shown.includes(token)));
    }));

test('it is one file of at most 250 lines that needs nothing', async () => {
    const text = await readFile(path.join(root, 'examples/rtnet.js'), 'utf8');
    const lines = text.split('\n');
    assert.ok(lines.length - 1 <= 250, `${lines.length - 1} lines`);
    assert.ok(lines.every((line) => [...line].length <= 80));
    assert.doesNotMatch(text, /\b(import\s*\(|require\(|console\.)/);
    assert.doesNotMatch(text, /^import/m);
});

await done();
