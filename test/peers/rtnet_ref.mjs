// A second server side of rtnet.1, over Node's ws, written from the protocol's
// text alone, to test the client against something other than the library.
// Every message goes to all sessions, or to on.message(session, data) if that
// is given.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

const TOKEN = '[\\w-]{21}[AQgw]', NUMBER = '(0|[1-9]\\d{0,15})';
const HELLO = RegExp(`^h(?:(${TOKEN}) ${NUMBER} ${NUMBER})?$`);
const ACK = RegExp(`^a${NUMBER}$`);
const CAP_COUNT = 128, CAP_BYTES = 65536;
const name = (bytes) => randomBytes(bytes).toString('base64url');

class Session {
    state = 'open';
    id = name(9);
    conn = null;
    current = null; // {token, attempt}
    previous = null;
    n = 0;
    acked = 0;
    taken = 0;
    top = 0;
    received = 0;
    owed = 0;
    kept = [];
    bytes = 0;
    lost = 0; // told by gaps
    resumes = [];

    constructor(server) {
        this.server = server;
    }

    send(data) {
        if (this.state === 'closed')
            return false;
        const size = Buffer.byteLength(data);
        this.n++;
        this.kept.push({ data, size });
        this.bytes += size;
        this.write();
        this.forget();
        return true;
    }

    sendDroppable(data) {
        if (this.state === 'open')
            this.conn.frame('u', data);
    }

    write() {
        if (this.state !== 'open')
            return;
        while (this.taken < this.n) {
            const at = this.kept.length - (this.n - this.taken);
            this.conn.frame('m', this.kept[at].data);
            this.top = Math.max(this.top, ++this.taken);
        }
    }

    get first() {
        return this.n - this.kept.length;
    }

    forget() {
        while (this.kept.length > CAP_COUNT || this.bytes > CAP_BYTES)
            this.bytes -= this.kept.shift().size;
    }

    free(n) {
        while (this.first < n && this.kept.length)
            this.bytes -= this.kept.shift().size;
        this.acked = n;
    }

    away() {
        this.conn = null;
        this.state = 'away';
        clearTimeout(this.ackTimer);
        this.ackTimer = null;
        this.window = setTimeout(() => this.end(4503),
                                 this.server.options.resumeMs);
        this.server.options.away?.(this);
    }

    // code 1000 and violations; the connection is closed by the caller.
    end(code) {
        if (this.state === 'closed')
            return;
        clearTimeout(this.window);
        clearTimeout(this.ackTimer);
        this.state = 'closed';
        this.conn = null;
        this.server.forget(this);
        this.server.options.close?.(this, code);
    }

    close(code, reason) {
        const { conn } = this;
        this.end(code);
        conn?.ws.close(code, reason);
    }

    count(size) {
        this.received++;
        this.owedBytes = (this.owedBytes ?? 0) + size;
        if (++this.owed === 16 || this.owedBytes >= 16384)
            this.acknowledge();
        else
            this.ackTimer ??= setTimeout(() => this.acknowledge(), 500);
    }

    acknowledge() {
        clearTimeout(this.ackTimer);
        this.ackTimer = null;
        this.owed = this.owedBytes = 0;
        this.conn?.control(`a${this.received}`);
    }
}

class Conn {
    session = null;
    confirmed = false;

    constructor(server, ws) {
        this.server = server;
        this.ws = ws;
        this.deadline = setTimeout(() => ws.close(1013, 'retry=0'), 5000);
        this.beat = setInterval(() => this.pulse(), server.options.pingMs);
        ws.on('message', (data, binary) => this.read(data, binary));
        ws.on('error', () => {});
        ws.on('close', (code) => this.closed(code));
    }

    owns() {
        return this.session?.conn === this;
    }

    pulse() {
        if (this.owns() && !this.spoke)
            this.control(`a${this.session.received}`);
        this.spoke = false;
    }

    control(text) {
        this.spoke = true;
        this.ws.send(text);
    }

    frame(type, data) {
        this.spoke = true;
        this.ws.send(typeof data === 'string' ? type + data :
            Buffer.concat([Buffer.from(type), data]));
    }

    closed(code) {
        clearTimeout(this.deadline);
        clearInterval(this.beat);
        if (!this.owns())
            return;
        if (code === 1000)
            this.session.end(1000);
        else
            this.session.away();
    }

    violation() {
        if (this.owns())
            this.session.close(1002, '');
        else
            this.ws.close(1002);
        this.over = true;
    }

    read(data, binary) {
        const type = String.fromCharCode(data[0]), text = data.toString();
        if (this.over || (this.session && !this.owns()))
            return;
        if (!this.session)
            this.hello(!binary && HELLO.exec(text));
        else if (!this.confirmed && type !== 'a')
            this.violation();
        else if (!binary && type === 'a')
            this.ack(ACK.exec(text));
        else if (type === 'm' || type === 'u')
            this.message(type, binary ? data.subarray(1) : text.slice(1));
        else
            this.violation();
    }

    message(type, data) {
        if (type === 'm')
            this.session.count(Buffer.byteLength(data));
        this.server.deliver(this.session, data);
    }

    ack(found) {
        const n = Number(found?.[1]), s = this.session;
        if (!(n >= s.acked && n <= s.taken)) {
            this.violation();
            return;
        }
        clearTimeout(this.deadline);
        s.free(n);
        if (s.previous)
            this.server.tokens.delete(s.previous.token);
        s.previous = null;
        this.confirmed = true;
    }

    hello(found) {
        const numbers = found?.[1] ? [found[2], found[3]].map(Number) : [];
        if (!found || !numbers.every(Number.isSafeInteger)) {
            this.violation();
            return;
        }
        const s = this.server.tokens.get(found[1]);
        if (s)
            this.resume(s, found[1], ...numbers);
        else
            this.fresh();
    }

    welcome(s, received, base, status) {
        const token = name(16);
        s.current = { token, attempt: 0 };
        this.server.tokens.set(token, s);
        s.conn = this;
        this.session = s;
        s.state = 'open';
        s.taken = base;
        this.control(`w${token} ${s.id} ${received} ${base} ${status} ` +
                     `${this.server.options.pingMs}`);
    }

    fresh() {
        const s = new Session(this.server);
        this.server.sessions.add(s);
        this.welcome(s, 0, 0, 'new');
        this.server.options.open?.(s);
    }

    resume(s, token, received, attempt) {
        const shown = s.current.token === token ? s.current : s.previous;
        const now = Date.now();
        s.resumes = s.resumes.filter((time) => now - time < 10000);
        if (attempt <= shown.attempt)
            return this.refuse(4003, '');
        if (received > s.top)
            return this.refuse(1002, '');
        if (s.resumes.length >= this.server.options.resumesIn10s)
            return this.refuse(1013, 'retry=500');
        s.resumes.push(now);
        this.server.resumed++;
        if (s.conn)
            this.takeOver(s);
        clearTimeout(s.window);
        for (const old of [s.current, s.previous])
            if (old && old !== shown)
                this.server.tokens.delete(old.token);
        shown.attempt = attempt;
        s.previous = shown;
        this.attach(s, received);
    }

    attach(s, received) {
        s.free(received);
        const gap = received < s.first, base = gap ? s.n : received;
        if (gap) {
            s.free(s.n);
            s.lost += base - received;
        }
        s.owed = s.owedBytes = 0;
        this.welcome(s, s.received, base, gap ? 'gap' : 'resumed');
        this.server.options.back?.(s, gap ? base - received : 0);
        s.write();
    }

    takeOver(s) {
        const old = s.conn;
        s.conn = null;
        clearTimeout(s.ackTimer);
        s.ackTimer = null;
        this.server.takenOver++;
        old.ws.close(4504);
        this.server.options.away?.(s);
    }

    refuse(code, reason) {
        this.over = true;
        this.ws.close(code, reason);
    }
}

class Server {
    sessions = new Set();
    tokens = new Map();
    resumed = 0;
    takenOver = 0;

    constructor(options) {
        this.options = { resumeMs: 15000, pingMs: 15000, resumesIn10s: 20,
                         ...options };
    }

    forget(session) {
        this.sessions.delete(session);
        for (const one of [session.current, session.previous])
            if (one)
                this.tokens.delete(one.token);
    }

    deliver(from, data) {
        if (this.options.message)
            this.options.message(from, data);
        else
            this.sessions.forEach((session) => session.send(data));
    }
}

// Options: resumeMs, pingMs, resumesIn10s, and the handlers open, message,
// away, back, close.
export async function startRef(options = {}) {
    const self = new Server(options);
    const wss = new WebSocketServer({
        port: 0, host: '127.0.0.1', perMessageDeflate: false,
        handleProtocols: (offered) => offered.has('rtnet.1') && 'rtnet.1',
    });
    wss.on('connection', (ws) => {
        if (ws.protocol === 'rtnet.1')
            new Conn(self, ws);
    });
    await once(wss, 'listening');
    self.port = wss.address().port;
    self.stop = async () => {
        self.sessions.forEach((session) => session.end(1001));
        wss.clients.forEach((ws) => ws.terminate());
        wss.close();
        await once(wss, 'close');
    };
    return self;
}
