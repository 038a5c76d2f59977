//! The local service of visitors who come over a line: it echoes, or gives as much as is asked for.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::line::Line;
use crate::origin::{Origin, origin_on};

/// Who begins with it asks for the bytes of a [`piece`], so many of them as the next eight bytes say.
pub(super) const GIVE: u8 = 0xd0;
/// The gift repeats itself after so many bytes: a prime, so that no piece that is missing goes unseen.
pub(super) const PERIOD: usize = 65_521;

/// A local service near that gives back what it gets, and ends when its peer does. To whoever asks
/// for a download it gives that.
pub fn near_echo(line: &Line) -> Origin {
    let listener = line.near().tcp_listener(Ipv4Addr::LOCALHOST);
    origin_on(listener.expect("binds"), async |mut stream: TcpStream| {
        // A peer that breaks off is what is looked at here.
        let _ = serve(&mut stream).await;
        let _ = stream.shutdown().await;
    })
}

async fn serve(stream: &mut TcpStream) -> io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] == GIVE {
        return give(stream).await;
    }
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}

async fn give(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_u8().await?;
    let piece = piece();
    let mut left = usize::try_from(stream.read_u64().await?).map_err(io::Error::other)?;
    while left > 0 {
        let step = left.min(PERIOD);
        stream.write_all(&piece[..step]).await?;
        left -= step;
    }
    Ok(())
}

/// What a download is made of, again and again: bytes that are nowhere the same for long.
pub(super) fn piece() -> Vec<u8> {
    let words = (0..PERIOD.div_ceil(8) as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut piece: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
    piece.truncate(PERIOD);
    piece
}
