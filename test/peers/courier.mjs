// As the client of test/courier.c, with examples/rtnet.js: numbered messages
// over a bad line, each echo and each note of the server once and in order.
//   node courier.mjs URL SESSIONS MESSAGES EVERY_MS
import { WebSocket } from 'ws';
import { connect } from '../../examples/rtnet.js';

const [url, sessions, messages, every] = process.argv.slice(2)
    .map((word, i) => i ? Number(word) : word);
const SIZE = 500, HEAD = 4;
const sum = { echoed: 0, notes: 0, wrong: 0, refused: 0, opened: 0, away: 0,
              back: 0, lost: 0, badly_ended: 0 };

function message(number) {
    const out = new Uint8Array(HEAD + number * 31 % (SIZE - HEAD + 1));
    new DataView(out.buffer).setUint32(0, number, true);
    for (let i = HEAD; i < out.length; i++)
        out[i] = number * 7 + i * 13;
    return out;
}

const same = (data, want) =>
    Buffer.compare(Buffer.from(data), Buffer.from(want)) === 0;

function play(done) {
    let sent = 0, got = 0, notes = 0, timer;
    const c = connect(url, {
        WebSocket,
        open() {
            sum.opened++;
            timer = setInterval(() => {
                if (sent < messages && sent - got < 16)
                    sum.refused += !c.send(message(sent++));
            }, every);
        },
        message(data) {
            if (typeof data === 'string') {
                sum.wrong += data !== String(notes++);
                sum.notes++;
                return;
            }
            sum.wrong += got >= sent || !same(data, message(got));
            sum.echoed++;
            if (++got === messages)
                c.close();
        },
        away() { sum.away++; },
        back(lost) {
            sum.back++;
            sum.lost += lost;
        },
        close({ code }) {
            clearInterval(timer);
            sum.badly_ended += code !== 1000;
            done();
        },
    });
}

await Promise.all(Array.from({ length: sessions }, () => new Promise(play)));
console.log(Object.entries(sum).map(([k, v]) => `${k}=${v}`).join(' '));
const { wrong, refused, lost, badly_ended } = sum;
process.exit(sum.echoed === sessions * messages &&
             wrong + refused + lost + badly_ended === 0 ? 0 : 1);
