"""What the QUIC peers share: a connection by aioquic to a relay's API port, and control frames on it.

The wire, in short: ALPN qtun/1, TLS 1.3 with a client certificate; the agent's first bidirectional stream is for
control, frames of a 32-bit length and JSON; the relay opens one bidirectional stream for each visit.
"""

import asyncio
import base64
import json
import os
import ssl
import struct
import sys
from collections import deque

from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Direction, Epoch, hkdf_expand_label
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import certificates
from certificates import Envelope, agent_id

ALPN = "qtun/1"
CONTROL = 0  # The first bidirectional stream of a client.
LABEL = b"EXPORTER-qtun-endpoint-proof"
PURPOSE = b"qtun, proof of an endpoint's key"
# Room for handshake messages of any size that a story sends.
CRYPTO_BYTES = 256 * 1024
# A story that takes longer has failed.
PATIENCE = 20
KEEP_ALIVE = 2


def say(**fields):
    """Tells the story something: one line of JSON."""
    print(json.dumps(fields), flush=True)


def framed(frame):
    """A control frame: the length of the JSON, and the JSON."""
    data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    return struct.pack(">I", len(data)) + data


def wish(ref="main", **fields):
    """A wish for an endpoint."""
    return {"ref": ref, "kind": "https", **fields}


def hello(*wanted):
    """An agent's first frame."""
    return {"type": "Hello", "instance": os.urandom(16).hex(), "epoch": 0, "rev": 1, "wanted": list(wanted) or [wish()]}


class Connection(QuicConnection):
    """A QUIC connection without the manners of aioquic: see `raw`, `deaf` and `eager`."""

    def __init__(self, configuration, eager=True, **arguments):
        super().__init__(configuration=configuration, **arguments)
        self.raw = deque()  # (frame type, content): QUIC frames that go out as they are.
        self.deaf = False  # Grants no more credit on streams.
        self.eager = eager  # Shows its certificate whatever kinds of signature the relay asked for.
        self.exporter_secret = b""

    def _initialize(self, peer_cid):
        super()._initialize(peer_cid)
        self._crypto_buffers = {epoch: Buffer(capacity=CRYPTO_BYTES) for epoch in self._crypto_buffers}
        context = self.tls
        requested, protected = context._client_handle_certificate_request, context._setup_traffic_protection

        def on_request(data):
            requested(data)
            if self.eager and context.certificate_private_key is not None:
                context._certificate_request.signature_algorithms += context._signature_algorithms_for_private_key()

        def on_protection(direction, epoch, label):
            protected(direction, epoch, label)
            # Between the relay's Finished and our own: where RFC 8446, 7.1 derives the exporter's secret.
            if (direction, epoch) == (Direction.DECRYPT, Epoch.ONE_RTT):
                self.exporter_secret = context.key_schedule.derive_secret(b"exp master")

        context._client_handle_certificate_request = on_request
        context._setup_traffic_protection = on_protection

    def _close_begin(self, is_initiator, now):
        super()._close_begin(is_initiator, now)
        # aioquic tells the peer's close at the end of the draining period, which no story waits for.
        if not is_initiator:
            self._events.append(self._close_event)

    def exporter(self):
        """The 32 bytes that a proof of a second key signs (RFC 8446, 7.5)."""
        schedule = self.tls.key_schedule
        arguments = {"algorithm": schedule.algorithm, "length": schedule.algorithm.digest_size}
        secret = hkdf_expand_label(
            secret=self.exporter_secret, label=LABEL, hash_value=schedule.hash_empty_value, **arguments
        )
        arguments["length"] = 32
        return hkdf_expand_label(secret=secret, label=b"exporter", hash_value=schedule.hash_empty_value, **arguments)

    def _write_connection_limits(self, builder, space):
        super()._write_connection_limits(builder, space)
        while self.raw and builder.remaining_flight_space > len(self.raw[0][1]) + 16:
            kind, content = self.raw.popleft()
            builder.start_frame(kind, capacity=len(content) + 8).push_bytes(content)

    def _write_stream_limits(self, builder, space, stream):
        if not self.deaf:
            super()._write_stream_limits(builder, space, stream)


class Tunnel(QuicConnectionProtocol):
    """One connection to a relay. What happens on it is kept for the script."""

    def __init__(self, quic):
        super().__init__(quic)
        self.quic = quic
        self.frames = asyncio.Queue()
        self.visits = asyncio.Queue()
        self.shaken = asyncio.Event()
        self.ended = asyncio.get_running_loop().create_future()
        self.resumed = self.early = False
        self.offered = False  # Whether early data has left.
        self.tickets = 0
        self.streams = {}
        self.stopped = {}
        self._control = b""

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.resumed, self.early = event.session_resumed, event.early_data_accepted
            self.shaken.set()
        elif isinstance(event, events.ConnectionTerminated):
            by = "agent" if event.frame_type is None else "transport"
            self._end(closed_by=by, code=event.error_code, reason=event.reason_phrase)
        elif isinstance(event, events.StreamDataReceived):
            self._received(event)
        elif isinstance(event, (events.StreamReset, events.StopSendingReceived)):
            self.stopped[event.stream_id] = event.error_code

    def _end(self, **how):
        if not self.ended.done():
            self.ended.set_result(how)
            self.frames.put_nowait(None)
            self.shaken.set()

    def _received(self, event):
        if event.stream_id != CONTROL:
            if event.stream_id not in self.streams:
                self.streams[event.stream_id] = 0
                self.visits.put_nowait(event.stream_id)
            self.streams[event.stream_id] += len(event.data)
            return
        self._control += event.data
        while len(self._control) >= 4:
            (length,) = struct.unpack_from(">I", self._control)
            if len(self._control) < 4 + length:
                return
            self.frames.put_nowait(json.loads(self._control[4 : 4 + length]))
            self._control = self._control[4 + length :]

    def write(self, data, stream=CONTROL, end=False):
        """Sends bytes as they are."""
        self.quic.send_stream_data(stream, data, end)
        self.transmit()

    def send(self, frame):
        """Sends one control frame."""
        self.write(framed(frame))

    async def frame(self):
        """The next control frame that is no Ping; None at the end."""
        while True:
            frame = await asyncio.wait_for(self.frames.get(), PATIENCE)
            if frame is None or frame["type"] != "Ping":
                return frame
            self.send({"type": "Pong", "nonce": frame["nonce"]})

    async def answers(self, nonce=1):
        """Whether the relay answers a Ping."""
        self.send({"type": "Ping", "nonce": nonce})
        return await self.frame() == {"type": "Pong", "nonce": nonce}

    async def end(self, patience=PATIENCE):
        """How the connection ends; a look at it only, if it has not within `patience`."""
        done, _ = await asyncio.wait([self.ended], timeout=patience)
        return self.ended.result() if done else {"closed_by": None}

    async def welcomed(self, *wanted):
        """Says Hello as an ordinary agent does. Gives the Welcome, or None."""
        self.send(hello(*wanted))
        frame = await self.frame()
        return frame if frame and frame["type"] == "Welcome" else None

    async def keep_alive(self):
        """Keeps the connection until it ends: the relay counts six silent seconds as death."""
        while not self.ended.done():
            self.quic.send_ping(0)
            self.transmit()
            await asyncio.wait([self.ended], timeout=KEEP_ALIVE)

    def proof(self, key, signer=None, exporter=None):
        """The proof of a second key on this connection, or, with other arguments, what only looks like one."""
        message = b" " * 64 + PURPOSE + b"\0" + (exporter or self.quic.exporter())
        signature = (signer or key).sign(message, ec.ECDSA(hashes.SHA256()))
        der = certificates.certificate(key)
        return {"certificate": base64.b64encode(der).decode(), "signature": base64.b64encode(signature).decode()}


def configuration(key=None, chain=None, **changes):
    """The configuration of an agent with this key. `chain` takes the place of its plain certificate."""
    chain = [Envelope(der) for der in chain or ([certificates.certificate(key)] if key else [])]
    fields = {
        "is_client": True,
        "alpn_protocols": [ALPN],
        "verify_mode": ssl.CERT_NONE,
        "server_name": "relay",
        "certificate": chain[0] if chain else None,
        "certificate_chain": chain[1:],
        "private_key": key,
        **changes,
    }
    return QuicConfiguration(**fields)


async def dial(api, config, early=None, change=None):
    """Connects, and waits until the handshake is complete on our side or has failed. `early` goes out before it.

    `change` may change the connection before its first packet."""
    host, port = api.rsplit(":", 1)
    tunnel = None

    def ticket(_):
        tunnel.tickets += 1

    quic = Connection(config, session_ticket_handler=ticket)
    if change:
        change(quic)
    loop = asyncio.get_running_loop()
    _, tunnel = await loop.create_datagram_endpoint(lambda: Tunnel(quic), local_addr=("127.0.0.1", 0))
    tunnel.connect((host, int(port)), transmit=early is None)
    if early is not None:
        tunnel.write(early)
        tunnel.offered = quic._cryptos[Epoch.ZERO_RTT].send.is_valid()
    await asyncio.wait_for(tunnel.shaken.wait(), PATIENCE)
    return tunnel


async def agent(api, *wanted, change=None, **changes):
    """An agent with a new key that is welcome: the tunnel and the Welcome."""
    key = certificates.new_key()
    tunnel = await dial(api, configuration(key, **changes), change=change)
    welcome = await tunnel.welcomed(*wanted)
    if welcome is None:
        sys.exit(f"not welcome: {await tunnel.end()}")
    tunnel.id = agent_id(key)
    return tunnel, welcome


def run(main):
    """Runs an async main to its end."""
    asyncio.run(main)
