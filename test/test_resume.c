/*
 * rtnet.1: sessions that outlive their sockets.  The tests of the two tables,
 * session x event, are made from tables; the cases that must hold follow; then
 * hosts with a protocol of their own, and both ends of the library against
 * each other.
 */
#include "resume_blocks.h"
#include "resume_hard.h"
#include "resume_host.h"
#include "resume_more.h"

int main(void)
{
    size_t i;
    int wire;
    signal(SIGPIPE, SIG_IGN);
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++)
        for (wire = 0; wire < WIRES; wire++) {
            server_table(peer_backends[i].which, wire);
            client_table(peer_backends[i].which, wire);
        }
    for (wire = 0; wire < WIRES; wire++) {
        server_grammar(RT_AUTO, wire);
        client_grammar(RT_AUTO, wire);
        client_close_codes(RT_AUTO, wire);
        ring_table(RT_AUTO, wire);
    }
    server_cases();
    more_server_cases();
    client_cases();
    hard_cases();
    block_cases();
    host_cases();
    for (wire = 0; wire < WIRES; wire++)
        pair_table(RT_AUTO, wire);
    return test_done();
}
