//! ClientHellos made by hand, byte by byte, so that each of them can be wrong in exactly one place.
//!
//! [`Hello::to`] is an ordinary TLS 1.3 hello. Methods change it, [`Hello::message`] gives the
//! handshake message and [`records`] cuts a message into TLS records.

/// Extension numbers of IANA's registry.
pub(super) mod extension {
    pub(crate) const SERVER_NAME: u16 = 0;
    pub(crate) const SUPPORTED_GROUPS: u16 = 10;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const ALPN: u16 = 16;
    pub(crate) const PADDING: u16 = 21;
    pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
    pub(crate) const KEY_SHARE: u16 = 51;
}

/// A ClientHello under construction.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    session_id: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// The hello of a client that wants to talk to `name`.
    pub(super) fn to(name: &str) -> Self {
        Self::anonymous().with_server_names(&[(0, name.as_bytes())])
    }

    /// The hello of a client that does not say with whom it wants to talk.
    pub(super) fn anonymous() -> Self {
        let x25519 = [&[0, 29, 0, 32][..], &[9; 32]].concat();
        Self {
            session_id: vec![7; 32],
            compressions: vec![0],
            extensions: vec![
                (extension::SUPPORTED_VERSIONS, vec![4, 3, 4, 3, 3]),
                (extension::SUPPORTED_GROUPS, vec![0, 2, 0, 29]),
                (extension::SIGNATURE_ALGORITHMS, vec![0, 4, 4, 3, 8, 4]),
                (extension::KEY_SHARE, short_vec(&x25519)),
            ],
        }
    }

    /// Appends an extension with any body; two of one kind are possible.
    pub(super) fn with(mut self, kind: u16, body: Vec<u8>) -> Self {
        self.extensions.push((kind, body));
        self
    }

    /// Takes all extensions of a kind away.
    pub(super) fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(present, _)| *present != kind);
        self
    }

    /// Appends a server_name extension with these (name type, name) pairs.
    pub(super) fn with_server_names(self, names: &[(u8, &[u8])]) -> Self {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|(kind, name)| [&[*kind][..], &short_vec(name)].concat())
            .collect();
        self.with(extension::SERVER_NAME, short_vec(&list))
    }

    /// Appends an ALPN extension that offers these protocols.
    pub(super) fn with_alpn(self, names: &[&[u8]]) -> Self {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[byte(name.len())][..], name].concat())
            .collect();
        self.with(extension::ALPN, short_vec(&list))
    }

    /// Puts the extensions into the opposite order.
    pub(super) fn reversed(mut self) -> Self {
        self.extensions.reverse();
        self
    }

    /// Sets the session id to `len` bytes; more than 32 are against RFC 8446, 4.1.2.
    pub(super) fn with_session_id(mut self, len: usize) -> Self {
        self.session_id = vec![7; len];
        self
    }

    /// Sets the list of compression methods; without 0 among them no server may accept it.
    pub(super) fn with_compressions(mut self, methods: &[u8]) -> Self {
        self.compressions = methods.to_vec();
        self
    }

    /// Puts a padding extension in front of all others, so that the message gets `total` bytes
    /// long.
    pub(super) fn padded_to(mut self, total: usize) -> Self {
        let padding = total
            .checked_sub(self.message().len() + 4)
            .expect("room for a padding extension");
        self.extensions
            .insert(0, (extension::PADDING, vec![0; padding]));
        self
    }

    /// The handshake message.
    pub(super) fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &short_vec(body)].concat())
            .collect();
        let body = [
            &[3, 3][..],
            &[5; 32],
            &[byte(self.session_id.len())],
            &self.session_id,
            &[0, 4, 0x13, 0x01, 0xc0, 0x2b],
            &[byte(self.compressions.len())],
            &self.compressions,
            &short_vec(&extensions),
        ]
        .concat();
        message_of(1, &body)
    }

    /// The message in one record, or in as few as possible.
    pub(super) fn wire(&self) -> Vec<u8> {
        records(&self.message(), 16 * 1024)
    }
}

/// A handshake message of any type.
pub(super) fn message_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len())
        .expect("a body below 2^24 bytes")
        .to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// One handshake record around `payload`, whatever that is.
pub(super) fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &short_vec(payload)].concat()
}

/// `message` in records of `size` bytes of payload.
pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

/// `bytes` behind their length in two bytes.
pub(super) fn short_vec(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a vector below 2^16 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A length that fits one byte.
fn byte(len: usize) -> u8 {
    u8::try_from(len).expect("a vector below 2^8 bytes")
}
