// examples/restart.c: clients that connect all the time while one process
// takes the port over from another, several times; and takeovers that fail.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync }
    from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import parse from 'parse-prometheus-text-format';
import path from 'node:path';
import { WebSocket } from 'ws';
import { done, freePort, root, serve, skip, sleep, start, test, until, within }
    from './lib.mjs';

const here = path.join(root, 'test/peers');
const dir = mkdtempSync(path.join(os.tmpdir(), 'rtnet-restart-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));

let sockets = 0;

// A place of its own for each case; start() there is the next process.
async function place(drain = 300) {
    const port = await freePort(), file = path.join(dir, `${++sockets}.sock`);
    const args = [port, file, drain];
    return {
        port, file, args,
        start: async () => {
            const one = await serve('restart', args);
            one.ended.then((how) => (one.over = how));
            return one;
        },
    };
}

async function health(port) {
    const answer = await fetch(`http://127.0.0.1:${port}/health`,
                               { headers: { connection: 'close' } });
    return answer.text();
}

const url = (port, nick) => `ws://127.0.0.1:${port}/?room=r&nick=${nick}`;

// One connection: the id of the process that welcomes it.  Anything but a
// welcome is an error.
function visit(port, nick) {
    return new Promise((resolve, reject) => {
        const ws = new WebSocket(url(port, nick));
        let pid = 0;
        ws.on('message', (data) => {
            pid ||= Number(/this is process (\d+)/.exec(String(data))?.[1]);
            ws.close();
        });
        ws.on('error', reject);
        ws.on('close', (code) => pid ? resolve(pid) :
            reject(new Error(`closed with ${code} before the welcome`)));
    });
}

// Somebody who stays, and comes back when told to.
function stayer(port, nick) {
    const self = { pids: [], closes: [], errors: [], open: false };
    const connect = () => {
        const ws = self.ws = new WebSocket(url(port, nick));
        ws.on('message', (data) => {
            const pid = /this is process (\d+)/.exec(String(data))?.[1];
            if (pid) {
                self.open = true;
                self.pids.push(Number(pid));
            }
        });
        ws.on('error', (error) => self.errors.push(String(error)));
        ws.on('close', (code, reason) => {
            self.open = false;
            if (self.done)
                return;
            self.closes.push(`${code} ${reason}`);
            const ms = /retry=(\d+)/.exec(String(reason))?.[1];
            setTimeout(connect, Number(ms ?? 0));
        });
    };
    connect();
    self.stop = () => {
        self.done = true;
        self.ws.terminate();
    };
    return self;
}

test('three takeovers: nobody is refused, 1012 brings the others back',
    async () => {
        const at = await place();
        let now = await at.start();
        const first = now, pids = new Map(), errors = [];
        const stayers = ['a', 'b', 'c', 'd'].map((n) => stayer(at.port, n));
        await until(5000, 'all there', () => stayers.every((s) => s.open));
        let visits = 0, over = false;
        const visitors = ['v', 'w', 'x'].map(async (nick) => {
            while (!over) {
                try {
                    const pid = await visit(at.port, nick);
                    pids.set(pid, (pids.get(pid) ?? 0) + 1);
                    visits++;
                } catch (error) {
                    errors.push(String(error));
                }
            }
        });
        const all = [first];
        for (let i = 1; i <= 3; i++) {
            const before = now;
            now = await at.start();
            all.push(now);
            const how = await within(8000, 'the old one ends', before.ended);
            assert.deepEqual(how, { code: 0, signal: null }, before.err);
            await until(8000, 'all back', () =>
                stayers.every((s) => s.open && s.pids.length === i + 1));
            const goal = visits + 100;
            await until(10000, 'visits', () => visits > goal);
        }
        await until(10000, '500 visits', () => visits >= 500);
        over = true;
        await Promise.all(visitors);
        assert.deepEqual(errors, []);
        const want = all.map(({ child }) => child.pid);
        assert.deepEqual([...pids.keys()].sort(), [...want].sort());
        for (const s of stayers) {
            assert.deepEqual(s.pids, want);
            assert.deepEqual(s.errors, []);
            s.closes.forEach((c) => assert.match(c, /^1012 retry=\d+$/));
            s.stop();
        }
        console.log(`     ${visits} visits over 4 processes`);
        await now.stop();
        assert.equal(existsSync(at.file), false);
    }, 60000);

// Its request comes when its process has stopped accepting.
test('who was accepted before the takeover is let in after it', async () => {
    const at = await place(1000);
    const old = await at.start();
    const line = net.connect(at.port, '127.0.0.1');
    let text = '';
    line.on('data', (data) => (text += data.toString('latin1')));
    line.write(`GET /?room=r&nick=n HTTP/1.1\r\nHost: x\r\n`);
    await sleep(100);
    const next = await at.start();
    await until(5000, 'handed over', () => /handed over/.test(old.out));
    await sleep(100);
    line.write('Upgrade: websocket\r\nConnection: Upgrade\r\n' +
               'Sec-WebSocket-Version: 13\r\n' +
               'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
    await until(5000, 'an answer', () => text.includes('\r\n\r\n'));
    assert.match(text, /^HTTP\/1\.1 101 /);
    await until(5000, '1012', () => text.includes('retry='));
    line.destroy();
    assert.equal((await within(8000, 'the end', old.ended)).code, 0);
    assert.equal(existsSync(at.file), true); // it is the next one's
    assert.match(await health(at.port), new RegExp(`ok ${next.child.pid}`));
    await next.stop();
}, 20000);

// What a new process does up to the descriptors; node cannot receive them, the
// kernel closes them.
async function halfWay(file) {
    const line = net.connect(file);
    await once(line, 'data');
    return line;
}

test('a new process that dies before it is ready changes nothing', async () => {
    const at = await place();
    const old = await at.start();
    const one = stayer(at.port, 'a');
    await until(5000, 'there', () => one.open);
    const line = await halfWay(at.file);
    // Another one waits meanwhile, and is served when the first is dead.
    const next = start('restart', at.args);
    await sleep(200);
    assert.equal(next.out, '');
    assert.equal(await visit(at.port, 'v'), old.child.pid);
    line.destroy();
    await until(5000, 'told', () => /going on/.test(old.err));
    await until(5000, 'taken over', () => /took over/.test(next.out));
    assert.equal((await within(8000, 'old ends', old.ended)).code, 0);
    await until(8000, 'back', () => one.pids.length === 2 && one.open);
    assert.deepEqual(one.pids, [old.child.pid, next.child.pid]);
    one.stop();
    next.child.kill('SIGTERM');
    assert.equal((await within(8000, 'the end', next.ended)).code, 0);
}, 30000);

test('the line says something else than ready: the old one goes on',
    async () => {
        const at = await place();
        const old = await at.start();
        const line = await halfWay(at.file);
        line.write('x');
        await until(5000, 'told', () => /going on/.test(old.err));
        assert.match(await health(at.port), new RegExp(`ok ${old.child.pid}`));
        line.destroy();
        await old.stop();
    }, 20000);

// The other side of a handover, in Python: it can pass descriptors.
const partner = (args, options = {}) => start('/usr/bin/env', [
    'python3', path.join(here, 'handover.py'), ...args], {
    stdio: ['pipe', 'pipe', 'pipe'], ...options,
});

test('a new process that is killed when it has the sockets: the old serves on',
    async () => {
        const at = await place();
        const old = await at.start();
        const fake = partner(['take', at.file]);
        await until(5000, 'taken', () => /took 1 2/.test(fake.out));
        fake.child.kill('SIGKILL');
        await until(5000, 'told', () => /going on/.test(old.err));
        for (let i = 0; i < 20; i++)
            assert.equal(await visit(at.port, 'v'), old.child.pid);
        await old.stop();
    }, 20000);

// A process that is asked for its sockets and is killed at once.
async function orphan(what, says) {
    const at = await place();
    const fake = partner([what, at.file, at.port]);
    await until(5000, 'listening', () => /listening/.test(fake.out));
    const next = await at.start();
    assert.equal((await fake.ended).signal, 'SIGKILL');
    assert.match(next.out, says);
    assert.equal(await visit(at.port, 'v'), next.child.pid);
    // It owns the path, too: the next one can take over from it.
    const last = await at.start();
    assert.match(last.out, /took over/);
    assert.equal((await within(8000, 'the end', next.ended)).code, 0);
    assert.equal(await visit(at.port, 'v'), last.child.pid);
    await last.stop();
}

test('an old process that is killed when it gave its sockets is not missed',
    () => orphan('give', /took over/), 20000);

test('an old process that is killed before that: the new one has its own',
    () => orphan('hang', /first/), 20000);

test('an old process that is killed while others wait in the queue', async () => {
    const at = await place();
    const old = await at.start();
    old.child.kill('SIGSTOP');
    const next = start('restart', at.args);
    await sleep(200); // it waits for an answer
    assert.equal(next.out, '');
    old.child.kill('SIGKILL');
    await until(5000, 'listening', () => /first, listening/.test(next.out));
    assert.equal(await visit(at.port, 'v'), next.child.pid);
    next.child.kill('SIGTERM');
    assert.equal((await within(8000, 'the end', next.ended)).code, 0);
}, 20000);

test('a process of another user is given nothing', async () => {
    if (process.getuid() !== 0)
        skip('only root can start a process of another user');
    const at = await place();
    const old = await at.start();
    chmodSync(dir, 0o755); // so that only the question who it is stands between
    chmodSync(at.file, 0o777);
    const fake = start('/usr/bin/env', ['python3', '-', 'take', at.file], {
        stdio: ['pipe', 'pipe', 'pipe'], uid: 65534, gid: 65534,
    });
    fake.child.stdin.end(readFileSync(path.join(here, 'handover.py')));
    await until(5000, 'no answer', () => /took 0 0/.test(fake.out));
    await until(5000, 'told', () => /a stranger/.test(old.err));
    assert.equal((await fake.ended).code, 0);
    const mine = start('restart', at.args, { uid: 65534, gid: 65534 });
    assert.equal((await within(8000, 'the end', mine.ended)).code, 1);
    assert.match(mine.err, /not permitted/);
    assert.match(await health(at.port), new RegExp(`ok ${old.child.pid}`));
    await old.stop();
}, 20000);

test('a port that another program has is told', async () => {
    const at = await place();
    const other = net.createServer().listen(at.port);
    await once(other, 'listening');
    const one = start('restart', at.args);
    assert.equal((await within(15000, 'the end', one.ended)).code, 1);
    assert.match(one.err, /no process to take over from: .*in use/);
    other.close();
}, 20000);

test('a path that serves another port is refused, the old one goes on',
    async () => {
        const at = await place(), elsewhere = await freePort();
        const old = await at.start();
        const one = start('restart', [elsewhere, at.file]);
        assert.equal((await within(9000, 'the end', one.ended)).code, 1);
        assert.match(one.err, /belongs to another port/);
        assert.match(await health(at.port), new RegExp(`ok ${old.child.pid}`));
        await old.stop();
    }, 20000);

test('metrics are served, SIGTERM says goodbye with 1012', async () => {
    const at = await place();
    const old = await at.start();
    const answer = await fetch(`http://127.0.0.1:${at.port}/metrics`);
    const page = parse(await answer.text());
    const accepted = page.find((one) => one.name === 'rtnet_accepted_total');
    assert.ok(Number(accepted.metrics[0].value) > 0);
    const ws = new WebSocket(url(at.port, 'a'));
    await once(ws, 'message');
    const closed = once(ws, 'close');
    await old.stop();
    const [code, reason] = await closed;
    assert.equal(code, 1012);
    assert.match(String(reason), /^retry=/);
    assert.equal(existsSync(at.file), false);
}, 20000);

await done();
