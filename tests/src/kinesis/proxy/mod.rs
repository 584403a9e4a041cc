//! A proxy between clients and the two services. It parses requests and injects faults of the network and of AWS.
//!
//! Clients use one address for both services, and need no changes.

use std::io;
use std::net::Ipv4Addr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

mod exchange;
mod faults;
mod limits;
mod request;
mod response;
mod retention;
mod stats;
mod subscription;

pub use faults::Faults;
pub use request::Service;
pub use stats::{Read, RequestStats, Sent};

use exchange::Exchange;
use request::Shard;

/// A port that forwards to both services. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    exchange: Exchange,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Opens a port on 127.0.0.1 that forwards to the services on these ports.
    pub async fn open(kinesis: u16, dynamodb: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let exchange = Exchange::new(Faults::default(), kinesis, dynamodb);
        let serving = tokio::spawn(serve(listener, exchange.clone()));
        Ok(Self {
            port,
            exchange,
            serving,
        })
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address for clients of both services.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the faults to inject into requests.
    pub fn faults(&self) -> &Faults {
        &self.exchange.faults
    }

    /// Returns the counters of requests and records.
    pub fn stats(&self) -> &RequestStats {
        &self.exchange.stats
    }

    /// Enforces the read limits of AWS on polling from now on. No emulator does.
    pub fn limit_reads(&self) {
        self.exchange.limits.enforce();
    }

    /// Hides all records of the shard up to this sequence number.
    pub fn trim(&self, stream: &str, shard: &str, last: &str) {
        let shard = Shard {
            stream: stream.to_owned(),
            id: shard.to_owned(),
        };
        self.exchange.retention.trim(shard, last.to_owned());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, exchange: Exchange) {
    // Ends every connection when this is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(handle_connection(client, exchange.clone()));
                }
                Err(error) => panic!("the proxy cannot accept connections: {error}"),
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

/// A connection that fails is closed, which is what its client must see.
async fn handle_connection(client: TcpStream, exchange: Exchange) {
    // Delays are to be those of the faults.
    drop(client.set_nodelay(true));
    let service = service_fn(|request| {
        let response = exchange.clone().respond(request);
        async {
            // What is on its way arrives, though its client has given up and is gone.
            let response = tokio::spawn(response).await;
            response.map_err(io::Error::other)?
        }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(client), service);
    drop(served.await);
}
