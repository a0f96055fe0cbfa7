// What the tests with real peers share: cases with a time limit and a count,
// child processes that are always killed, and waiting.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const root = path.resolve(here, '../..');
export const build = path.resolve(root, process.env.BUILD ?? 'build');
export const backends = ['epoll', 'select'];

class Skip extends Error {}
const cases = [];
const children = new Set();

process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

// Names a case; it fails when run throws or takes longer than limit ms.
export function test(name, run, limit = 20000) {
    cases.push({ name, run, limit });
}

export function skip(why) {
    throw new Skip(why);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The answer of a promise, or an error after ms that says what was awaited.
export async function within(ms, what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: ${ms} ms`)), ms);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

// Asks again every 20 ms until ask() gives something true.
export async function until(ms, what, ask) {
    const end = Date.now() + ms;
    for (;;) {
        const got = await ask();
        if (got)
            return got;
        if (Date.now() > end)
            throw new Error(`${what}: not within ${ms} ms`);
        await sleep(20);
    }
}

async function runCase({ name, run, limit }, count) {
    const start = Date.now();
    try {
        await within(limit, 'the case', run());
        count.passed++;
        console.log(`ok   ${name} (${Date.now() - start} ms)`);
    } catch (error) {
        if (error instanceof Skip) {
            count.skipped++;
            console.log(`SKIP ${name}: ${error.message}`);
            return;
        }
        count.failed++;
        console.log(`FAIL ${name}: ${error.stack ?? error}`);
    }
}

// Runs the cases one after the other and prints the sum as the last line.
export async function done() {
    const count = { passed: 0, failed: 0, skipped: 0 };
    process.on('uncaughtException', (error) => {
        count.failed++;
        console.log(`FAIL outside a case: ${error.stack ?? error}`);
    });
    for (const one of cases)
        await runCase(one, count);
    for (const child of children) {
        count.failed++;
        console.log(`FAIL left running: ${child.spawnargs.join(' ')}`);
    }
    console.log(`${count.passed} passed, ${count.failed} failed, ` +
                `${count.skipped} skipped`);
    process.exit(count.failed ? 1 : 0);
}

// A program with its output collected; ended is its {code, signal}.
export function start(program, args = [], options = {}) {
    const child = spawn(path.resolve(build, program), args.map(String), {
        stdio: ['ignore', 'pipe', 'pipe'],
        ...options,
    });
    const self = { child, out: '', err: '' };
    children.add(child);
    child.stdout.on('data', (data) => (self.out += data));
    child.stderr.on('data', (data) => (self.err += data));
    self.ended = new Promise((resolve) => {
        child.on('error', (error) => {
            children.delete(child);
            self.err += error;
            resolve({ code: -1, signal: null });
        });
        child.on('close', (code, signal) => {
            children.delete(child);
            resolve({ code, signal });
        });
    });
    return self;
}

// A sanitizer speaks on stderr; its word fails the case whatever came before.
export function checkSane(self) {
    if (/Sanitizer|runtime error:/.test(self.err))
        throw new Error(self.err);
}

// Runs a program to its end.
export async function run(program, args, limit = 15000) {
    const self = start(program, args);
    try {
        Object.assign(self, await within(limit, program, self.ended));
    } finally {
        self.child.kill('SIGKILL');
    }
    checkSane(self);
    return self;
}

// Starts a server and waits for the line that tells its port.  stop() ends it
// and fails if it had died before, or dies of anything but our signal.
export async function serve(program, args = [], options = {}) {
    const self = start(program, args, options);
    let over = null;
    self.ended.then((how) => (over = how));
    await until(10000, `${program} listening`, () => {
        if (over)
            throw new Error(`${program} ended at once: ${self.err}`);
        const line = (options.ready ?? /listening on (\d+)/).exec(self.out);
        return line && (self.port = Number(line[1]));
    });
    self.stop = async (signal = 'SIGTERM') => {
        if (over)
            throw new Error(`${program} died: code ${over.code}, ` +
                            `signal ${over.signal}\n${self.err}`);
        self.child.kill(signal);
        const kill = setTimeout(() => self.child.kill('SIGKILL'), 5000);
        const how = await self.ended;
        clearTimeout(kill);
        checkSane(self);
        if (how.signal !== signal && how.code !== 0)
            throw new Error(`${program} ended with code ${how.code}, ` +
                            `signal ${how.signal}\n${self.err}`);
    };
    return self;
}

// A port that was free a moment ago.
export async function freePort() {
    const server = net.createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    server.close();
    await once(server, 'close');
    return port;
}

// Bytes that differ from place to place, so that a shift is seen.
export function bytes(size, seed = 1) {
    const data = Buffer.alloc(size);
    for (let i = 0; i < size; i++)
        data[i] = (seed * 131 + i * 31 + (i >> 8)) & 0xff;
    return data;
}

// A text of about size bytes with characters of one to four bytes.
export function words(size, seed = 1) {
    const some = ['rt', 'ü', '漢', '😀', 'net '];
    let text = '';
    for (let n = 0, i = seed; n < size; i++) {
        text += some[i % some.length];
        n = n < size - 16 ? n + Buffer.byteLength(some[i % some.length])
                          : Buffer.byteLength(text);
    }
    return text;
}
