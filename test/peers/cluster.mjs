// examples/cluster.c: two servers and one Redis.  One order for all, counts,
// one login for each user; Redis goes away and comes back.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import parse from 'parse-prometheus-text-format';
import { WebSocket } from 'ws';
import { build, done, freePort, serve, skip, test as add, until, within }
    from './lib.mjs';

// ONLY=word runs the cases whose names have it.
const test = (name, ...rest) =>
    name.includes(process.env.ONLY ?? '') && add(name, ...rest);

// What is missing; CI must have both.
const missing = !existsSync(path.join(build, 'cluster'))
    ? 'no build/cluster: libhiredis-dev is missing'
    : await hasRedis() ? '' : 'no redis-server';

async function hasRedis() {
    const child = spawn('redis-server', ['--version'], { stdio: 'ignore' });
    return await new Promise((resolve) => {
        child.on('error', () => resolve(false));
        child.on('close', (code) => resolve(code === 0));
    });
}

// A Redis of our own that keeps nothing.
class Redis {
    static all = new Set();

    static async start() {
        const self = new Redis();
        self.port = await freePort();
        self.dir = mkdtempSync(path.join(os.tmpdir(), 'rtnet-redis-'));
        await self.run();
        return self;
    }

    async run() {
        this.child = spawn('redis-server', [
            '--port', this.port, '--bind', '127.0.0.1', '--dir', this.dir,
            '--save', '', '--appendonly', 'no',
        ].map(String), { stdio: 'ignore' });
        Redis.all.add(this);
        this.ended = once(this.child, 'close');
        await until(10000, 'redis', async () =>
            (await this.ask('PING').catch(() => '')) === '+PONG\r\n');
    }

    // One command without spaces in its words; the bare answer.
    async ask(...words) {
        const line = net.connect(this.port, '127.0.0.1');
        line.end(`${words.join(' ')}\r\nQUIT\r\n`);
        let text = '';
        for await (const data of line)
            text += data;
        return text.replace(/\+OK\r\n$/, '');
    }

    async kill() {
        this.child.kill('SIGKILL'); // ends a stopped one, too
        await this.ended;
        Redis.all.delete(this);
    }

    async stop() {
        if (Redis.all.has(this))
            await this.kill();
        rmSync(this.dir, { recursive: true, force: true });
    }
}
process.on('exit', () => Redis.all.forEach((r) => r.child.kill('SIGKILL')));

async function get(server, what) {
    const answer = await fetch(`http://127.0.0.1:${server.port}/${what}`,
                               { headers: { connection: 'close' } });
    assert.equal(answer.status, 200);
    return answer.text();
}

async function metric(server, name) {
    const all = parse(await get(server, 'metrics'));
    return Number(all.find((one) => one.name === name).metrics[0].value);
}

const healthy = (...servers) => until(10000, 'healthy', async () =>
    (await Promise.all(servers.map((s) => get(s, 'health'))))
        .every((text) => text === 'ok\n'));

// Two servers at one Redis; play gets all three.
async function cluster(play) {
    if (missing)
        skip(missing);
    const redis = await Redis.start();
    const servers = [], all = [];
    try {
        for (let i = 0; i < 2; i++)
            servers.push(await serve('cluster', [0, redis.port]));
        servers.forEach((s) => s.ended.then(() => (s.over = true)));
        await healthy(...servers);
        await play(redis, servers, (server, user, room = 'tea') => {
            const one = client(server, user, room);
            all.push(one);
            return one;
        });
        for (const server of servers)
            if (!server.over)
                await server.stop();
    } finally {
        all.forEach(({ ws }) => ws.terminate());
        servers.forEach(({ child }) => child.kill('SIGKILL'));
        await redis.stop();
    }
}

// What one client hears: said (texts and binaries), here (the last count).
function client(server, user, room) {
    const ws = new WebSocket(
        `ws://127.0.0.1:${server.port}/?room=${room}&user=${user}`);
    const self = { ws, user, said: [], told: [], redis: [], here: null,
                   end: null };
    ws.on('message', (data, binary) => {
        const text = String(data);
        const [, word, rest] = /^(\w+) ?(.*)$/s.exec(text) ?? [];
        if (binary)
            self.said.push(`binary ${data.toString('hex')}`);
        else if (word === 'here')
            self.here = Number(rest);
        else if (word === 'say')
            self.said.push(rest);
        else if (word === 'tell')
            self.told.push(rest);
        else if (word === 'redis')
            self.redis.push(rest);
        else
            self.end = `unknown: ${text}`;
    });
    ws.on('error', (error) => (self.end ??= String(error)));
    ws.on('close', (code) => (self.end ??= code));
    self.open = once(ws, 'open');
    self.open.catch(() => {}); // told by end
    return self;
}

const count = (clients, n, ms = 8000) => until(ms, `here ${n}`, () =>
    clients.every((c) => c.here === n))
    .catch((e) => {
        throw new Error(`${e.message}: ${clients.map((c) => c.here)}`);
    });

// Each of them hears each of the texts once; the order is not looked at.
const heard = (clients, texts) => until(15000, 'all heard', () =>
    clients.every((c) => c.said.length >= texts.length)).then(() =>
    clients.forEach((c) => assert.deepEqual([...c.said].sort(),
                                            [...texts].sort())));

// A round trip: what was sent before has been read.
const settled = (clients) => Promise.all(clients.map((c) => {
    const pong = once(c.ws, 'pong');
    c.ws.ping();
    return pong;
}));

test('2,000 messages at once: eight clients on two servers see one order',
    () => cluster(async (redis, [a, b], join) => {
        const names = ['ann', 'bob', 'cat', 'dan'];
        const all = [...names.map((n) => join(a, n)),
                     ...names.map((n) => join(b, `${n}-2`))];
        await count(all, 8);
        const texts = [];
        for (let i = 0; i < 250; i++) {
            all.forEach(({ ws, user }) => {
                const body = i % 10 ? `m${i} ü` : Buffer.from([0, i, 255, 10]);
                ws.send(body);
                texts.push(i % 10 ? `${user} ${body}`
                                  : `binary ${body.toString('hex')}`);
            });
            await setImmediate();
        }
        await heard(all, texts);
        all.forEach((c) => assert.deepEqual(c.said, all[0].said));
        // It really was a mixture of both servers, and all of it came back.
        const turns = all[0].said.filter((text, i, said) => i &&
            /-2 /.test(text) !== /-2 /.test(said[i - 1])).length;
        assert.ok(turns > 20, `only ${turns} changes of the server`);
        for (const server of [a, b]) {
            assert.equal(await metric(server, 'cluster_published_total'), 1000);
            assert.equal(await metric(server, 'cluster_alone_total'), 0);
            assert.equal(await metric(server, 'cluster_waiting'), 0);
        }
    }), 40000);

test('counts over both servers: joins, leaves, a server that is killed',
    () => cluster(async (redis, [a, b], join) => {
        const here = ['a1', 'a2'].map((n) => join(a, n));
        await count(here, 2);
        const there = ['b1', 'b2', 'b3'].map((n) => join(b, n));
        const other = join(b, 'b4', 'coffee');
        await count([...here, ...there], 5);
        await count([other], 1);
        there.pop().ws.close();
        here.pop().ws.terminate();
        await count([...here, ...there], 3);
        there.forEach((c) => c.ws.close());
        await count(here, 1);
        // Empty here meanwhile, and back again.
        const again = ['b5', 'b6'].map((n) => join(b, n));
        await count([...here, ...again], 3);
        b.child.kill('SIGKILL');
        await b.ended;
        await count(here, 1, 6000);
        // Whoever was bound there can log in here at once.
        const moved = join(a, 'b5');
        await count([...here, moved], 2);
    }), 40000);

test('a room that is left and joined at once goes on', () =>
    cluster(async (redis, [a, b], join) => {
        const far = join(b, 'far');
        await count([far], 1);
        for (let i = 0; i < 20; i++) {
            const one = join(a, `n${i}`);
            await one.open;
            one.ws.send(`hello ${i}`);
            one.ws.close();
            if (i % 3 === 0)
                await once(one.ws, 'close');
        }
        const last = join(a, 'last');
        await count([far, last], 2);
        last.ws.send('bye');
        await until(5000, 'the last word', () => last.said.includes('last bye')
            && far.said.includes('last bye'));
        assert.equal(far.said.length, 21);
        assert.equal(new Set(far.said).size, 21);
    }), 30000);

test('a newer login ends the older one, here and on the other server',
    () => cluster(async (redis, [a, b], join) => {
        const first = join(a, 'ann');
        await count([first], 1);
        const second = join(b, 'ann');
        await until(5000, 'kicked', () => first.end);
        assert.equal(first.end, 4501);
        await count([second], 1);
        const third = join(b, 'ann');
        await until(5000, 'kicked', () => second.end);
        assert.equal(second.end, 4501);
        await count([third], 1);
        // What was given up late did not take the newer claim away.
        assert.match(await redis.ask('GET', 'rt:user:ann'), /[0-9a-f]{16}-\d/);
        const fourth = join(a, 'ann');
        await until(5000, 'kicked', () => third.end);
        assert.equal(third.end, 4501);
        await count([fourth], 1);
        fourth.ws.close();
        await until(5000, 'given back', async () =>
            (await redis.ask('GET', 'rt:user:ann')) === '$-1\r\n');
    }), 30000);

test('many logins of one user at once: one is left', () =>
    cluster(async (redis, servers, join) => {
        // Until some were overtaken before they were let in.
        let all = [], overtaken = 0;
        for (let round = 0; round < 20 && !overtaken; round++) {
            const more = Array.from({ length: 30 }, (_, i) =>
                join(servers[i % 2], 'ann'));
            all = [...all, ...more];
            const live = () => all.filter((c) => c.end === null);
            await until(8000, 'one left', () => live().length === 1);
            await count(live(), 1);
            overtaken = all.filter((c) => /409/.test(c.end)).length;
            const replaced = all.filter((c) => c.end === 4501).length;
            assert.equal(overtaken + replaced, all.length - 1);
            all = live();
        }
        assert.ok(overtaken, 'nobody was overtaken');
        const said = all[0].said.length;
        all[0].ws.send('x');
        await until(5000, 'x', () => all[0].said[said] === 'ann x');
    }), 60000);

test('claims are renewed, and given up when they are another\'s', () =>
    cluster(async (redis, [a], join) => {
        const one = join(a, 'ann');
        await count([one], 1);
        const claim = await redis.ask('GET', 'rt:user:ann');
        // Longer than a share lasts: it is there all the time.
        await redis.ask('DEL', 'rt:user:ann');
        await until(4000, 'again', async () =>
            (await redis.ask('GET', 'rt:user:ann')) === claim);
        assert.match(await redis.ask('PTTL', 'rt:user:ann'), /^:[1-9]\d+/);
        // Its kick was lost: the next renewal finds it out.
        await redis.ask('SET', 'rt:user:ann', '0123456789abcdef-1');
        await until(4000, 'kicked', () => one.end === 4501);
        assert.match(await redis.ask('GET', 'rt:user:ann'), /abcdef-1/);
    }), 30000);

test('a push finds its user on either server', () =>
    cluster(async (redis, [a, b], join) => {
        const [ann, bob, cat] = [join(a, 'ann'), join(b, 'bob', 'coffee'),
                                 join(a, 'cat', 'cocoa')];
        await count([ann, bob, cat], 1);
        ann.ws.send('/tell bob hello  there');
        ann.ws.send('/tell cat hello');
        ann.ws.send('/tell nobody hello');
        bob.ws.send('/tell ann ü');
        await until(5000, 'told', () =>
            [ann, bob, cat].every((c) => c.told.length));
        assert.deepEqual([ann.told, bob.told, cat.told],
                         [['bob ü'], ['ann hello  there'], ['ann hello']]);
        const missed = (n) => until(5000, 'missed', async () =>
            await metric(a, 'cluster_push_missed_total') === n);
        await missed(1);
        // One whose claim outlived him: not sent round and round.
        const [node] = /[0-9a-f]{16}/.exec(await redis.ask('GET',
                                                           'rt:user:ann'));
        await redis.ask('SET', 'rt:user:ghost', `${node}-1`);
        ann.ws.send('/tell ghost hello');
        await missed(2);
    }), 30000);

test('Redis is killed and comes back: nothing is lost here, nothing twice',
    () => cluster(async (redis, [a, b], join) => {
        const here = ['a1', 'a2', 'a3', 'a4'].map((n) => join(a, n));
        const there = ['b1', 'b2', 'b3', 'b4'].map((n) => join(b, n));
        const all = [...here, ...there];
        await count(all, 8);
        // It dies while all are talking and wait for its word.
        const sent = new Map(all.map((c) => [c, []]));
        let n = 0;
        const talk = setInterval(() => all.forEach((c) => {
            c.ws.send(`t${++n}`);
            sent.get(c).push(`${c.user} t${n}`);
        }), 2);
        await until(5000, 'talk', () => n > 800);
        redis.child.kill('SIGSTOP');
        const stopped = n;
        await until(5000, 'talk', () => n > stopped + 80);
        await redis.kill();
        const then = n;
        await until(5000, 'talk goes on', () => n > then + 800);
        clearInterval(talk);
        await settled(all);
        const from = (c, who) => c.said.filter((t) =>
            who.some((w) => t.startsWith(`${w.user} `)));
        const own = (who) => who.flatMap((c) => sent.get(c));
        // Each server's clients hear all of their own, once and in one order.
        for (const side of [here, there])
            await until(8000, 'all of their own', () => side.every((c) =>
                from(c, side).length >= own(side).length)).then(() =>
                side.forEach((c) => {
                    assert.deepEqual(from(c, side).sort(), own(side).sort());
                    assert.deepEqual(c.said, side[0].said);
                }));
        // And of the other's each at most once.
        all.forEach((c) => assert.equal(new Set(c.said).size, c.said.length));
        await count(all, 4);
        for (const server of [a, b]) {
            assert.match(await get(server, 'health'), /^degraded/);
            assert.equal(await metric(server, 'cluster_redis_up'), 0);
        }
        // Users who log in elsewhere, or twice, while nobody can know it.
        const old = there[0], moved = join(a, old.user);
        const [x, y] = [join(a, 'x'), join(b, 'x')];
        await count([...here, x, moved], 6);
        await count([...there, y], 5);
        all.splice(all.indexOf(old), 1);
        all.forEach((c) => (c.said = []));
        await redis.run();
        await healthy(a, b);
        await until(8000, 'one x', () => [x, y].some((c) => c.end === 4501));
        assert.ok([x, y].some((c) => c.end === null), 'both ended');
        await until(8000, 'the older login', () => old.end === 4501);
        await count([...all, moved], 9);
        assert.equal(moved.end, null);
        all.forEach((c) => assert.deepEqual(c.redis, ['down', 'up']));
        const texts = all.map((c) => {
            c.ws.send('again');
            return `${c.user} again`;
        });
        await heard(all, texts);
        all.forEach((c) => assert.deepEqual(c.said, all[0].said));
        assert.equal(await metric(a, 'cluster_redis_lost_total'), 1);
    }), 60000);

test('Redis is silent: given up, and what it says later is not told twice',
    () => cluster(async (redis, [a, b], join) => {
        const all = [join(a, 'a1'), join(a, 'a2'), join(b, 'b1')];
        await count(all, 3);
        redis.child.kill('SIGSTOP');
        all[0].ws.send('one');
        await until(12000, 'degraded', async () =>
            /degraded/.test(await get(a, 'health')));
        all[0].ws.send('two');
        await until(5000, 'both', () => all[1].said.length === 2);
        redis.child.kill('SIGCONT');
        await healthy(a, b);
        await count(all, 3);
        all[0].ws.send('three');
        await until(5000, 'the third', () => all.every((c) =>
            c.said.includes('a1 three')));
        for (const c of all.slice(0, 2))
            assert.deepEqual(c.said, ['a1 one', 'a1 two', 'a1 three']);
        assert.equal(new Set(all[2].said).size, all[2].said.length);
    }), 40000);

test('a Redis that refuses commands is told, and done without', () =>
    cluster(async (redis, [a], join) => {
        const one = join(a, 'ann');
        await count([one], 1);
        await redis.ask('CONFIG', 'SET', 'maxmemory', '1');
        await until(8000, 'told', () => /redis lost.*OOM/.test(a.err));
        one.ws.send('alone');
        await until(5000, 'said', () => one.said.length === 1);
        const two = join(a, 'bob');
        await until(5000, 'let in', () => two.here === 2);
        await redis.ask('CONFIG', 'SET', 'maxmemory', '0');
        await healthy(a);
        one.ws.send('again');
        await until(5000, 'again', () => two.said.at(-1) === 'ann again');
        assert.deepEqual(one.said, ['ann alone', 'ann again']);
    }), 30000);

test('without any Redis a server serves alone; bad requests are refused',
    async () => {
        if (missing)
            skip(missing);
        const server = await serve('cluster', [0, await freePort()]);
        assert.match(await get(server, 'health'), /^degraded/);
        const [one, two] = ['a', 'b'].map((n) => client(server, n, 'tea'));
        await count([one, two], 2);
        one.ws.send('x');
        await heard([one, two], ['a x']);
        assert.match(server.err, /going on alone: Connection refused/);
        for (const query of ['room=tea', 'user=x', 'room=tea&user=a%20b',
                             `room=tea&user=${'a'.repeat(33)}`]) {
            const ws = new WebSocket(`ws://127.0.0.1:${server.port}/?${query}`);
            const [error] = await once(ws, 'error');
            assert.match(String(error), /400/);
        }
        await server.stop();
    }, 30000);

test('SIGTERM: 1012, counts and claims are given back at once', () =>
    cluster(async (redis, [a, b], join) => {
        const [one, two] = [join(a, 'ann'), join(b, 'bob')];
        await count([one, two], 2);
        await a.stop();
        await until(5000, 'the close', () => one.end);
        assert.equal(one.end, 1012);
        await count([two], 1, 1000);
        assert.equal(await redis.ask('GET', 'rt:user:ann'), '$-1\r\n');
        assert.match(await redis.ask('HLEN', 'rt:room:tea'), /^:2/);
    }), 30000);

await done();
