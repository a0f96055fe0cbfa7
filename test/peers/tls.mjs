// What the tests of TLS share: certificates of their own, the secure server
// and what it told, and programs of others.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root, run, serve, test as add, until, within } from './lib.mjs';

export const dir = mkdtempSync(path.join(os.tmpdir(), 'rtnet-tls-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
execFileSync('sh', [path.join(root, 'test/peers/certs.sh'), dir]);

// ONLY=word runs the cases whose names have it.
export const test = (name, ...rest) =>
    name.includes(process.env.ONLY ?? '') && add(name, ...rest);

export const certFile = (name) => path.join(dir, `${name}.pem`);
export const keyFile = (name) => path.join(dir, `${name}.key`);
export const cert = (name) => readFileSync(certFile(name), 'utf8');
export const key = (name) => readFileSync(keyFile(name), 'utf8');
export const pin = (name) =>
    readFileSync(path.join(dir, `${name}.pin`), 'utf8').trim();

// The secure server with that certificate.  What it told so far is lines();
// sees(line) waits for one that begins so.
export async function secure(name = 'host', ...args) {
    const self = await serve('secure', ['--cert', certFile(name), '--key',
                                        keyFile(name), ...args],
                             { cwd: root });
    self.lines = () => self.out.split('\n').slice(1, -1);
    self.count = (start) =>
        self.lines().filter((line) => line.startsWith(start)).length;
    self.sees = (start, times = 1) => until(5000, `${times} times ${start}`,
        () => self.count(start) >= times);
    self.logs = (text) =>
        until(5000, `a log of ${text}`, () => self.err.includes(text));
    return self;
}

// play(server) between its start and its end.
export async function withSecure(args, play) {
    const server = await secure(...args);
    try {
        await play(server);
    } finally {
        await server.stop();
    }
}

// A program of others: its exit code and all it said.  Its input is input, or
// whatever play(child, said) writes; said(what) waits for that text, or gives
// what matches that expression.
export async function command(program, args, input = '', limit = 15000) {
    const child = spawn(program, args.map(String), { cwd: dir });
    const self = { child, out: '' };
    child.stdout.on('data', (data) => (self.out += data.toString('latin1')));
    child.stderr.on('data', (data) => (self.out += data.toString('latin1')));
    child.stdin.on('error', () => {});
    const ended = new Promise((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code) => resolve(code));
    });
    try {
        if (typeof input === 'function')
            await input(child, (what) => until(10000, `${program}: ${what}`,
                () => typeof what === 'string' ? self.out.includes(what)
                                               : what.exec(self.out)));
        else
            child.stdin.end(input);
        self.code = await within(limit, program, ended);
    } finally {
        child.kill('SIGKILL');
    }
    return self;
}

// The dialer that knows TLS, and how it ended.
export async function dial(url, ...args) {
    const self = await run('tls_dialer', [url, ...args]);
    if (self.signal)
        throw new Error(`the dialer died of ${self.signal}`);
    const end = /^end code=(\d+) cause=(\d+) lost=\d+ reason=(.*)$/m
        .exec(self.out);
    return { exit: self.code, out: self.out, code: Number(end?.[1]),
             cause: Number(end?.[2]), reason: end?.[3],
             right: Number(/^echoes right=(\d+)/m.exec(self.out)?.[1]) };
}
