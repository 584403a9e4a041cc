//! Several threads send through one small room: no send is forgotten, and each key keeps its order.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{self, Runtime};

use super::ALL;
use super::fake::{Fake, LIMITS};
use crate::{Producer, Record};

const THREADS: usize = 4;
const RECORDS: usize = 2_000;

fn runtime() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

#[test]
fn threads_share_the_room() {
    for pipelining in ALL {
        let fake = Fake::with(pipelining, LIMITS, Duration::ZERO);
        let home = runtime();
        let producer = home
            .block_on(fake.builder().in_flight_records(3).open())
            .unwrap();
        let senders: Vec<_> = (0..THREADS)
            .map(|thread| {
                let producer = producer.clone();
                std::thread::spawn(move || runtime().block_on(send_all(producer, thread)))
            })
            .collect();
        let all = async {
            while producer.stats().stored < (THREADS * RECORDS) as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            producer.close().await.unwrap();
        };
        home.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await })
            .expect("somebody was forgotten");
        for sender in senders {
            sender.join().unwrap();
        }
        for thread in 0..THREADS {
            let sent: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
            assert_eq!(fake.stored_of(&thread.to_string()), sent, "{pipelining:?}");
        }
    }
}

/// Reads every other receipt, and sometimes drops a send that waits for room.
async fn send_all(producer: Producer, thread: usize) {
    for number in 0..RECORDS {
        let record = || Record::new(number.to_string()).key(thread.to_string());
        let mut sent = Box::pin(producer.send(record()));
        let at_once = sent.as_mut().now_or_never();
        let receipt = match at_once {
            Some(receipt) => receipt,
            None if number % 10 > 0 => sent.await,
            None => {
                drop(sent);
                producer.send(record()).await
            }
        };
        let receipt = receipt.unwrap();
        if number % 2 == 0 {
            receipt.await.unwrap();
        }
    }
}
