/**
 * The client of rtnet.1, the resume protocol, for browsers and Node: what is
 * sent while the line is down arrives once and in order when it is up again.
 *
 *     const c = connect('wss://game.example/ws', {
 *         open: () => c.send('hello'), message: (data) => show(data) });
 *
 * Each session ends with one close.  If that is not final (the server was
 * restarted, or the session was away for too long) a new one follows, by open.
 * A server that does not choose rtnet.1 gives plain sessions, which end with
 * their sockets.  Most browsers fail the connection then and do not say why; so
 * an attempt that fails before rtnet.1 was ever chosen is repeated at once
 * without offering it.  MIT licence, see LICENSE.
 *
 * @typedef {object} Options handlers, none runs inside a call, and settings
 * @property {() => void} [open]
 * @property {(data: string | ArrayBuffer) => void} [message]
 * @property {(code: number, reason: string) => void} [away] the line is lost
 * @property {(lost: number) => void} [back] it is back, without so many
 * @property {(end: {code: number, reason: string, lost: number, final:
 *     boolean}) => void} [close] code 4503: the server forgot the session;
 *     lost: of ours, not known to have arrived (plain: 0)
 * @property {() => void} [writable] send was refused; now half is free
 * @property {(ms: number) => void} [retry] an attempt is made after ms: a
 *     random part of a delay that doubles, and retry=<ms> of a close reason
 * @property {number} [minDelay] 500 ms
 * @property {number} [maxDelay] 20,000 ms
 * @property {any} [WebSocket] the constructor, where there is no global one
 */
const MESSAGES = 128, BYTES = 65536; // kept until they are acknowledged
const NUMBER = '(0|[1-9]\\d{0,15})', ACK = RegExp(`^a${NUMBER}$`);
const WELCOME = RegExp('^w([\\w-]{21}[AQgw]|-) ([\\w-]{1,22}) ' +
                       `${NUMBER} ${NUMBER} (new|resumed|gap) ${NUMBER}$`);
const COMES_BACK = /^(100[156]|101[1-5]|3[0-4]\d\d|4[0-4]\d\d)$/;
const encoder = new TextEncoder(), now = () => performance.now();
const sizeOf = (data) => typeof data === 'string' ?
    encoder.encode(data).length : data.byteLength;

// A copy with the type byte in front.
const framed = (type, data) => typeof data === 'string' ? type + data :
    Uint8Array.from([type.charCodeAt(0), ...new Uint8Array(
        data.buffer ?? data, data.byteOffset, data.byteLength)]);

// n: our last message; acked: of them; taken: by this socket; top: ever taken;
// kept: acked + 1 ... n; received: of theirs.
const newSession = () => ({ token: '', try: 0, n: 0, acked: 0, taken: 0,
    top: 0, kept: [], bytes: 0, full: false, received: 0 });

/** @param {string | (() => string)} url a function is asked each time
 * @param {Options} options */
export function connect(url, options = {}) {
    const { minDelay = 500, maxDelay = 20000,
            WebSocket = globalThis.WebSocket } = options;
    let state = 'connecting', id = '', rtt = null, s = newSession();
    let ws, phase, timer, delay = minDelay; // dialing, greeting, live, plain
    let offers = true, chosen = false; // rtnet.1: in this attempt, ever
    let ping, since, heard, wrote, owed, owedBytes, due; // due: our next a

    const emit = (name, ...values) => queueMicrotask(() =>
        (state !== 'closed' || name === 'close') && options[name]?.(...values));

    function after(ms, run) {
        clearTimeout(timer);
        timer = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    }

    function write(data) {
        wrote = now();
        ws.send(data);
    }

    function dial() {
        ws = new WebSocket(typeof url === 'function' ? url() : url,
                           offers ? ['rtnet.1'] : []);
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
        phase = ws.protocol === 'rtnet.1' ? 'greeting' : 'plain';
        clearTimeout(timer);
        rtt = null;
        since = now();
        if (phase === 'plain')
            return begin('', '');
        chosen = true;
        after(5000, () => lose(1006, 'no welcome'));
        write(s.token ? `h${s.token} ${s.received} ${++s.try}` : 'h');
    }

    function read(data) {
        heard = now();
        if (phase === 'plain')
            return emit('message', data);
        const text = typeof data === 'string', live = phase === 'live';
        const type = text ? data[0] :
            String.fromCharCode(new Uint8Array(data)[0]);
        if (live && type === 'm')
            count(sizeOf(data) - 1);
        if (live && (type === 'm' || type === 'u'))
            return emit('message', data.slice(1));
        const fields = text && (live ? ACK : WELCOME).exec(data);
        if (!fields)
            return end(1002, 'not rtnet.1');
        (live ? acknowledged : welcomed)(...fields);
    }

    function welcomed(all, token, name, ...rest) {
        const [got, base, , beat] = rest.map(Number), status = rest[2];
        const lost = base - s.received, fits = status === 'new' ?
            got === 0 && base === 0 :
            s.token && token !== '-' && name === id && got >= s.acked &&
            got <= s.top && (status === 'gap' ? lost > 0 : lost === 0);
        if (!fits || ![got, base, beat].every(Number.isSafeInteger))
            return end(1002, 'bad welcome');
        phase = 'live';
        rtt = heard - since;
        ping = beat || Infinity;
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
            end(4503, 'the server forgot the session', false);
        s.token = token;
        id = name;
        state = 'open';
        emit('open');
    }

    // Lateness is allowed, but until then they keep what we have.
    function count(size) {
        s.received++;
        owedBytes += size;
        due = ++owed === 16 || owedBytes >= 16384 ? 0 :
            Math.min(due, heard + 500);
        watch();
    }

    function acknowledge() {
        owed = owedBytes = 0;
        due = Infinity;
        write(`a${s.received}`);
    }

    function acknowledged(all, n) {
        if (n < s.acked || n > s.taken)
            return end(1002, 'bad acknowledgement');
        const gone = free(+n);
        if (gone.length) // up to 500 ms late for the first, early for none
            rtt = Math.min(Math.max(rtt, heard - gone[0].at - 500),
                           heard - gone.at(-1).at);
    }

    function free(n) {
        const gone = s.kept.splice(0, n - s.acked);
        gone.forEach(({ size }) => (s.bytes -= size));
        s.acked = n;
        if (s.full && s.kept.length <= MESSAGES / 2 && s.bytes <= BYTES / 2) {
            s.full = false;
            emit('writable');
        }
        return gone;
    }

    function pump() {
        for (; phase === 'live' && s.taken < s.n; s.taken++) {
            const message = s.kept[s.taken - s.acked];
            message.at = now();
            write(message.frame);
        }
        s.top = Math.max(s.top, s.taken);
    }

    // Breaks our silence, gives up after theirs.
    function watch() {
        const silent = heard + 2 * ping + 5000;
        if (now() > silent)
            return lose(1006, 'silence');
        if (now() >= Math.min(due, wrote + ping))
            acknowledge();
        after(Math.min(due, wrote + ping, silent) - now() + 1, watch);
    }

    // The connection is lost or given up; 1000 would end the session.
    function lose(code, reason) {
        const told = /\bretry=(\d{1,9})\b/.exec(reason)?.[1] ?? 0;
        if (!COMES_BACK.test(code))
            return end(code, reason);
        offers = !offers || chosen || phase !== 'dialing';
        drop(4000, '');
        if (!offers)
            return dial();
        if (state === 'open' && now() - since > delay)
            delay = minDelay;
        if (code === 1012 || !s.token)
            end(code, reason, false);
        if (state === 'open') {
            state = 'away';
            emit('away', code, reason);
        }
        const ms = Number(told) + Math.random() * delay;
        delay = Math.min(maxDelay, 2 * delay);
        after(ms, dial);
        emit('retry', ms);
    }

    // Nothing more is read, so that nothing more is counted.
    function drop(code, reason) {
        clearTimeout(timer);
        ws?.close(code, reason);
        Object.assign(ws ?? {}, { onopen: null, onmessage: null,
                                  onclose: null, onerror() {} });
        ws = phase = undefined;
    }

    function end(code, reason, final = true, wire = 1000) {
        if (state === 'closed')
            return;
        if (final)
            drop(wire, reason);
        if (final || state !== 'connecting')
            emit('close', { code, reason, lost: s.kept.length, final });
        state = final ? 'closed' : 'connecting';
        s = newSession();
    }

    function send(data, { droppable = false } = {}) {
        const size = sizeOf(data), plain = phase === 'plain';
        if (droppable ? state !== 'open' || ws.bufferedAmount > BYTES :
            state !== 'open' && state !== 'away')
            return false;
        if (droppable || plain)
            return write(plain ? data : framed('u', data)) ?? true;
        if (size > BYTES)
            throw new RangeError('larger than 64 KiB');
        s.full ||= s.kept.length === MESSAGES || s.bytes + size > BYTES;
        if (s.full)
            return false;
        s.kept.push({ frame: framed('m', data), size, at: 0 });
        s.bytes += size;
        s.n++;
        pump();
        return true;
    }

    dial();
    return {
        /** A copy is kept until it has arrived.  False, and not sent: there is
         * no session, or 128 messages or 64 KiB are on their way; writable
         * follows.  A droppable one goes now or never.
         * @type {(data: string | ArrayBuffer | ArrayBufferView,
         *     options?: {droppable?: boolean}) => boolean} */
        send,
        /** Ends the session; after another code the server keeps it. */
        close: (code = 1000, reason = '') => end(code, reason, true, code),
        /** Makes the next attempt now, if one is waited for. */
        retry: () => void (ws || state === 'closed' || dial()),
        /** 'connecting', 'open', 'away' or 'closed'. */
        get state() { return state; },
        /** The public name of the session, '' if plain. */
        get id() { return id; },
        /** Round trip in ms, null if plain: exact when the line comes up, then
         * what acknowledgements, which may wait for 500 ms, allow. */
        get rtt() { return rtt; },
    };
}
