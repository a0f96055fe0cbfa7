/**
 * The client side of rtnet.1, the resume protocol, over WebSocket, for
 * browsers and Node: a session outlives its socket.  What is sent while the
 * line is down arrives once and in order when it is up again, either way.
 *
 *     import { connect } from './rtnet.js';
 *     const c = connect('wss://game.example/ws', {
 *         open: () => c.send('hello'), message: (data) => show(data) });
 *
 * Each session ends with one close.  Where that is not final (the server was
 * restarted, or the session was away for too long) a new one follows with its
 * open.  A page that is loaded again is a new session.
 *
 * A server that does not choose rtnet.1 gives plain sessions, which end with
 * their sockets.  As most browsers fail a connection for which it chose
 * nothing, and do not say why, an attempt that fails before rtnet.1 was ever
 * chosen is repeated at once without offering it.  Nor do browsers tell the
 * status of a refusal; Node's ws does, and 4xx but 429 is final there.
 *
 * MIT licence, see LICENSE.
 *
 * @typedef {object} End lost: not known to have arrived (0 if plain); final:
 *     no session follows; code 1006: lost, 4503: the server forgot the session
 * @property {number} code @property {string} reason
 * @property {number} lost @property {boolean} final
 *
 * @typedef {object} Options handlers, never run inside a call, and settings
 * @property {() => void} [open]
 * @property {(data: string | ArrayBuffer) => void} [message]
 * @property {(code: number, reason: string) => void} [away] the line is lost
 * @property {(lost: number) => void} [back] it is back, but for so many
 * @property {(end: End) => void} [close]
 * @property {() => void} [writable] send was refused; now half is free
 * @property {(ms: number) => void} [retry] an attempt is made after ms
 * @property {any} [WebSocket] the constructor, where there is no global one
 * @property {string[]} [protocols] more sub-protocols to offer
 * @property {number} [minDelay] the wait before an attempt is random, up to
 *     500 ms, and what retry=<ms> in a close reason says
 * @property {number} [maxDelay] each failure doubles that, up to 20,000 ms
 */
const MESSAGES = 128, BYTES = 65536; // kept until they are acknowledged
const encoder = new TextEncoder(), now = () => performance.now();
const sizeOf = (data) => typeof data === 'string' ?
    encoder.encode(data).length : data.byteLength;

// NaN, which no comparison likes, for what is no number of the protocol.
const number = (text) => /^(0|[1-9]\d{0,15})$/.test(text) &&
    Number.isSafeInteger(+text) ? +text : NaN;

const comesBack = (code) => [1001, 1005, 1006].includes(code) ||
    (code >= 1011 && code <= 1015) || (code >= 3000 && code <= 3499) ||
    (code >= 4000 && code <= 4499);

// n: our messages; acked of them, taken by this socket, top: ever taken; kept:
// acked + 1 ... n; received: how many of theirs.
const newSession = () => ({ token: '', try: 0, n: 0, acked: 0, taken: 0,
    top: 0, kept: [], bytes: 0, full: false, received: 0 });

// A copy with the type byte in front.
function framed(type, data) {
    if (typeof data === 'string')
        return type + data;
    const frame = new Uint8Array(data.byteLength + 1);
    frame[0] = type.charCodeAt(0);
    frame.set(new Uint8Array(data.buffer ?? data, data.byteOffset,
                             data.byteLength), 1);
    return frame;
}

/**
 * @param {string | (() => string)} url a function is asked at each attempt
 * @param {Options} [options]
 */
export function connect(url, options = {}) {
    const { WebSocket = globalThis.WebSocket, protocols = [],
            minDelay = 500, maxDelay = 20000 } = options;
    let state = 'connecting', id = '', rtt = null, retryAt = 0;
    let ws, phase; // dialing, greeting, live or plain
    let offers = true, chosen = false; // rtnet.1: in this attempt, ever
    let timer, ackTimer, owed = 0, owedBytes = 0; // acknowledgements
    let ping, since, heard, wrote, fails = 0, s = newSession();

    function emit(name, ...values) {
        queueMicrotask(() => (state !== 'closed' || name === 'close') &&
            options[name]?.(...values));
    }

    function after(ms, run) {
        clearTimeout(timer);
        timer = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    }

    function write(data) {
        wrote = now();
        ws.send(data);
        return true;
    }

    function dial() {
        retryAt = 0;
        ws = new WebSocket(typeof url === 'function' ? url() : url,
                           offers ? ['rtnet.1', ...protocols] : protocols);
        ws.binaryType = 'arraybuffer';
        ws.onopen = connected;
        ws.onmessage = (event) => read(event.data);
        ws.onclose = (event) => lose(event.code, event.reason);
        ws.onerror = ({ message }) => {
            const [, status] = /response: (4\d\d)$/.exec(message) ?? [];
            if (status && status !== '429')
                end(1006, `HTTP ${status}`);
        };
        phase = 'dialing';
        after(10000, () => lose(1006, 'no connection'));
    }

    function connected() {
        phase = ws.protocol === 'rtnet.1' ? 'greeting' : 'plain';
        rtt = null;
        since = now();
        clearTimeout(timer);
        if (phase === 'plain')
            return begin('', '');
        chosen = true;
        after(5000, () => lose(1006, 'no welcome'));
        write(s.token ? `h${s.token} ${s.received} ${++s.try}` : 'h');
    }

    function read(data) {
        const text = typeof data === 'string', live = phase === 'live';
        const type = text ? data[0] :
            String.fromCharCode(new Uint8Array(data)[0]);
        heard = now();
        if (phase === 'plain')
            return emit('message', data);
        if (live && type === 'm')
            count(sizeOf(data) - 1);
        if (live && (type === 'm' || type === 'u'))
            emit('message', data.slice(1));
        else if (live && text && type === 'a')
            acknowledged(number(data.slice(1)));
        else if (!live && text && type === 'w')
            welcomed(...data.slice(1).split(' '));
        else
            end(1002, 'unexpected message');
    }

    function welcomed(token, name, ...rest) {
        const [got, base, , beat] = rest.map(number), status = rest[2];
        const lost = base - s.received, known = s.token && token !== '-' &&
            name === id && got >= s.acked && got <= s.top;
        if (!/^([\w-]{21}[AQgw]|-)$/.test(token) || rest.length !== 4 ||
            !/^[\w-]{1,22}$/.test(name) || !(beat >= 0) ||
            !(status === 'new' && got === 0 && base === 0 || known &&
              (status === 'resumed' && lost === 0 ||
               status === 'gap' && lost > 0)))
            return end(1002, 'bad welcome');
        phase = 'live';
        rtt = heard - since;
        ping = beat;
        s.received = base;
        acknowledge(); // before all else; the old token is void now
        watch();
        if (status === 'new')
            return begin(token === '-' ? '' : token, name);
        Object.assign(s, { token, try: 0, taken: got });
        state = 'open';
        emit('back', lost);
        free(got);
        pump();
    }

    // A new session; one that was away is gone.
    function begin(token, name) {
        if (state === 'away')
            over(4503, 'the server forgot the session', false);
        s.token = token;
        id = name;
        state = 'open';
        emit('open');
    }

    // Lateness is allowed, but until then they keep what we have.
    function count(size) {
        s.received++;
        owedBytes += size;
        ackTimer ??= setTimeout(acknowledge, 500);
        if (++owed === 16 || owedBytes >= 16384)
            acknowledge();
    }

    function acknowledge() {
        clearTimeout(ackTimer);
        ackTimer = undefined;
        owed = owedBytes = 0;
        write(`a${s.received}`);
    }

    function acknowledged(n) {
        if (!(n >= s.acked && n <= s.taken))
            return end(1002, 'bad acknowledgement');
        const gone = free(n);
        if (gone.length) // up to 500 ms late for the first, early for none
            rtt = Math.min(Math.max(rtt, heard - gone[0].at - 500),
                           heard - gone.at(-1).at);
    }

    function free(n) {
        const gone = s.kept.splice(0, n - s.acked);
        s.acked = n;
        gone.forEach(({ size }) => (s.bytes -= size));
        if (s.full && s.kept.length <= MESSAGES / 2 && s.bytes <= BYTES / 2) {
            s.full = false;
            emit('writable');
        }
        return gone;
    }

    function pump() {
        while (phase === 'live' && s.taken < s.n) {
            const message = s.kept[s.taken - s.acked];
            message.at = now();
            s.top = Math.max(s.top, ++s.taken);
            write(message.frame);
        }
    }

    // Breaks our silence, gives up after theirs.
    function watch() {
        const time = now(), end = heard + 2 * ping + 5000;
        clearTimeout(timer);
        if (!ping)
            return;
        if (time > end)
            return lose(1006, 'silence');
        if (time >= wrote + ping)
            acknowledge();
        after(Math.min(end, wrote + ping) - time + 1, watch);
    }

    // The connection is lost or given up; 1000 would end the session.
    function lose(code, reason) {
        const longest = () => Math.min(maxDelay, minDelay * 2 ** fails);
        const told = +(/\bretry=(\d{1,9})(?!\d)/.exec(reason)?.[1] ?? 0);
        offers = !offers || phase !== 'dialing' || chosen;
        if (!comesBack(code))
            return end(code, reason);
        drop(4000, '');
        if (!offers)
            return dial();
        if (state === 'open' && now() - since > longest())
            fails = 0;
        if (code === 4003)
            s.try *= 2;
        if (code === 1012 || !s.token)
            over(code, reason, false);
        else if (state === 'open')
            emit('away', code, reason, state = 'away');
        const ms = told + Math.random() * longest();
        fails += told ? 0 : 1;
        retryAt = now() + ms;
        after(ms, dial);
        emit('retry', ms);
    }

    // Nothing more is read, so that nothing more is counted.
    function drop(code, reason) {
        ws?.close(code, reason);
        for (const name of ws ? ['open', 'message', 'close'] : [])
            ws[`on${name}`] = null;
        if (ws)
            ws.onerror = () => {}; // Node's ws insists
        clearTimeout(timer);
        clearTimeout(ackTimer);
        ws = phase = ackTimer = undefined;
        retryAt = owed = owedBytes = 0;
    }

    function over(code, reason, final) {
        const lost = s.kept.length;
        if (state !== 'connecting' || final)
            emit('close', { code, reason, lost, final });
        state = final ? 'closed' : 'connecting';
        s = newSession();
    }

    function end(code, reason, wire = 1000) {
        if (state === 'closed')
            return;
        drop(wire, reason);
        over(code, reason, true);
    }

    function send(data, { droppable = false } = {}) {
        const size = sizeOf(data), plain = phase === 'plain';
        if (state !== 'open' && (droppable || state !== 'away') ||
            droppable && ws.bufferedAmount > BYTES)
            return false;
        if (plain || droppable)
            return write(plain ? data : framed('u', data));
        if (size > BYTES)
            throw new RangeError('larger than 64 KiB');
        s.full ||= s.kept.length === MESSAGES || s.bytes + size > BYTES;
        if (s.full)
            return false;
        s.kept.push({ frame: framed('m', data), size, at: 0 });
        s.bytes += size;
        s.n++;
        pump();
        if (s.n === Number.MAX_SAFE_INTEGER)
            end(1000, 'count');
        return true;
    }

    dial();
    return {
        /**
         * Sends a message; a copy is kept until it has arrived.  False, and
         * not sent: there is no session, or 128 messages or 64 KiB are on
         * their way; writable follows.  A droppable one: now or never.
         * @type {(data: string | ArrayBuffer | ArrayBufferView,
         *     options?: {droppable?: boolean}) => boolean}
         */
        send,
        /** Ends the session.  The server keeps it for another code. */
        close: (code = 1000, reason = '') => end(code, reason, code),
        /** Makes the next attempt now, if one is waited for. */
        retry: () => retryAt && dial(),
        /** 'connecting', 'open', 'away' or 'closed'. */
        get state() { return state; },
        /** The public name of the session; '' if plain. */
        get id() { return id; },
        /** performance.now() of the next attempt, 0 if none is waited for. */
        get retryAt() { return retryAt; },
        /** The round trip in ms, null if plain: exact when the line comes up,
         * then within what acknowledgements, up to 500 ms late, allow. */
        get rtt() { return rtt; },
    };
}
