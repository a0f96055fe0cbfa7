// Bun on the work of make bench-peers: bun bun_server.js MODE PORT, MODE being
// echo or fanout; the latter by its own publish.
const [mode, port] = process.argv.slice(2);

const server = Bun.serve({
    hostname: '127.0.0.1',
    port: Number(port),
    fetch(request, server) {
        if (!server.upgrade(request)) {
            return new Response('a WebSocket server', { status: 426 });
        }
    },
    websocket: {
        perMessageDeflate: false,
        backpressureLimit: 64 << 20,
        open(socket) {
            if (mode === 'fanout') {
                socket.subscribe('all');
            }
        },
        message(socket, data) {
            if (mode === 'echo') {
                socket.send(data);
            } else {
                server.publish('all', data);
            }
        },
    },
});
console.log(`listening on ${server.port}`);
