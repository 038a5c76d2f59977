//! A firewall between one agent and its relay, on loopback: it passes TCP, and UDP as long as the
//! story wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::origin::reset;

/// No packet is counted off.
const NO_LIMIT: u64 = u64::MAX;
/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_536;

/// A firewall. Dropping it cuts everything.
#[derive(Debug)]
pub struct Firewall {
    /// Where the agent finds the relay, by UDP and by TCP.
    pub address: SocketAddr,
    state: Arc<State>,
    _running: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Packets of each flow towards the relay that still pass.
    passes: AtomicU64,
    packets: AtomicU64,
    connections: Mutex<Vec<AbortHandle>>,
    /// Fires for the TCP connections that are open then.
    freezes: Notify,
}

/// A firewall before the relay at `to` that passes all.
pub async fn firewall(to: SocketAddr) -> Firewall {
    between(to, to).await
}

/// The same where UDP leads somewhere else.
pub async fn between(to: SocketAddr, udp_to: SocketAddr) -> Firewall {
    let (tcp, udp) = both().await;
    let address = tcp.local_addr().expect("bound");
    let state = Arc::new(State::default());
    state.passes.store(NO_LIMIT, Ordering::Relaxed);
    let mut running = JoinSet::new();
    running.spawn(pass_tcp(tcp, to, state.clone()));
    running.spawn(pass_udp(udp, udp_to, state.clone()));
    Firewall {
        address,
        state,
        _running: running,
    }
}

/// One number, free for both.
async fn both() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = tcp.local_addr().expect("bound");
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (tcp, udp);
        }
    }
}

async fn pass_tcp(listener: TcpListener, to: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.expect("accepts");
        near.set_nodelay(true).expect("is connected");
        let watched = state.clone();
        let passing = connections.spawn(async move {
            let state = watched;
            let mut far = TcpStream::connect(to).await.expect("connects");
            far.set_nodelay(true).expect("is connected");
            tokio::select! {
                // Breaks off with either end.
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                () = state.freezes.notified() => std::future::pending().await,
            }
            reset(near);
            reset(far);
        });
        state
            .connections
            .lock()
            .expect("not poisoned")
            .push(passing);
    }
}

/// One socket towards the relay for each of the agent's.
async fn pass_udp(near: UdpSocket, to: SocketAddr, state: Arc<State>) {
    let near = Arc::new(near);
    let (mut flows, mut answering) = (HashMap::new(), JoinSet::new());
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, from)) = near.recv_from(&mut buffer).await else {
            continue;
        };
        state.packets.fetch_add(1, Ordering::Relaxed);
        if let std::collections::hash_map::Entry::Vacant(new) = flows.entry(from) {
            let far = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
            far.connect(to).await.expect("has a route");
            let flow = Arc::new(Flow {
                far,
                passed: AtomicU64::new(0),
            });
            answering.spawn(answer(near.clone(), flow.clone(), from, state.clone()));
            new.insert(flow);
        }
        let flow = &flows[&from];
        if flow.passed.fetch_add(1, Ordering::Relaxed) < state.passes.load(Ordering::Relaxed) {
            // A relay that is not there is part of many stories.
            let _ = flow.far.send(&buffer[..length]).await;
        }
    }
}

/// One of the agent's sockets, as the relay sees it.
struct Flow {
    far: UdpSocket,
    passed: AtomicU64,
}

async fn answer(near: Arc<UdpSocket>, flow: Arc<Flow>, to: SocketAddr, state: Arc<State>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok(length) = flow.far.recv(&mut buffer).await else {
            continue;
        };
        if flow.passed.load(Ordering::Relaxed) <= state.passes.load(Ordering::Relaxed) {
            let _ = near.send_to(&buffer[..length], to).await;
        }
    }
}

impl Firewall {
    /// From now on UDP packets vanish, those of flows that were there too.
    pub fn swallows_udp(&self) {
        self.passes_of_each_flow(0);
    }

    /// From now on UDP passes.
    pub fn passes_udp(&self) {
        self.passes_of_each_flow(NO_LIMIT);
    }

    /// Of each flow so many packets of the agent's pass, and then none either way.
    pub fn passes_of_each_flow(&self, packets: u64) {
        self.state.passes.store(packets, Ordering::Relaxed);
    }

    /// UDP packets that the agent has sent, whether they passed or not.
    pub fn packets(&self) -> u64 {
        self.state.packets.load(Ordering::Relaxed)
    }

    /// TCP connections of the agent that are open.
    pub fn open(&self) -> usize {
        let connections = self.state.connections.lock().expect("not poisoned");
        connections.iter().filter(|one| !one.is_finished()).count()
    }

    /// TCP connections that the agent ever made.
    pub fn opened(&self) -> usize {
        self.state.connections.lock().expect("not poisoned").len()
    }

    /// Nothing passes any more over the TCP connections that are open; they stay open, and new ones pass.
    pub fn freezes_tcp(&self) {
        self.state.freezes.notify_waiters();
    }

    /// Cuts the oldest TCP connections that are open, so many.
    pub fn cuts(&self, connections: usize) {
        let all = self.state.connections.lock().expect("not poisoned");
        let open = all.iter().filter(|one| !one.is_finished());
        open.take(connections).for_each(AbortHandle::abort);
    }
}
