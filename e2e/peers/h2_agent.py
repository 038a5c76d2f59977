"""An agent on an HTTP/2 tunnel by the `h2` package, and without manners.

    h2_agent.py HOST:PORT CASE...           over TLS 1.3 with a client certificate, ALPN qtun-h2/1
    h2_agent.py HOST:PORT CASE... --plain   without TLS, for whoever speaks HTTP/2 as a client at that port

The agent dials, and then the roles turn: the relay is HTTP/2's client, the agent its server. The relay's first request is
for control; the agent answers it, says Hello in the answer's body, and then does what the case says. Each case is a
connection of its own. A line of JSON says `case`, `id`, whether the peer still answers a PING (`alive`), and how it closed:
`closed_by` ("goaway", "reset" for the control stream alone, "tcp" without a word, or null) and HTTP/2's `code`.

The case `visit` is of good manners: it says the `welcome`, waits for a visit and its end, and answers. Then it says what the
visit's `request`, `header` and `trailers` were, and the visitor's `bytes`.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import socket
import ssl
import struct
import tempfile

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

import certificates
from tunnel import PATIENCE, framed, hello, run, say

ALPN = "qtun-h2/1"
MANY = 10_000
# Types of frames, and flags (RFC 9113, 6).
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
UNKNOWN = 0x42
END_HEADERS = 4
LARGEST_WINDOW = 2**31 - 1
INITIAL_WINDOW_SIZE = 4
CANCEL = 8
# `:status: 200` in HPACK's static table (RFC 7541, A).
STATUS_200 = b"\x88"
# How a header of the PROXY protocol, version 2, begins.
PROXY_V2, TCP_OVER_IPV4 = b"\r\n\r\n\0\r\nQUIT\n", 0x2111
ANSWER = b"an answer over another HTTP/2"
READ_BYTES = 64 * 1024
# A peer that says nothing for so long waits for more.
SILENCE = 2
# Long enough for a peer to close if it wants to.
LOOK = 0.2
# Long enough for a relay to end what has lost its control stream, on a busy machine.
NOTICE = 1
# A peer that takes no byte for so long does not read any more.
STUCK = 2
SMALL_BUFFER = 16 * 1024


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """A frame as it goes over the wire; its length may lie."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(size):
    """A literal header field, not indexed, its value so long (RFC 7541, 6.2.2)."""
    prefix = b"\x00\x01x\x7f"
    rest = size - 127
    while rest >= 128:
        prefix += bytes([rest % 128 + 128])
        rest //= 128
    return prefix + bytes([rest]) + b"v" * size


def text(headers):
    """A list of headers as a dictionary of strings."""
    return {bytes(name).decode(): bytes(value).decode() for name, value in headers}


class Visit:
    """What has come on the stream of a visit."""

    def __init__(self, request):
        self.stream = request.stream_id
        self.request = text(request.headers)
        self.bytes = b""
        self.trailers = None

    def told(self):
        """The header of the PROXY protocol, version 2, over TCP and IPv4, and what is behind it."""
        signature, kind, length, visitor, public, port, to = struct.unpack_from(">12sHH4s4sHH", self.bytes)
        if (signature, kind) != (PROXY_V2, TCP_OVER_IPV4):
            return {"header": None, "bytes": list(self.bytes)}
        header = {
            "visitor": f"{ipaddress.ip_address(visitor)}:{port}",
            "public": f"{ipaddress.ip_address(public)}:{to}",
        }
        at, end = 28, 16 + length
        while at < end:
            field, size = struct.unpack_from(">BH", self.bytes, at)
            header[str(field)] = list(self.bytes[at + 3 : at + 3 + size])
            at += 3 + size
        return {"header": header, "bytes": list(self.bytes[end:])}


class Agent:
    """One connection on which the relay's request for control has been answered."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.end = {"closed_by": None}
        self.control = None
        self.pongs = set()
        self.over = False
        self.frames = []
        self.visit = None
        self._said = b""

    async def flush(self):
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def read(self):
        """Takes in what has come. False at the end."""
        try:
            data = await self.reader.read(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self.over = True
            if self.end["closed_by"] is None:
                self.end = {"closed_by": "tcp"}
            return False
        try:
            for event in self.h2.receive_data(data):
                self.received(event)
            await self.flush()
        except (ProtocolError, ConnectionError):
            # What the library thinks of answers to our bad manners is of no interest.
            pass
        return True

    def received(self, event):
        if isinstance(event, events.RequestReceived):
            self.h2.send_headers(event.stream_id, [(":status", "200")])
            if self.control is None:
                self.control = event.stream_id
            elif self.visit is None:
                self.visit = Visit(event)
        elif isinstance(event, events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id == self.control:
                self.heard(event.data)
            elif self.visit and event.stream_id == self.visit.stream:
                self.visit.bytes += event.data
        elif isinstance(event, events.TrailersReceived) and self.visit and event.stream_id == self.visit.stream:
            self.visit.trailers = text(event.headers)
        elif isinstance(event, events.PingAckReceived):
            self.pongs.add(event.ping_data)
        elif isinstance(event, events.StreamReset) and event.stream_id == self.control:
            self.end = {"closed_by": "reset", "code": int(event.error_code)}
        elif isinstance(event, events.ConnectionTerminated):
            self.end = {"closed_by": "goaway", "code": int(event.error_code)}

    def heard(self, data):
        """Takes in a piece of the control stream."""
        self._said += data
        while len(self._said) >= 4:
            (length,) = struct.unpack_from(">I", self._said)
            if len(self._said) < 4 + length:
                return
            said, self._said = json.loads(self._said[4 : 4 + length]), self._said[4 + length :]
            self.frames.append(said)
            if said["type"] == "Ping":
                self.h2.send_data(self.control, framed({"type": "Pong", "nonce": said["nonce"]}))

    async def until(self, condition, silence=SILENCE):
        """Reads until it holds, the connection is over, or nothing comes any more."""
        try:
            while not condition() and await asyncio.wait_for(self.read(), silence):
                pass
        except asyncio.TimeoutError:
            pass
        return condition()

    async def begin(self):
        """Answers the request for control, and says Hello."""
        await self.flush()
        if await self.until(lambda: self.control is not None):
            self.h2.send_data(self.control, framed(hello()))
            await self.flush()

    async def raw(self, data):
        """Sends these bytes. False if the peer takes them no more."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), STUCK)
        except (ConnectionError, asyncio.TimeoutError):
            return False
        return True

    async def outcome(self, look=LOOK):
        """Whether the peer still answers, and how it closed."""
        token = os.urandom(8)
        await self.raw(frame(PING, payload=token))
        alive = await self.until(lambda: token in self.pongs)
        # A peer that answers may be about to leave.
        over = await self.until(lambda: self.over, look)
        return {"alive": alive and not over, **self.end}


def many(kind, flags=0, stream=0, payload=b"", times=MANY):
    return lambda agent: frame(kind, flags, stream, payload) * times


def large_headers(agent):
    """A list of 1 MiB in frames of the largest size that may be."""
    block = STATUS_200 + header(1024 * 1024)
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    last = len(pieces) - 1
    kinds = [HEADERS] + [CONTINUATION] * last
    frames = [
        frame(kind, END_HEADERS if at == last else 0, agent.control, piece)
        for at, (kind, piece) in enumerate(zip(kinds, pieces))
    ]
    return b"".join(frames)


def push_promise(agent):
    return frame(PUSH_PROMISE, END_HEADERS, agent.control, struct.pack(">I", 2) + STATUS_200)


def continuations(agent):
    return frame(HEADERS, 0, agent.control, STATUS_200) + frame(CONTINUATION, 0, agent.control, b"") * MANY


def overflow(stream):
    def frames(agent):
        return frame(WINDOW_UPDATE, 0, agent.control if stream else 0, struct.pack(">I", LARGEST_WINDOW)) * 2

    return frames


def too_much_data(agent):
    """Far more than any window, whatever the peer has granted."""
    return frame(DATA, 0, agent.control, bytes(16384)) * 1024


# Each gives the bytes that are sent after Hello.
CASES = {
    "nothing": lambda agent: b"",
    "settings": many(SETTINGS),
    "pings": many(PING, payload=b"unruly!!"),
    "unknown-frames": many(UNKNOWN, payload=b"?" * 100),
    "empty-data": lambda agent: frame(DATA, 0, agent.control) * MANY,
    "push-promise": push_promise,
    "headers-of-1-mib": large_headers,
    "continuations": continuations,
    "resets": lambda agent: frame(RST_STREAM, 0, agent.control, struct.pack(">I", CANCEL)) * MANY,
    "reset-of-nothing": lambda agent: frame(RST_STREAM, 0, 99, struct.pack(">I", CANCEL)),
    "own-stream": lambda agent: frame(HEADERS, END_HEADERS, 2, STATUS_200),
    "goaway": lambda agent: frame(GOAWAY, payload=struct.pack(">II", 0, 0)),
    "giant-frame": lambda agent: frame(DATA, 0, agent.control, b"?", length=2**24 - 1),
    "window-overflow": overflow(stream=False),
    "stream-window-overflow": overflow(stream=True),
    "bad-settings": lambda agent: frame(SETTINGS, payload=struct.pack(">HI", INITIAL_WINDOW_SIZE, 2**31)),
    "too-much-data": too_much_data,
    "no-http2": lambda agent: b"GET / HTTP/1.1\r\n\r\n",
}
# What is sent by an agent that does not read what comes back.
UNREAD = {"settings-unread": "settings", "pings-unread": "pings"}
VISIT = "visit"


def tls(key):
    """TLS 1.3 with a certificate of this key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    with tempfile.NamedTemporaryFile() as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(ssl.DER_cert_to_PEM_cert(certificates.certificate(key)).encode())
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def visit(agent, name):
    """Waits for the Welcome, then for a visit and its end; answers it, and leaves."""
    await agent.until(lambda: agent.frames, PATIENCE)
    say(id=name, welcome=agent.frames[0])
    await agent.until(lambda: agent.visit and agent.visit.trailers is not None, PATIENCE)
    stream = agent.visit.stream
    agent.h2.send_data(stream, ANSWER)
    agent.h2.send_headers(stream, [("end", "")], end_stream=True)
    agent.h2.send_data(agent.control, framed({"type": "Leaving"}))
    agent.h2.send_headers(agent.control, [("end", "")], end_stream=True)
    await agent.flush()
    alive = (await agent.outcome())["alive"]
    agent.writer.close()
    return {"request": agent.visit.request, "trailers": agent.visit.trailers, "alive": alive, **agent.visit.told()}


async def attempt(api, case, plain):
    """One connection; gives what happened."""
    host, port = api.rsplit(":", 1)
    key = certificates.new_key()
    said = {"case": case, "id": certificates.agent_id(key)}
    # A small buffer is full soon for those who do not read.
    tcp = socket.socket()
    if case in UNREAD:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    tcp.connect((host, int(port)))
    security = {} if plain else {"ssl": tls(key), "server_hostname": host}
    reader, writer = await asyncio.open_connection(sock=tcp, **security)
    agent = Agent(reader, writer)
    await agent.begin()
    if case == VISIT:
        return said | await visit(agent, said["id"])
    if case in UNREAD:
        data, taken = CASES[UNREAD[case]](agent), 0
        # Until nothing moves any more, or far beyond what a peer may keep.
        while taken < 1000 and await agent.raw(data):
            taken += 1
        said["taken"] = taken * len(data)
    else:
        said["taken"] = await agent.raw(CASES[case](agent))
    said |= await agent.outcome(LOOK if plain else NOTICE)
    writer.close()
    return said


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("api", metavar="HOST:PORT", help="the relay's API port")
    cases = [*CASES, *UNREAD, VISIT]
    parser.add_argument("cases", metavar="CASE", nargs="+", choices=cases, help=", ".join(cases))
    parser.add_argument("--plain", action="store_true", help="without TLS")
    arguments = parser.parse_args()
    for case in arguments.cases:
        say(**await attempt(arguments.api, case, arguments.plain))


if __name__ == "__main__":
    run(main())
