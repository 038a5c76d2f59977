//! A TCP port before the relay, as a router that forwards one has it: its number is known before the relay
//! listens. A story decides how many connections pass, and the others wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::origin::{Origin, origin, reset};
use crate::poll::eventually;

/// More connections than any story has.
const MANY: usize = 1 << 20;

/// The port. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Front {
    leads_to: watch::Sender<Option<SocketAddr>>,
    permits: Arc<Semaphore>,
    came: Arc<AtomicUsize>,
    listens: Origin,
}

/// A port that leads nowhere yet: who comes waits.
pub async fn front() -> Front {
    let (leads_to, to) = watch::channel(None);
    let (permits, came) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (passing, counted) = (permits.clone(), came.clone());
    let serve = move |tcp| {
        counted.fetch_add(1, Ordering::Relaxed);
        pass(tcp, passing.clone(), to.clone())
    };
    Front {
        leads_to,
        permits,
        came,
        listens: origin(serve).await,
    }
}

async fn pass(
    mut near: TcpStream,
    permits: Arc<Semaphore>,
    mut to: watch::Receiver<Option<SocketAddr>>,
) {
    permits.acquire().await.expect("never closed").forget();
    let to = *to.wait_for(Option::is_some).await.expect("it is there");
    let to = to.expect("was waited for");
    match TcpStream::connect(to).await {
        // Either end may break off.
        Ok(mut far) => drop(copy_bidirectional(&mut near, &mut far).await),
        Err(_) => reset(near),
    }
}

impl Front {
    /// Its number, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listens.address.port()
    }

    /// From now on it leads to `address`.
    pub fn leads_to(&self, address: SocketAddr) {
        self.leads_to.send_replace(Some(address));
    }

    /// So many more connections pass.
    pub fn passes(&self, connections: usize) {
        self.permits.add_permits(connections);
    }

    /// From now on all pass.
    pub fn opens(&self) {
        self.passes(MANY);
    }

    /// Waits until so many connections have come, in all.
    pub async fn has_seen(&self, connections: usize) {
        let came = || self.came.load(Ordering::Relaxed) >= connections;
        eventually("they come to the port", came).await;
    }
}
