"""Certificates written byte by byte, for what no library would make.

An agent's certificate is the envelope of its key (RFC 5280, 4.1). Here each part of the envelope can be wrong:
its dates, its signature's algorithm, its subject, its extensions, what follows it.
"""

import base64
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Object identifiers, as they stand in DER.
ECDSA_SHA1 = "1.2.840.10045.4.1"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
ECDSA_SHA384 = "1.2.840.10045.4.3.3"
RSA_SHA256 = "1.2.840.113549.1.1.11"
COMMON_NAME = "2.5.4.3"
COMMENT = "2.16.840.1.113730.1.13"
CLAIM = "1.3.6.1.4.1.65535.1"
UNKNOWN = "1.3.6.1.4.1.65535.77"

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 1, 2, 3, 4, 5, 6
UTF8_STRING, UTC_TIME, SEQUENCE, SET, VERSION, EXTENSIONS = 12, 23, 0x30, 0x31, 0xA0, 0xA3

# In force from 2020 to 2049, and long over.
FOR_EVER = ("200101000000Z", "491231235959Z")
EXPIRED = ("010101000000Z", "020101000000Z")


def tlv(tag, *parts):
    """One value in DER: tag, length, and the parts one after the other."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def oid(dotted):
    """An object identifier."""
    first, second, *rest = (int(number) for number in dotted.split("."))
    content = bytearray()
    for number in [first * 40 + second, *rest]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return tlv(OID, bytes(content))


def extension(name, value, critical=False):
    """One extension; its value in an OCTET STRING, as every extension's."""
    return tlv(SEQUENCE, oid(name), tlv(BOOLEAN, b"\xff") if critical else b"", tlv(OCTET_STRING, value))


def public_key(key):
    """The SubjectPublicKeyInfo of a private key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def agent_id(key):
    """The id that a relay gives to whoever holds this key: the first 128 bits of a SHA-256, in base32."""
    digest = hashlib.sha256(public_key(key)).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def new_key():
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def _sign(key, data, sha1):
    if isinstance(key, rsa.RSAPrivateKey):
        return RSA_SHA256, key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if sha1:
        return ECDSA_SHA1, key.sign(data, ec.ECDSA(hashes.SHA1()))
    if isinstance(key.curve, ec.SECP384R1):
        return ECDSA_SHA384, key.sign(data, ec.ECDSA(hashes.SHA384()))
    return ECDSA_SHA256, key.sign(data, ec.ECDSA(hashes.SHA256()))


def certificate(key, *, subject=b"tunnel", dates=FOR_EVER, sha1=False, extensions=(), serial=1):
    """A certificate for `key`, signed by itself, in DER."""
    algorithm, _ = _sign(key, b"", sha1)
    algorithm = tlv(SEQUENCE, oid(algorithm), tlv(NULL) if isinstance(key, rsa.RSAPrivateKey) else b"")
    name = tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(COMMON_NAME), tlv(UTF8_STRING, subject))))
    body = tlv(
        SEQUENCE,
        tlv(VERSION, tlv(INTEGER, b"\2")),
        tlv(INTEGER, bytes([serial])),
        algorithm,
        name,
        tlv(SEQUENCE, *(tlv(UTC_TIME, date.encode()) for date in dates)),
        name,
        public_key(key),
        tlv(EXTENSIONS, tlv(SEQUENCE, *extensions)) if extensions else b"",
    )
    _, signature = _sign(key, body, sha1)
    return tlv(SEQUENCE, body, algorithm, tlv(BIT_STRING, b"\0", signature))


class Envelope:
    """DER that passes for a certificate object of the `cryptography` package, whatever is in it."""

    def __init__(self, der):
        self.der = der

    def public_bytes(self, _encoding):
        return self.der
