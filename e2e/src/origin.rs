//! Local services: what the agent publishes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A local service. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    running: AbortHandle,
}

/// Serves each connection with `serve`, on a free port of loopback.
pub async fn origin<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
{
    origin_at("127.0.0.1:0", serve).await
}

/// The same at another address.
pub async fn origin_at<F>(address: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.expect("binds");
    origin_on(listener, serve)
}

/// Serves each connection of `listener`, which may be in a namespace of its own, with `serve`.
pub fn origin_on<F>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = listener.local_addr().expect("bound");
    let running = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.expect("accepts");
                    stream.set_nodelay(true).expect("is connected");
                    connections.spawn(serve(stream));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Origin {
        address,
        running: running.abort_handle(),
    }
}

/// Gives back what it gets, and ends when its peer does.
pub async fn echo() -> Origin {
    origin(async |mut stream: TcpStream| {
        let (mut read, mut write) = stream.split();
        // A peer that breaks off is part of many stories.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Answers every HTTP request with 200 and `body`, and keeps the connection.
pub async fn http(body: &'static str) -> Origin {
    http_at("127.0.0.1:0", body).await
}

/// The same at another address.
pub async fn http_at(address: &str, body: &'static str) -> Origin {
    origin_at(address, move |mut stream| async move {
        let mut head = Vec::new();
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut chunk = [0; 4096];
        while let Ok(got @ 1..) = stream.read(&mut chunk).await {
            head.extend_from_slice(&chunk[..got]);
            while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                head.drain(..end + 4);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Closes with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("is open");
    drop(stream);
}
