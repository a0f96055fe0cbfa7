/**
 * The client of rtnet.1, the resume protocol, for browsers and Node: what is
 * sent while the line is down arrives once and in order when it is up again.
 *
 *     const c = connect('wss://game.example/ws', {
 *         open: () => c.send('hello'), message: (data) => show(data) });
 *
 * Each session ends with one close.  If that is not final (4503: it was away
 * for too long; 1012: the server restarts) a new one follows, by open.  Where
 * rtnet.1 is not chosen, sessions end with their sockets.  Most browsers fail
 * such a connection and do not say why: if it thrice fails with rtnet.1 and
 * works without, it is no longer offered.  MIT licence, see LICENSE.
 * @typedef {{code: number, reason: string, lost: number, final: boolean}} End
 * @typedef {object} Options handlers, none runs inside a call, and settings
 * @property {() => void} [open]
 * @property {(data: string | ArrayBuffer) => void} [message]
 * @property {(code: number, reason: string) => void} [away] the line is lost
 * @property {(lost: number) => void} [back] it is back, without so many
 * @property {(end: End) => void} [close] lost: not known to have arrived
 * @property {() => void} [writable] send was refused; now half is free
 * @property {(ms: number) => void} [retry] the next attempt is after ms
 * @property {number} [minDelay] 500 ms: that is a random part of a delay which
 * @property {number} [maxDelay] doubles to 20,000 ms, and the server's retry=
 * @property {any} [WebSocket] the constructor, where there is no global one
 */
const MESSAGES = 128, BYTES = 65536, M = 109, U = 117; // most kept; m and u
const NUMBER = '(0|[1-9]\\d{0,15})', ACK = RegExp(`^a${NUMBER}$`);
const WELCOME = RegExp('^w([\\w-]{21}[AQgw]|-) ([\\w-]{1,22}) ' +
                       `${NUMBER} ${NUMBER} (new|resumed|gap) ${NUMBER}$`);
const COMES_BACK = /^(100[156]|101[1-5]|3[0-4]\d\d|4[0-4]\d\d)$/;
const encoder = new TextEncoder(), now = () => performance.now();
const sizeOf = (data) => data.byteLength ?? encoder.encode(data).length;

// A copy with the type byte in front.
const framed = (type, data) => typeof data === 'string' ?
    String.fromCharCode(type) + data : Uint8Array.from([type, ...new Uint8Array(
        data.buffer ?? data, data.byteOffset, data.byteLength)]);

// acked, taken: how many of our messages the server has, the socket was given;
// kept: those after acked, of so many bytes; received: how many of theirs.
const newSession = () => ({ token: '', attempt: 0, acked: 0, taken: 0,
                            kept: [], bytes: 0, full: false, received: 0 });

/** @param {string | (() => string)} url a function is asked each time
 * @param {Options} options */
export function connect(url, options = {}) {
    const { minDelay = 500, maxDelay = 20000,
            WebSocket = globalThis.WebSocket } = options;
    let state = 'connecting', id = '', rtt = null, s = newSession();
    let ws, phase, timer, delay = minDelay; // dialing, greeting, live, plain
    let step = 0; // odd: rtnet.1 is not offered; 5: never more; 6: was chosen
    let ping, since, heard, due, owed, owedBytes; // due: our next a

    const emit = (name, ...values) => queueMicrotask(() =>
        (state !== 'closed' || name === 'close') && options[name]?.(...values));

    function after(ms, run) {
        clearTimeout(timer);
        timer = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    }

    function dial() {
        ws = new WebSocket(typeof url === 'function' ? url() : url,
                           step % 2 ? [] : ['rtnet.1']);
        ws.binaryType = 'arraybuffer';
        ws.onopen = connected;
        ws.onmessage = ({ data }) => read(data);
        ws.onclose = ({ code, reason }) => lose(code, reason);
        ws.onerror = ({ message }) => // a refusal; only Node's ws tells it
            /response: 4(?!29)\d\d$/.test(message) && end(1006, message);
        phase = 'dialing';
        after(10000, () => lose(1006, 'no connection'));
    }

    function connected() {
        if (step % 2 && step < 5) { // it works; is it rtnet.1 that does not?
            step++;
            drop(1000, '');
            return dial();
        }
        phase = ws.protocol === 'rtnet.1' ? 'greeting' : 'plain';
        [rtt, since] = [null, now()];
        after(5000, () => phase === 'greeting' && lose(1006, 'no welcome'));
        if (phase === 'plain')
            return begin('', '');
        step = 6;
        ws.send(s.token ? `h${s.token} ${s.received} ${++s.attempt}` : 'h');
    }

    function read(data) {
        const text = typeof data === 'string', live = phase === 'live';
        const type = text ? data.charCodeAt(0) : new Uint8Array(data)[0];
        heard = now();
        if (phase === 'plain')
            return emit('message', data);
        if (live && type === M) { // lateness is allowed, but they keep it
            s.received++;
            owedBytes += sizeOf(data) - 1;
            due = ++owed === 16 || owedBytes >= 16384 ? 0 :
                Math.min(due, heard + 500);
            watch();
        }
        if (live && (type === M || type === U))
            return emit('message', data.slice(1));
        const fields = text && (live ? ACK : WELCOME).exec(data);
        (live ? acknowledged : welcomed)(...fields || []);
    }

    function welcomed(all, token, name, ...rest) {
        const [got, base, , beat] = rest.map(Number), status = rest[2];
        const lost = base - s.received, fine = status === 'new' ? !got && !base
            : s.token && token !== '-' && name === id && got >= s.acked &&
            got <= s.taken && (status === 'gap' ? lost > 0 : lost === 0);
        if (!fine || ![got, base, beat].every(Number.isSafeInteger))
            return end(1002, 'bad welcome');
        phase = 'live';
        ping = beat || Infinity;
        s.received = base;
        due = 0; // an a goes before all else; it voids the old token
        watch();
        if (status === 'new') {
            begin(token === '-' ? '' : token, name);
        } else {
            Object.assign(s, { token, attempt: 0, taken: got });
            state = 'open';
            emit('back', lost);
            acknowledged('', got);
            pump();
        }
        rtt = heard - since;
    }

    function begin(token, name) {
        if (state === 'away')
            end(4503, 'the server forgot the session', false);
        [s.token, id, state] = [token, name, 'open'];
        emit('open');
    }

    // Acknowledges, or breaks our silence; gives up after theirs.
    function watch() {
        const silent = heard + 2 * ping + 5000;
        if (now() > silent)
            return lose(1006, 'silence');
        if (now() >= due) {
            ws.send(`a${s.received}`);
            [due, owed, owedBytes] = [now() + ping, 0, 0];
        }
        after(Math.min(due, silent) - now() + 1, watch);
    }

    function acknowledged(all, n) {
        if (!(n >= s.acked && n <= s.taken))
            return end(1002, 'neither m, u nor a good a');
        for (const { size, at } of s.kept.splice(0, n - s.acked)) {
            s.bytes -= size;
            rtt = Math.min(Math.max(rtt, heard - at - 500), heard - at);
        }
        s.acked = +n;
        if (s.full && s.kept.length <= MESSAGES / 2 && s.bytes <= BYTES / 2) {
            s.full = false;
            emit('writable');
        }
    }

    function pump() {
        while (phase === 'live' && s.taken < s.acked + s.kept.length) {
            const message = s.kept[s.taken++ - s.acked];
            message.at = now();
            ws.send(message.frame);
        }
    }

    /** A copy is kept until it has arrived.  False: not sent, as there is no
     * session, or 128 messages or 64 KiB are on their way (writable follows),
     * or a droppable one cannot go now.
     * @param {string | ArrayBuffer | ArrayBufferView} data */
    function send(data, { droppable = false } = {}) {
        const size = sizeOf(data), plain = phase === 'plain';
        if (state !== 'open' && (droppable || state !== 'away') ||
            droppable && ws.bufferedAmount > BYTES)
            return false;
        if (droppable || plain) {
            ws.send(plain ? data : framed(U, data));
            return true;
        }
        if (size > BYTES)
            throw new RangeError('larger than 64 KiB');
        s.full ||= s.kept.length === MESSAGES || s.bytes + size > BYTES;
        if (s.full)
            return false;
        s.bytes += size;
        s.kept.push({ frame: framed(M, data), size, at: 0 });
        pump();
        return true;
    }

    // The connection is lost or given up; 1000 would end the session.
    function lose(code, reason) {
        const told = /\bretry=(\d{1,9})\b/.exec(reason)?.[1] ?? 0;
        if (!COMES_BACK.test(code))
            return end(code, reason);
        const again = phase === 'dialing' && step < 5 && step % 2 === 0;
        step = again ? step + 1 : step < 5 ? 0 : step;
        drop(4000, '');
        if (again)
            return dial();
        if (state === 'open' && now() - since > delay)
            delay = minDelay;
        if (code === 1012 || !s.token)
            end(code, reason, false);
        else if (state === 'open')
            emit('away', code, reason);
        state = s.token ? 'away' : 'connecting';
        const ms = Number(told) + Math.random() * delay;
        delay = Math.min(maxDelay, 2 * delay);
        after(ms, dial);
        emit('retry', ms);
    }

    // Nothing more is read, so that nothing more is counted.
    function drop(code, reason) {
        ws?.close(code, reason); // throws if the host's code is a wrong one
        clearTimeout(timer);
        Object.assign(ws ?? {}, { onopen: null, onmessage: null,
                                  onclose: null, onerror() {} });
        ws = phase = undefined;
    }

    function end(code, reason, final = true, wire = 1000) {
        if (final)
            drop(wire, reason);
        if (final || state !== 'connecting')
            emit('close', { code, reason, lost: s.kept.length, final });
        state = final ? 'closed' : 'connecting';
        s = newSession();
    }

    dial();
    return {
        send,
        close: (code = 1000, reason = '') => // the server keeps it if not 1000
            void (state === 'closed' || end(code, reason, true, code)),
        retry: () => void (ws || state === 'closed' || dial()), // now
        get state() { return state; }, // connecting, open, away or closed
        get id() { return id; }, // the session's public name, '' if plain
        // Round trip in ms, null if plain: exact when the line comes up; then
        get rtt() { return rtt; }, // within what a's, 0..500 ms late, allow
    };
}
