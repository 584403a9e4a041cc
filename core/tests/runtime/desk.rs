//! A handler that the tests hold and let go.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{ConsumerGroup, ConsumerHandle, Delivery, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::fake::{Call, Script, until};

/// A handler that notes what it begins, and waits for a gate where the test has set one.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: Mutex<Vec<(u64, u32)>>,
    dropped: Mutex<Vec<u64>>,
    gates: Mutex<BTreeMap<u64, Arc<Notify>>>,
    failures: Mutex<BTreeMap<u64, u32>>,
}

impl Desk {
    /// Makes the handler of `position` wait until the gate is opened.
    pub(crate) fn gate(&self, position: u64) -> Arc<Notify> {
        self.0
            .gates
            .lock()
            .unwrap()
            .entry(position)
            .or_default()
            .clone()
    }

    pub(crate) fn fail(&self, position: u64, times: u32) {
        self.0.failures.lock().unwrap().insert(position, times);
    }

    pub(crate) fn begun(&self) -> Vec<u64> {
        self.0
            .begun
            .lock()
            .unwrap()
            .iter()
            .map(|(position, _)| *position)
            .collect()
    }

    pub(crate) fn attempts(&self) -> Vec<(u64, u32)> {
        self.0.begun.lock().unwrap().clone()
    }

    pub(crate) fn dropped(&self) -> Vec<u64> {
        self.0.dropped.lock().unwrap().clone()
    }

    pub(crate) async fn until_begun(&self, positions: &[u64]) {
        until(|| self.begun() == positions).await;
        // One more look, after everything that could have begun too many has had its turn.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(self.begun(), positions);
    }

    pub(crate) fn run(&self, group: ConsumerGroup) -> (ConsumerHandle, JoinHandle<Result<()>>) {
        let desk = self.clone();
        let run = group.run(move |delivery| desk.clone().handle(delivery), pending());
        (run.handle(), tokio::spawn(run))
    }

    pub(crate) async fn handle(self, delivery: Delivery) -> Result<(), String> {
        let position = delivery.position().offset().unwrap();
        self.0
            .begun
            .lock()
            .unwrap()
            .push((position, delivery.attempt()));
        let gate = self.0.gates.lock().unwrap().get(&position).cloned();
        if let Some(gate) = gate {
            let dropped = Dropped(&self, position);
            gate.notified().await;
            std::mem::forget(dropped);
        }
        match self.0.failures.lock().unwrap().get_mut(&position) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(format!("no {position}"))
            }
            _ => Ok(()),
        }
    }
}

struct Dropped<'a>(&'a Desk, u64);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.0.dropped.lock().unwrap().push(self.1);
    }
}

pub(crate) fn group(script: &Script) -> ConsumerGroup {
    script.client.group("g").stream("s")
}

pub(crate) fn checkpoint(id: &str, position: u64) -> Call {
    Call::Checkpoint(id.to_owned(), position)
}
