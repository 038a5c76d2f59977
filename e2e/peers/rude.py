"""Agents without manners, by aioquic: what may an agent do with a connection that it was welcome on?

    rude.py HOST:PORT CASE... [--host HOST]

Each case is a connection of its own, one after the other. A line of JSON says `case`, `id`, and what came of it: how the
relay closed (`closed_by`: "transport" or "agent", the protocol above it; null if it did not; and `code`), and whether it
still answers a Ping (`alive`). The cases `mute`, `resets` and `floods` say `{"id": …}` first, and wait for
a visit; `unread-pings` says it as soon as it takes no more.
"""

import argparse
import asyncio
import base64
import os

from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicFrameType

import certificates
from tunnel import CONTROL, PATIENCE, agent, configuration, dial, framed, hello, run, say, wish

# Enough for any limit of the relay's to show, and no more than a second of Python.
MANY = 10_000
UNKNOWN_QUIC_FRAME = 0x2F
DATAGRAM_WITH_LENGTH = 0x31
# Bytes that a visitor who does not read can not have asked for.
FLOOD_BYTES = 64 * 1024 * 1024
FLOOD_PIECE = 256 * 1024
LOCAL_REFUSED = 2
# What an agent takes of its control stream that reads no further than the Welcome.
CREDIT = 4096
# Between two looks at what has changed.
PAUSE = 0.01
# Long enough for the relay to close if it wanted to.
LOOK = 0.3


async def outcome(tunnel, **fields):
    """What came of it: closed, or still alive."""
    if not tunnel.ended.done() and not tunnel.quic.deaf:
        fields["alive"] = await tunnel.answers(99)
    end = await tunnel.end(LOOK if fields.get("alive") else PATIENCE)
    return {"id": getattr(tunnel, "id", None), **fields, **end}


async def raw_frames(api, kind, contents):
    """Sends QUIC frames as they are."""
    tunnel, _ = await agent(api)
    tunnel.quic.raw.extend((kind, content) for content in contents)
    while tunnel.quic.raw and not tunnel.ended.done():
        tunnel.transmit()
        await asyncio.sleep(0)
    return await outcome(tunnel, unsent=len(tunnel.quic.raw))


async def streams(api, unidirectional, beyond):
    """Opens streams besides the control stream; `beyond` what the relay allows, or waiting for its leave."""
    tunnel, _ = await agent(api)
    quic = tunnel.quic
    if beyond:
        quic._remote_max_streams_uni = quic._remote_max_streams_bidi = 1000
        quic._remote_max_stream_data_uni = 1000
    for _ in range(100):
        tunnel.write(b"?", quic.get_next_available_stream_id(unidirectional))
    return await outcome(tunnel)


async def unknown_control(api, _):
    tunnel, _ = await agent(api)
    tunnel.write(framed({"type": "Overture", "key": "c minor"}) * MANY)
    return await outcome(tunnel)


async def unread_pings(api, _):
    """Asks again and again, and takes no answer."""
    tunnel, _ = await agent(api, max_stream_data=CREDIT)
    tunnel.quic.deaf = True
    tunnel.write(framed({"type": "Ping", "nonce": 2**64 - 1}) * MANY)
    answers = tunnel.quic._streams[CONTROL].receiver
    while answers.highest_offset < CREDIT and not tunnel.ended.done():
        await asyncio.sleep(PAUSE)
    say(id=tunnel.id)
    return await outcome(tunnel)


async def raw_control(api, data):
    """An agent that sends these bytes where its Hello should be."""
    key = certificates.new_key()
    tunnel = await dial(api, configuration(key))
    tunnel.id = certificates.agent_id(key)
    tunnel.write(data)
    end = asyncio.create_task(tunnel.keep_alive())
    await end
    return {"id": tunnel.id, **await tunnel.end()}


async def giant_frame(api, _):
    return await raw_control(api, b"\xff\xff\xff\xff")


async def half_frame(api, _):
    return await raw_control(api, framed(hello())[:20])


async def others_name(api, host):
    """Wishes for a host that is another's, at once and later; and says so wherever there is room for it."""
    tunnel, welcome = await agent(api, wish(host=host))
    granted = [welcome["granted"]]
    label = host.split(".")[0]
    for rev, wanted in enumerate([wish(host=host), wish(host=host, id=label), wish(ref=label, host=host, key=label)], 2):
        tunnel.send({"type": "Wanted", "rev": rev, "wanted": [wanted], "id": label})
        granted.append((await tunnel.frame())["granted"])
    return await outcome(tunnel, granted=granted)


async def proofs(api, _):
    """Wishes for a second endpoint in the name of a key, proved and not: the answers by the kind of proof."""
    tunnel, _ = await agent(api)
    elsewhere, _ = await agent(api)
    second, other = certificates.new_key(), certificates.new_key()
    kinds = {
        "by another key": tunnel.proof(second, signer=other),
        "of another connection": elsewhere.proof(second),
        "of no connection": tunnel.proof(second, exporter=bytes(32)),
        "rubbish": {"certificate": "?", "signature": "?"},
        "random": {key: base64.b64encode(os.urandom(70)).decode() for key in ("certificate", "signature")},
        "empty": {"certificate": "", "signature": ""},
        "giant": {**tunnel.proof(second), "signature": "A" * 40_000},
        "good": tunnel.proof(second),
    }
    answers = {}
    for rev, (kind, proof) in enumerate(kinds.items(), 2):
        tunnel.send({"type": "Wanted", "rev": rev, "wanted": [wish(), wish(ref="second", proof=proof)]})
        frame = await tunnel.frame()
        answers[kind] = frame["granted"]
        say(kind=kind, second=certificates.agent_id(second), granted=frame["granted"])
        if kind != "good":
            tunnel.send({"type": "Wanted", "rev": rev, "wanted": [wish()]})
            await tunnel.frame()
    return await outcome(tunnel)


async def attended(api):
    """An agent that gets a visit: the tunnel and the visit's stream."""
    tunnel, _ = await agent(api)
    say(id=tunnel.id)
    alive = asyncio.create_task(tunnel.keep_alive())
    stream = await asyncio.wait_for(tunnel.visits.get(), PATIENCE)
    return tunnel, stream, alive


async def mute(api, _):
    """Never answers a visit."""
    tunnel, stream, _ = await attended(api)
    while stream not in tunnel.stopped and not tunnel.ended.done():
        await asyncio.sleep(PAUSE)
    return await outcome(tunnel, visit=tunnel.stopped.get(stream))


async def resets(api, _):
    """Answers a visit with a reset."""
    tunnel, stream, _ = await attended(api)
    tunnel.quic.stop_stream(stream, LOCAL_REFUSED)
    tunnel.quic.reset_stream(stream, LOCAL_REFUSED)
    tunnel.transmit()
    return await outcome(tunnel)


async def floods(api, _):
    """Answers a visit with far more than anybody reads, as fast as the relay takes it."""
    tunnel, stream, _ = await attended(api)
    sender = tunnel.quic._streams[stream].sender
    written, last, still = 0, -1, 0
    # Half a second without progress: all credit is used up.
    while still < 50 and written < FLOOD_BYTES and not tunnel.ended.done():
        if sender._buffer_stop - sender._buffer_start < 4 * FLOOD_PIECE:
            tunnel.write(bytes(FLOOD_PIECE), stream)
            written += FLOOD_PIECE
        still = still + 1 if sender.highest_offset == last else 0
        last = sender.highest_offset
        await asyncio.sleep(PAUSE)
    return await outcome(tunnel, taken=last)


async def wishes(api, _):
    """Wishes for something else again and again, each time with the proof of a second key."""
    tunnel, _ = await agent(api)
    second = wish(ref="second", proof=tunnel.proof(certificates.new_key()))
    for rev in range(2, 202):
        wanted = [wish(), second] if rev % 2 else [wish()]
        tunnel.send({"type": "Wanted", "rev": rev, "wanted": wanted})
        await tunnel.frame()
    return await outcome(tunnel)


def numbers(*values):
    """Integers as QUIC writes them (RFC 9000, 16)."""
    return b"".join(encode_uint_var(value) for value in values)


def forbidden(kind, content):
    """A case that sends one QUIC frame which a client may not send."""
    return lambda api, _: raw_frames(api, kind, [content])


CASES = {
    "streams-politely": lambda api, _: streams(api, False, False),
    "uni-streams-politely": lambda api, _: streams(api, True, False),
    "streams": lambda api, _: streams(api, False, True),
    "uni-streams": lambda api, _: streams(api, True, True),
    "datagrams": lambda api, _: raw_frames(api, DATAGRAM_WITH_LENGTH, [b"\x43\xe8" + bytes(1000)] * 100),
    "pings": lambda api, _: raw_frames(api, QuicFrameType.PING, [b""] * 5 * MANY),
    "unknown-frames": lambda api, _: raw_frames(api, UNKNOWN_QUIC_FRAME, [b"?"]),
    "path-challenges": lambda api, _: raw_frames(api, QuicFrameType.PATH_CHALLENGE, [bytes(8)] * MANY),
    "new-ids": lambda api, _: raw_frames(
        api,
        QuicFrameType.NEW_CONNECTION_ID,
        [numbers(100 + n, 0) + b"\x08" + os.urandom(24) for n in range(100)],
    ),
    "crypto-garbage": forbidden(QuicFrameType.CRYPTO, numbers(0, 100) + b"?" * 100),
    "crypto-far": forbidden(QuicFrameType.CRYPTO, numbers(10_000_000, 100) + b"?" * 100),
    "handshake-done": forbidden(QuicFrameType.HANDSHAKE_DONE, b""),
    "new-token": forbidden(QuicFrameType.NEW_TOKEN, numbers(8) + bytes(8)),
    "relays-stream": forbidden(QuicFrameType.STREAM_BASE | 2, numbers(3, 1) + b"?"),
    "stream-never-opened": forbidden(QuicFrameType.STREAM_BASE | 2, numbers(401, 1) + b"?"),
    "beyond-credit": forbidden(QuicFrameType.STREAM_BASE | 6, numbers(CONTROL, 100_000_000, 1) + b"?"),
    "too-many-streams": forbidden(QuicFrameType.MAX_STREAMS_BIDI, numbers(2**60 + 1)),
    "ack-of-nothing": forbidden(QuicFrameType.ACK, numbers(1_000_000, 0, 0, 0)),
    "cut-frame": forbidden(QuicFrameType.RESET_STREAM, b"\xff"),
    "reset-control": forbidden(QuicFrameType.RESET_STREAM, numbers(CONTROL, 1, 100_000)),
    "stop-control": forbidden(QuicFrameType.STOP_SENDING, numbers(CONTROL, 1)),
    "wishes": wishes,
    "unknown-control": unknown_control,
    "unread-pings": unread_pings,
    "giant-frame": giant_frame,
    "half-frame": half_frame,
    "others-name": others_name,
    "proofs": proofs,
    "mute": mute,
    "resets": resets,
    "floods": floods,
}

async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("api", metavar="HOST:PORT", help="the relay's API port")
    parser.add_argument("cases", metavar="CASE", nargs="+", choices=CASES, help=", ".join(CASES))
    parser.add_argument("--host", help="the host name of another agent, for others-name")
    arguments = parser.parse_args()
    for case in arguments.cases:
        say(case=case, **await CASES[case](arguments.api, arguments.host))


if __name__ == "__main__":
    run(main())
