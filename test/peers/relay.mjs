// A TCP relay that is a bad line: after a random number of bytes it resets,
// ends, stalls, slows down or half-kills each connection.  What it does to the
// n-th connection after how many bytes comes from the seed alone.
import { once } from 'node:events';
import net from 'node:net';

// 32 random bits at a time as a number below 1 (mulberry32).
export function random(seed) {
    let state = seed >>> 0;
    return () => {
        state = (state + 0x6d2b79f5) >>> 0;
        let x = Math.imul(state ^ (state >>> 15), state | 1);
        x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
        return ((x ^ (x >>> 14)) >>> 0) / 0x100000000;
    };
}

const kinds = ['reset', 'end', 'pause', 'slow', 'stall', 'halfClient',
               'halfServer'];

// One connection.  Each way has a queue, so that nothing overtakes.
class Line {
    constructor(relay, client, dice) {
        this.relay = relay;
        this.dice = dice;
        this.client = client;
        this.server = net.connect(relay.target, '127.0.0.1');
        this.delay = 0;
        this.stopped = false;
        this.timers = new Set();
        this.plan();
        this.ways = [this.carry(this.client, this.server),
                     this.carry(this.server, this.client)];
    }

    // One in eight is over within the handshakes, the others live longer.
    plan() {
        const { dice } = this, { mean } = this.relay;
        this.left = Math.ceil(dice() < 0.125 ? dice() * 900 :
            mean * (0.2 + 1.6 * dice()));
        this.kind = kinds[Math.floor(dice() * kinds.length)];
        this.wait = dice();
    }

    later(ms, run) {
        const timer = setTimeout(() => {
            this.timers.delete(timer);
            run();
        }, ms);
        this.timers.add(timer);
    }

    carry(from, to) {
        const way = { from, to, queue: [], ended: false, waits: false };
        from.setNoDelay();
        from.on('data', (chunk) => {
            way.queue.push({ chunk, due: performance.now() + this.delay });
            this.pump(way);
        });
        from.on('end', () => {
            way.ended = true;
            this.pump(way);
        });
        to.on('drain', () => this.stopped || from.resume());
        from.on('error', () => {});
        from.on('close', () => this.silent || this.over());
        return way;
    }

    pump(way) {
        const { queue } = way;
        while (queue.length && !this.stopped && !way.waits) {
            const wait = queue[0].due - performance.now();
            if (wait > 0) {
                way.waits = true;
                this.later(wait, () => {
                    way.waits = false;
                    this.pump(way);
                });
                return;
            }
            this.pass(way);
        }
        if (way.ended && !queue.length && !this.stopped)
            way.to.end();
    }

    // The first chunk, or of it what comes before the trouble.
    pass(way) {
        const [first] = way.queue, size = first.chunk.length;
        const most = this.relay.calm ? size : Math.min(size, this.left);
        if (!way.to.destroyed && !way.to.write(first.chunk.subarray(0, most)))
            way.from.pause();
        first.chunk = first.chunk.subarray(most);
        if (!first.chunk.length)
            way.queue.shift();
        if (this.relay.calm)
            return;
        this.left -= most;
        if (!this.left)
            this.act();
    }

    act() {
        const { kind, wait, relay } = this;
        relay.count[kind]++;
        if (kind === 'slow') {
            this.delay = 1 + wait * 15;
            this.plan();
            return;
        }
        this.stopped = true;
        this.client.pause();
        this.server.pause();
        if (kind === 'reset')
            this.later(wait < 0.5 ? 0 : 5, () => this.reset());
        else if (kind === 'end')
            this.end();
        else if (kind === 'pause')
            this.later(20 + wait * 200, () => this.goOn());
        else if (kind === 'stall')
            this.later(300 + wait * 900, () => this.reset());
        else
            this.half(kind === 'halfClient' ? this.client : this.server);
    }

    goOn() {
        this.stopped = false;
        this.plan();
        this.ways.forEach((way) => {
            way.from.resume();
            this.pump(way);
        });
    }

    end() {
        this.client.end();
        this.server.end();
        this.later(200, () => this.over());
    }

    // One side learns of the loss now, the other one much later.
    half(side) {
        this.silent = true;
        side.resetAndDestroy();
        this.later(400 + this.wait * 1600, () => {
            this.silent = false;
            this.reset();
        });
    }

    reset() {
        this.client.resetAndDestroy();
        this.server.resetAndDestroy();
    }

    over() {
        this.timers.forEach(clearTimeout);
        this.timers.clear();
        this.client.destroy();
        this.server.destroy();
        this.relay.lines.delete(this);
    }
}

// Listens and carries to the port target; mean is about how many bytes pass
// between two troubles.  calm = true makes it an honest line, dead = true one
// that takes nobody; cut() resets all.
export async function startRelay(target, { seed = 1, mean = 30000 } = {}) {
    const self = { target, mean, calm: false, dead: false, lines: new Set(),
                   accepted: 0,
                   count: Object.fromEntries(kinds.map((kind) => [kind, 0])) };
    const server = net.createServer((client) => {
        if (self.dead) {
            client.resetAndDestroy();
            return;
        }
        self.accepted++;
        const dice = random(seed * 7919 + self.accepted);
        self.lines.add(new Line(self, client, dice));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    self.port = server.address().port;
    self.cut = () => [...self.lines].forEach((line) => line.reset());
    self.stop = async () => {
        [...self.lines].forEach((line) => line.over());
        server.close();
        await once(server, 'close');
    };
    return self;
}
