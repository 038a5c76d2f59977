//! Both binaries with something published, as curl sees them.

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Output;

use crate::pair::{Client, Server, publish, server};
use crate::process::{folder, tool};
use crate::tools;
use crate::transport::Over;

/// A server and a client that publishes something, as curl sees them.
#[derive(Debug)]
pub struct Published {
    /// The relay.
    pub server: Server,
    /// The agent.
    pub client: Client,
    resolve: String,
}

/// Publishes `local` with these flags of `client`.
pub async fn published(over: Over, local: impl Display, flags: &[&str]) -> Published {
    let server = server(&[]).await;
    let client = publish(over, &server, local, flags, folder()).await;
    Published::new(server, client)
}

impl Published {
    /// What runs already.
    pub fn new(server: Server, client: Client) -> Self {
        let visitors = server.visitors();
        let resolve = format!("{}:{}:{}", client.host(), visitors.port(), visitors.ip());
        Self {
            server,
            client,
            resolve,
        }
    }

    /// Where visitors find a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.client.url)
    }

    /// Runs curl, which must succeed, and gives what it printed.
    pub async fn curl(&self, arguments: &[&str]) -> String {
        tool("curl", &self.arguments(arguments)).await
    }

    /// Runs curl, which may fail.
    pub async fn try_curl(&self, arguments: &[&str]) -> Output {
        tools::run("curl", &self.arguments(arguments)).await
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["-k", "-sS", "--resolve", &self.resolve];
        all.extend(more);
        all
    }
}

/// A file of `mebibytes`, no two alike: each begins with its number.
pub fn big_file(path: &Path, mebibytes: u32) {
    let mut file = File::create(path).expect("creates");
    for number in 0..mebibytes {
        let mut mebibyte = vec![0x5a; 1 << 20];
        mebibyte[..4].copy_from_slice(&number.to_be_bytes());
        file.write_all(&mebibyte).expect("writes");
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
