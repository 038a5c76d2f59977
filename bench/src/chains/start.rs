//! Starts a chain, and waits until a visitor gets his answer through it.

use e2e::poll::until_ok;

use super::chain::Chain;
use super::peers::Missing;
use super::{bore, haproxy, ours, rathole};
use crate::load::curl;
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

/// Starts `row` before `origin`.
pub(crate) async fn start(row: Row, place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let chain = match row {
        Row::Direct => direct(origin),
        Row::Haproxy => haproxy::start(place, origin)?,
        Row::Quic | Row::QuicCubic | Row::H2 => ours::start(row, place, origin).await,
        Row::Rathole => rathole::start(place, origin)?,
        Row::Bore => bore::start(place, origin)?,
    };
    answers(&chain, place).await;
    Ok(chain)
}

fn direct(origin: &Origin) -> Chain {
    Chain {
        row: Row::Direct,
        entrance: origin.tls,
        host: origin::NAME.to_owned(),
        api: None,
        relay: None,
        agent: None,
        _ports: vec![],
    }
}

async fn answers(chain: &Chain, place: &Place) {
    let row = chain.row.key();
    until_ok(&format!("{row} answers"), async || {
        match curl::answers(chain, place).await {
            true => Ok(()),
            false => Err(chain.log()),
        }
    })
    .await;
}
