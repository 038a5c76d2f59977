"""Agents that prove a key, or fail to, by aioquic: one line of JSON for each.

    prover.py HOST:PORT CASE...        dials once for each case
    prover.py HOST:PORT CASE --count N dials so often at once, and says only how many were refused

A line says `case`, `id` (whose name was at stake), `welcome`, and if not how the relay closed: `closed_by`
("transport" or "agent", the protocol above it) and `code`; a TLS alert N is the transport's code 256 + N.
"""

import argparse
import asyncio
import datetime
import os

from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import CipherSuite, SessionTicket
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import certificates
from certificates import CLAIM, COMMENT, EXPIRED, UNKNOWN, agent_id, certificate, extension, new_key
from tunnel import configuration, dial, framed, hello, run, say

KEY = new_key()
OTHER = new_key()


def rsa_key():
    return rsa.generate_private_key(65537, 1024)


def with_extensions(*extensions):
    return lambda: (KEY, [certificate(KEY, extensions=extensions)])


# Each gives the key that signs the handshake, and the chain that is shown.
CASES = {
    "plain": lambda: (KEY, [certificate(KEY)]),
    "another-certificate": lambda: (KEY, [certificate(KEY, subject=b"renewed", serial=2)]),
    "none": lambda: (None, None),
    "expired": lambda: (KEY, [certificate(KEY, dates=EXPIRED)]),
    "sha1": lambda: (KEY, [certificate(KEY, sha1=True)]),
    "rsa-1024": lambda: (key := rsa_key(), [certificate(key)]),
    "p-384": lambda: (key := ec.generate_private_key(ec.SECP384R1()), [certificate(key)]),
    "chain-of-100": lambda: (KEY, [certificate(KEY)] * 100),
    "60-kb": with_extensions(extension(COMMENT, bytes(60_000))),
    "200-kb": with_extensions(extension(COMMENT, bytes(200_000))),
    "copied": lambda: (OTHER, [certificate(KEY)]),
    "critical-extension": with_extensions(extension(UNKNOWN, b"\5\0", critical=True)),
    "claim-twice": with_extensions(extension(CLAIM, b"one"), extension(CLAIM, b"two")),
    "claim": with_extensions(extension(CLAIM, b"one")),
    "subject-not-utf8": lambda: (KEY, [certificate(KEY, subject=b"\xff\xfe\x80")]),
    "trailing-garbage": lambda: (KEY, [certificate(KEY) + b"garbage"]),
    "rubbish": lambda: (KEY, [b"rubbish"]),
    "empty": lambda: (KEY, [b""]),
    "other-alpn": lambda: (KEY, [certificate(KEY)]),
    "forged-ticket": lambda: (KEY, [certificate(KEY)]),
    "forged-ticket-no-certificate": lambda: (None, None),
}


def at_stake(key, chain):
    """Whose name the peer would get: that of the certificate's key."""
    shows_own = chain and certificates.public_key(KEY) in chain[0]
    return agent_id(KEY if shows_own or key is None else key)


def forged_ticket(extensions):
    """A ticket that no relay has given, as if it were good for early data."""
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    return SessionTicket(
        age_add=7,
        cipher_suite=CipherSuite.AES_128_GCM_SHA256,
        max_early_data_size=MAX_EARLY_DATA,
        not_valid_after=now + day,
        not_valid_before=now - day,
        other_extensions=extensions,
        resumption_secret=os.urandom(32),
        server_name="relay",
        ticket=os.urandom(200),
    )


async def attempt(api, case):
    """Dials once; gives what happened."""
    key, chain = CASES[case]()
    said = {"case": case, "id": at_stake(key, chain)}
    early, changes = None, {}
    if case == "other-alpn":
        changes["alpn_protocols"] = ["h3"]
    if case.startswith("forged-ticket"):
        # The transport parameters of a real connection say how much may be sent early.
        honest = await dial(api, configuration(new_key()))
        changes["session_ticket"] = forged_ticket(honest.quic.tls.received_extensions)
        honest.close()
        early = framed(hello())
    tunnel = await dial(api, configuration(key, chain, **changes), early)
    welcome = None
    if not tunnel.ended.done():
        if early is None:
            tunnel.send(hello())
        frame = await tunnel.frame()
        welcome = frame if frame and frame["type"] == "Welcome" else None
    said |= {"welcome": welcome is not None, "resumed": tunnel.resumed}
    said |= {"offered": tunnel.offered, "early": tunnel.early, "tickets": tunnel.tickets}
    if welcome is None:
        said |= await tunnel.end()
    else:
        said["granted"] = welcome["granted"]
        # Nothing that comes late, a ticket for instance, is missed.
        await tunnel.answers()
        said["tickets"] = tunnel.tickets
    tunnel.close()
    return said


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("api", metavar="HOST:PORT", help="the relay's API port")
    parser.add_argument("cases", metavar="CASE", nargs="+", choices=CASES, help=", ".join(CASES))
    parser.add_argument("--count", type=int, default=0, help="dial so often and give the sum only")
    arguments = parser.parse_args()
    for case in arguments.cases:
        if not arguments.count:
            say(**await attempt(arguments.api, case))
            continue
        said = [asyncio.create_task(attempt(arguments.api, case)) for _ in range(arguments.count)]
        refused = [await one for one in said]
        say(case=case, refused=sum(not one["welcome"] for one in refused))


if __name__ == "__main__":
    run(main())
