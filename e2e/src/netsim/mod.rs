//! A bad network: two network namespaces, and between them a line whose faults a story chooses.
//!
//! ```text
//!  near: the agent's namespace                        far: the relay's namespace
//!  10.77.0.1, fd77::1                                 10.77.0.2, fd77::2
//!  [agent, local service] TUN ──▶ NAT ──▶ up ──────▶ TUN [relay, visitors]
//!                             ◀── NAT ◀────── down ◀──
//! ```
//!
//! A packet takes this way, `Lane` and `Forwarder` in one
//! direction each:
//!
//! 1. it leaves a namespace through its TUN device, and this process reads it;
//! 2. what is cut, blocked, too big or lost is dropped in silence, and so is all multicast;
//! 3. it waits in a bounded queue for its turn on a line of so many bits a second;
//! 4. it flies for the delay, never past one that left before it;
//! 5. it is written to the other TUN device. The NAT, if it is on, stands at the near end.
//!
//! * [`line()`] sets all of it up, or says aloud why it can not; dropping the [`Line`] removes it.
//! * [`Namespace`] runs programs and futures in one of the two. `/etc/netns/<name>/` may hold files
//!   that programs there see in `/etc`.
//! * [`programs`] starts `server` far and `client` near, [`scene`] both at once; [`traffic`] is what
//!   visitors do there meanwhile, and [`download`] one who stays for long.
//! * [`Conditions`] may be changed at any time, for each [`Direction`].
//!
//! It needs Linux, root, `/dev/net/tun` and `ip`, and no module of the kernel for bad networks.
//! Packets of all tests have the same addresses: no namespace sees another's.

mod conditions;
mod direction;
pub mod download;
mod forwarder;
mod lane;
mod leftovers;
mod line;
mod local;
mod namespace;
mod nat;
mod packet;
pub mod programs;
pub mod scene;
pub mod traffic;
mod tun;

pub use conditions::{Block, Conditions, Loss};
pub use direction::{Counts, Direction};
pub use line::{FAR, FAR_TWO, FAR_V6, Line, NEAR, NEAR_V6, REQUIRE, line, line_with_seed};
pub use namespace::Namespace;
pub use nat::Nat;
