// The npm package ws on the work of make bench-peers: ws_server.mjs MODE PORT,
// MODE being echo or fanout.  The package is that of test/peers.
import { createRequire } from 'node:module';

const packages = new URL('../../test/peers/package.json', import.meta.url);
const { WebSocketServer } = createRequire(packages)('ws');
const [mode, port] = process.argv.slice(2);
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port),
                                     backlog: 1024 });

server.on('listening', () => console.log(`listening on ${port}`));
server.on('connection', (socket) => {
    socket.on('error', () => socket.terminate());
    socket.on('message', (data, binary) => {
        if (mode === 'echo') {
            socket.send(data, { binary });
            return;
        }
        for (const member of server.clients) {
            member.send(data, { binary });
        }
    });
});
