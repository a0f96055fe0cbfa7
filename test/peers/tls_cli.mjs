// TLS as openssl s_client and curl see it.
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import path from 'node:path';
import { done } from './lib.mjs';
import { certFile, command, dial, dir, keyFile, pin, test, withSecure }
    from './tls.mjs';

// One run of s_client: by default it ends as soon as it is connected.
const client = (server, args, input) => command('openssl',
    ['s_client', '-connect', `127.0.0.1:${server.port}`, ...args], input);

// A handshake that has to come about, and what was agreed upon.
async function shaken(server, ...args) {
    const { code, out } = await client(server, args);
    assert.equal(code, 0, out);
    const found = /^(New|Reused), (\S+), Cipher is (\S+)$/m.exec(out);
    return { out, how: found[1], version: found[2], cipher: found[3] };
}

// One that must not, and the alert that says why.
async function refused(server, alert, ...args) {
    const before = server.count('open');
    const { code, out } = await client(server, args);
    assert.notEqual(code, 0, out);
    assert.match(out, alert);
    assert.equal(server.count('open'), before);
}

const raw = ['--scheme', 'tls'];

// ---- openssl: versions, suites, curves ----

for (const name of ['host', 'rsa', 'deep'])
    test(`openssl verifies the certificate ${name}`, () =>
        withSecure([name], async (server) => {
            const { out, version } = await shaken(
                server, '-CAfile', certFile('authority'),
                '-verify_return_error', '-verify_hostname', 'localhost');
            assert.match(out, /Verify return code: 0 \(ok\)/);
            assert.match(out, /Verified peername: localhost/);
            assert.match(version, /^TLSv1\.[23]$/);
        }));

test('openssl does not verify what it must not', () =>
    withSecure(['host'], async (server) => {
        for (const args of [['-CAfile', certFile('stranger')],
                            ['-CAfile', certFile('authority'),
                             '-verify_hostname', 'other.example']]) {
            const { code, out } = await client(
                server, [...args, '-verify_return_error']);
            assert.notEqual(code, 0, out);
            assert.match(out, /verify error/);
        }
        await server.logs('TLS');
        await shaken(server); // and it goes on
    }));

const OLD = ['-cipher', 'ALL:@SECLEVEL=0'];

test('TLS 1.2 is spoken, 1.1 and 1.0 are refused', () =>
    withSecure(['host'], async (server) => {
        const { version } = await shaken(server, '-tls1_2');
        assert.equal(version, 'TLSv1.2');
        for (const old of ['-tls1_1', '-tls1'])
            await refused(server, /alert protocol version/, old, ...OLD);
    }));

test('suites with forward secrecy and AEAD are taken', async () => {
    for (const [name, kind] of [['host', 'ECDSA'], ['rsa', 'RSA']])
        await withSecure([name], async (server) => {
            for (const suite of ['AES128-GCM-SHA256', 'AES256-GCM-SHA384',
                                 'CHACHA20-POLY1305']) {
                const asked = `ECDHE-${kind}-${suite}`;
                const { cipher } = await shaken(server, '-tls1_2', '-cipher',
                                                asked);
                assert.equal(cipher, asked);
            }
        });
});

test('weak suites are refused, alone and all at once', () =>
    withSecure(['rsa'], async (server) => {
        for (const weak of ['AES128-GCM-SHA256', 'AES256-SHA',
                            'ECDHE-RSA-AES128-SHA',
                            'ECDHE-RSA-AES256-SHA384',
                            'DHE-RSA-AES128-GCM-SHA256', 'AES128-CCM8',
                            'NULL-SHA256', 'ADH-AES128-GCM-SHA256',
                            'kRSA:kDHE:aNULL:SHA1:SHA384:!AESGCM:!CHACHA20'])
            await refused(server, /alert handshake failure/, '-tls1_2',
                          '-cipher', `${weak}:@SECLEVEL=0`);
    }));

test('good curves are taken, weak ones refused', () =>
    withSecure(['rsa'], async (server) => {
        for (const [curve, said] of [['P-256', 'prime256v1'],
                                     ['X25519', 'X25519'],
                                     ['P-384', 'secp384r1'],
                                     ['P-521', 'secp521r1']]) {
            const { out } = await shaken(server, '-tls1_2', '-curves', curve);
            assert.match(out, RegExp(`^Server Temp Key: .*${said}`, 'm'));
        }
        for (const curve of ['P-224', 'secp192k1'])
            await refused(server, /alert handshake failure/, '-tls1_2',
                          '-curves', curve, ...OLD);
    }));

// ---- openssl: ALPN and names ----

test('ALPN: http/1.1, also among others; h2 alone is refused', () =>
    withSecure(['host'], async (server) => {
        for (const offer of ['http/1.1', 'h2,http/1.1', 'http/1.1,h2']) {
            const { out } = await shaken(server, '-alpn', offer);
            assert.match(out, /^ALPN protocol: http\/1\.1$/m);
        }
        const { out } = await shaken(server);
        assert.match(out, /No ALPN negotiated/);
        await refused(server, /alert no application protocol/, '-alpn', 'h2');
    }));

const subject = (out) => /^subject=.*CN ?= ?(\S+)$/m.exec(out)[1];

test('SNI chooses the certificate, or refuses the name', () =>
    withSecure(['host', '--other-cert', certFile('other'), '--other-key',
                keyFile('other')], async (server) => {
        for (const [name, shown] of [['other.example', 'other.example'],
                                     ['localhost', 'localhost'],
                                     ['third.example', 'localhost']])
            assert.equal(subject((await shaken(
                server, '-servername', name)).out), shown);
        assert.equal(subject((await shaken(server, '-noservername')).out),
                     'localhost');
        await refused(server, /unrecognized name/, '-servername',
                      'refused.example');
    }));

// ---- openssl: sessions ----

test('a ticket is taken back: -reconnect, -sess_in', () =>
    withSecure(['host'], async (server) => {
        const { out } = await shaken(server, '-tls1_2', '-reconnect');
        assert.equal(out.match(/^New, TLSv1\.2/gm).length, 1);
        assert.equal(out.match(/^Reused, TLSv1\.2/gm).length, 5);
        const file = path.join(dir, 'session');
        await shaken(server, '-tls1_2', '-sess_out', file);
        assert.equal((await shaken(server, '-tls1_2', '-sess_in', file)).how,
                     'Reused');
        assert.equal((await shaken(server, '-tls1_2', '-no_ticket',
                                   '-reconnect')).out.match(/^Reused/gm),
                     null);
    }));

test('a ticket of another server is worth a whole handshake', async () => {
    const file = path.join(dir, 'foreign-session');
    await withSecure(['host'], (server) =>
        shaken(server, '-tls1_2', '-sess_out', file));
    await withSecure(['host'], async (server) => {
        assert.equal((await shaken(server, '-tls1_2', '-sess_in', file)).how,
                     'New');
    });
});

test('SIGHUP: newcomers see the new certificate, a bad one changes nothing',
    async () => {
        const use = (name) => {
            copyFileSync(certFile(name), certFile('now'));
            copyFileSync(keyFile(name), keyFile('now'));
        };
        const file = path.join(dir, 'old-session');
        use('host');
        await withSecure(['now', ...raw], async (server) => {
            await shaken(server, '-tls1_2', '-sess_out', file);
            await client(server, ['-quiet'], async (child, said) => {
                child.stdin.write('before\n');
                await said('before\n');
                use('other');
                server.child.kill('SIGHUP');
                await server.sees('reloaded');
                child.stdin.write('behind\n');
                await said('behind\n');
                child.stdin.end();
                child.kill();
            });
            const fresh = await shaken(server, '-tls1_2', '-sess_in', file);
            assert.equal(fresh.how, 'New');
            assert.equal(subject(fresh.out), 'other.example');
            copyFileSync(keyFile('rsa'), keyFile('now'));
            server.child.kill('SIGHUP');
            await server.sees('kept: reload: the key is not that of the');
            assert.equal(subject((await shaken(server)).out),
                         'other.example');
        });
    });

test('renegotiation is refused and ends the session', () =>
    withSecure(['host', ...raw], async (server) => {
        const { code, out } = await client(server, ['-tls1_2'],
            async (child, said) => {
                await said('Verify return code');
                child.stdin.write('R\n');
                await said('RENEGOTIATING');
            });
        assert.notEqual(code, 0, out);
        assert.match(out, /no renegotiation/);
        await server.sees('end code=1006 cause=5 reason=TLS: renegotiation');
        await shaken(server);
    }));

// ---- openssl: the end ----

test('a server that closes says close_notify; so may the client', () =>
    withSecure(['host', ...raw], async (server) => {
        const { code, out } = await client(server, ['-msg'],
            async (child, said) => {
                await said('Verify return code');
                child.stdin.write('close');
            });
        assert.equal(code, 0, out);
        assert.match(out, /<<< TLS 1\.[23], Alert \[length 0002\], warning/);
        assert.match(out, /close_notify\n(?:.|\n)*closed/);
        await server.sees('end code=1000');
        await client(server, [], async (child, said) => {
            await said('Verify return code');
            child.stdin.write('Q\n');
        });
        await server.sees('end code=1005 cause=2');
    }));

test('a client that is killed without close_notify is 1006', () =>
    withSecure(['host', ...raw], async (server) => {
        await client(server, [], async (child, said) => {
            await said('Verify return code');
            child.kill('SIGKILL');
        });
        await server.sees('end code=1006');
        assert.equal(server.count('end code=1005'), 0);
    }));

test('a client needs a certificate where the server asks for one', () =>
    withSecure(['host', '--ca', certFile('authority')], async (server) => {
        await refused(server, /alert (handshake failure|certificate required)/,
                      '-tls1_2');
        await refused(server, /alert unknown ca/, '-tls1_2', '-cert',
                      certFile('foreign'), '-key', keyFile('foreign'));
        await shaken(server, '-tls1_2', '-cert', certFile('user'), '-key',
                     keyFile('user'));
    }));

// 8 MiB there and back.
async function loaded(server, ...args) {
    const text = `${'0123456789abcdef'.repeat(64)}\n`.repeat(8192);
    const { out } = await client(server, ['-quiet', '-nocommands', ...args],
        async (child, said) => {
            child.stdin.write(`${text}the end`);
            await said('the end');
            child.kill();
        });
    assert.equal(out.slice(out.indexOf('0123')), `${text}the end`);
}

test('8 MiB come back whole through s_client', () =>
    withSecure(['host', ...raw], (server) => loaded(server)));

// OpenSSL ends a line whose records are longer than was agreed upon.
test('a client that asks for short records gets short ones', () =>
    withSecure(['host', ...raw], async (server) => {
        for (const most of [512, 1024, 2048, 4096])
            await loaded(server, '-tls1_2', '-maxfraglen', most);
    }), 60000);

// ---- openssl as the server ----

// What the dialer tells of a server that does play(child) once it is there.
async function dialled(play) {
    let told;
    await command('openssl', ['s_server', '-accept', '127.0.0.1:0', '-tls1_2',
                              '-cert', certFile('host'), '-key',
                              keyFile('host')], async (child, said) => {
        const [, port] = await said(/ACCEPT 127\.0\.0\.1:(\d+)/);
        const end = dial(`tls://localhost:${port}`, '--ca',
                         certFile('authority'), '--messages', 0, '--wait', 1,
                         '--limit-ms', 8000);
        await said('CIPHER is');
        play(child);
        told = await end;
        child.kill();
    });
    assert.match(told.out, /^open /m);
    return told;
}

test('dialled: renegotiation is refused and ends the session', async () => {
    for (const word of ['r', 'R']) {
        const told = await dialled((child) => child.stdin.write(`${word}\n`));
        assert.deepEqual([told.code, told.reason],
                         [1006, 'TLS: renegotiation']);
    }
});

test('dialled: s_server that goes without close_notify is 1006', async () => {
    for (const go of [(child) => child.stdin.write('q\n'),
                      (child) => child.kill('SIGKILL')])
        assert.equal((await dialled(go)).code, 1006);
});

// ---- curl ----

const curl = (server, what, ...args) => command('curl',
    ['--silent', '--show-error', '--max-time', '10', '--noproxy', '*',
     ...args, `https://localhost:${server.port}${what}`]);

const trust = ['--cacert', certFile('authority')];

for (const name of ['host', 'rsa', 'deep'])
    test(`curl gets what rt_reply and the library answer: ${name}`, () =>
        withSecure([name], async (server) => {
            const { code, out } = await curl(server, '/', ...trust);
            assert.equal(code, 0, out);
            assert.equal(out, '<!doctype html><title>secure</title>\n');
            for (const [what, status] of [['/ws', 426], ['/nothing', 404]]) {
                const { out } = await curl(server, what, ...trust, '--include');
                assert.match(out, RegExp(`^HTTP/1.1 ${status} `));
            }
        }));

test('curl keeps the connection for a second request', () =>
    withSecure(['host'], async (server) => {
        const { code, out } = await curl(server, '/', ...trust, '--write-out',
            '%{num_connects} ', `https://localhost:${server.port}/rtnet.js`);
        assert.equal(code, 0, out);
        assert.match(out, /export function connect/);
        assert.match(out, /<\/title>\n0 $/);
    }));

const BAD_CERT = 60, BAD_PIN = 90, NO_TLS = 35;

test('curl distrusts: another authority, another host, late, alone',
    async () => {
        await withSecure(['host'], async (server) => {
            const { code } = await curl(server, '/', '--cacert',
                                        certFile('stranger'));
            assert.equal(code, BAD_CERT);
        });
        for (const name of ['other', 'late', 'early', 'lone', 'foreign'])
            await withSecure([name], async (server) => {
                const { code, out } = await curl(server, '/', ...trust);
                assert.equal(code, BAD_CERT, `${name}: ${out}`);
            });
    }, 30000);

test('curl and rt_dial accept the same pins', async () => {
    for (const name of ['host', 'rsa', 'lone'])
        await withSecure([name], async (server) => {
            const pinned = (of) => curl(server, '/', '--insecure',
                '--pinnedpubkey', `sha256//${pin(of)}`);
            const url = `wss://localhost:${server.port}/`;
            assert.equal((await pinned(name)).code, 0);
            assert.equal((await pinned('user')).code, BAD_PIN);
            const good = await dial(url, '--pin', pin(name));
            assert.equal(good.exit, 0, good.out);
            const bad = await dial(url, '--pin', pin('user'));
            assert.equal(bad.reason, 'certificate: not the pinned key');
        });
}, 30000);

test('curl is not served with TLS 1.1, nor without TLS', () =>
    withSecure(['rsa'], async (server) => {
        const { code } = await curl(server, '/', '--insecure', '--tls-max',
                                    '1.1', '--ciphers', 'ALL:@SECLEVEL=0');
        assert.equal(code, NO_TLS);
        const plain = await command('curl', ['--silent', '--max-time', '10',
            '--noproxy', '*', `http://localhost:${server.port}/`]);
        assert.notEqual(plain.code, 0);
        assert.doesNotMatch(plain.out, /HTTP|title/);
    }));

await done();
