//! How the relay is reached.

use std::time::Duration;

use tunnel_client::config::{Config, POOL_SIZE, Transport};

/// The relay keeps 16 tunnels of an agent, and some may still be there from before a restart.
const MAX_POOL_SIZE: i64 = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Ways {
    /// Use HTTP/2 over TCP, and send no UDP packet to the relay
    #[arg(long)]
    force_h2: bool,
    /// Connections that serve together over HTTP/2, 1 to 8: a lost packet holds up the visits of one of
    /// them
    #[arg(long, default_value_t = POOL_SIZE, value_parser = clap::value_parser!(u16).range(1..=MAX_POOL_SIZE))]
    pool_size: u16,
    /// Seconds before QUIC is tried again while the tunnel is HTTP/2; each time twice as long, up to ten
    /// times
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), conflicts_with = "force_h2")]
    quic_probe: u64,
}

impl Ways {
    /// Puts into `config` what was chosen.
    pub(super) fn apply(&self, config: &mut Config) {
        if self.force_h2 {
            config.transport = Transport::OnlyH2;
        }
        config.pool_size = self.pool_size;
        config.timeouts.quic_probe = Duration::from_secs(self.quic_probe);
    }
}
