//! Sends the input to `car-raw-events`, and its bad lines to the dead letter stream.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream::{ErrorKind, Producer, Receipt, Record};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::args::Args;
use crate::fleet::{DEAD, Fleet, RAW};
use crate::input::{Input, Line};
use crate::recreate::{RECREATE_AT, recreate};
use crate::sent_log::SentLog;
use crate::stage::Stage;
use crate::tag::Tag;

/// The header with the number of earlier passes over the input, if any.
pub(crate) const PASS: &str = "fleet-pass";

/// The header with the line number of the input.
pub(crate) const LINE: &str = "fleet-line";

/// The header with the reason why a line is bad.
const REASON: &str = "fleet-reason";

/// The lane and key of all bad lines: they stay in the order of the input.
const BAD: &str = "bad-lines";

/// The number of bytes of a bad line that are kept.
const KEPT: usize = 64 << 10;

/// The maximum number of records by which sending may be ahead of the slowest group. Bounds the content of the streams.
const MAX_AHEAD: u64 = 50_000;

/// The maximum bytes by which sending may be ahead, computed from the longest recent line: far below the retention in
/// `fleet.toml`.
const MAX_BYTES_AHEAD: u64 = 32 << 20;

/// How long groups may handle nothing before the run fails.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends everything from `lines` until they end or `stop` is set, and waits until all of it is
/// stored.
pub(crate) async fn send(
    fleet: Arc<Fleet>,
    mut lines: mpsc::Receiver<anyhow::Result<Vec<Line>>>,
    args: Args,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (receipts, unread) = mpsc::channel(10_000);
    let confirming = tokio::spawn(confirm(fleet.clone(), unread));
    let mut sender = Sender {
        raw: fleet.client.producer(RAW).open().await?,
        dead: fleet.client.producer(DEAD).open().await?,
        fleet,
        receipts,
        rate: args.rate(),
        recreate: args.recreate,
        sent: 0,
        started: Instant::now(),
        longest: 0,
    };
    let sent = loop {
        let batch = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => break Ok(()),
            batch = lines.recv() => batch,
        };
        match batch {
            None => break Ok(()),
            Some(Err(error)) => break Err(error),
            Some(Ok(batch)) => {
                if let Err(error) = sender.send_all(batch, &stop).await {
                    break Err(error);
                }
            }
        }
    };
    let closed = sender.close().await;
    let confirmed = confirming.await.context("the reader of receipts ended")?;
    sent.and(confirmed).and(closed)
}

struct Sender {
    fleet: Arc<Fleet>,
    raw: Producer,
    dead: Producer,
    receipts: mpsc::Sender<Sent>,
    rate: Option<u32>,
    recreate: bool,
    sent: u64,
    started: Instant,
    longest: u64,
}

/// A record in flight.
struct Sent {
    receipt: Receipt,
    lane: String,
    seq: u64,
    bad: bool,
}

impl Sender {
    /// Sends lines until `stop` is set.
    async fn send_all(
        &mut self,
        batch: Vec<Line>,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        for line in batch {
            if *stop.borrow() {
                break;
            }
            self.send(line).await?;
        }
        Ok(())
    }

    async fn send(&mut self, line: Line) -> anyhow::Result<()> {
        let kept = match line.key {
            Ok(_) => line.bytes.len(),
            Err(_) => line.bytes.len().min(KEPT),
        };
        // It decays, so that one long line does not slow down all later ones.
        self.longest = (self.longest - self.longest / 4_096).max(kept as u64);
        self.wait_for_groups().await?;
        self.wait_for_time().await;
        let lane = match &line.key {
            Ok(key) => key.clone(),
            Err(reason) => return self.send_bad(&line, reason).await,
        };
        if self.recreate && self.sent >= RECREATE_AT {
            self.recreate = false;
            self.raw.close().await?;
            recreate(&self.fleet).await?;
            self.raw = self.fleet.client.producer(RAW).open().await?;
        }
        let mut seq = self.fleet.reports.next(&lane);
        if self.fleet.tombstones.has(seq) {
            self.send_tombstone(&lane, seq).await?;
            seq = self.fleet.reports.next(&lane);
        }
        let mut record = Record::new(line.bytes.clone())
            .key(lane.clone())
            .header(LINE, line.number.to_string());
        if line.pass > 0 {
            record = record.header(PASS, line.pass.to_string());
        }
        let record = self.fleet.run.mark(record, Tag { lane: &lane, seq });
        match self.raw.send(record).await {
            Ok(receipt) => self.sent(receipt, lane, seq, false).await,
            Err(error) => {
                self.fleet.reports.withdraw(&lane, seq);
                match error.kind() {
                    // The stream does not accept this key or size: the line is bad, and the next
                    // one may be good.
                    ErrorKind::Invalid | ErrorKind::TooLarge => {
                        self.send_bad(&line, error.message()).await
                    }
                    _ => Err(error.into()),
                }
            }
        }
    }

    async fn send_tombstone(&mut self, lane: &str, seq: u64) -> anyhow::Result<()> {
        let record = Record::tombstone(lane.to_owned());
        let record = self.fleet.run.mark(record, Tag { lane, seq });
        match self.raw.send(record).await {
            Ok(receipt) => {
                self.fleet.tombstones_sent.fetch_add(1, Relaxed);
                self.sent(receipt, lane.to_owned(), seq, false).await
            }
            Err(error) => {
                self.fleet.reports.withdraw(lane, seq);
                match error.kind() {
                    // The following report has the same key, and is the bad line.
                    ErrorKind::Invalid | ErrorKind::TooLarge => Ok(()),
                    _ => Err(error.into()),
                }
            }
        }
    }

    async fn send_bad(&mut self, line: &Line, reason: &str) -> anyhow::Result<()> {
        self.fleet.notes.bad_line(line.number, reason);
        let seq = self.fleet.bad.next(BAD);
        let kept = line.bytes.slice(..line.bytes.len().min(KEPT));
        let record = Record::new(kept)
            .key(BAD)
            .header(LINE, line.number.to_string())
            .header(REASON, reason.to_owned());
        let record = self.fleet.run.mark(record, Tag { lane: BAD, seq });
        match self.dead.send(record).await {
            Ok(receipt) => self.sent(receipt, BAD.into(), seq, true).await,
            Err(error) => {
                self.fleet.bad.withdraw(BAD, seq);
                Err(error.into())
            }
        }
    }

    async fn sent(
        &mut self,
        receipt: Receipt,
        lane: String,
        seq: u64,
        bad: bool,
    ) -> anyhow::Result<()> {
        self.sent += 1;
        let sent = Sent {
            receipt,
            lane,
            seq,
            bad,
        };
        let taken = self.receipts.send(sent).await;
        taken.map_err(|_| anyhow::anyhow!("the reader of receipts ended"))
    }

    /// Waits until the rate allows one more record.
    async fn wait_for_time(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
            sleep_until(self.started + due).await;
        }
    }

    /// Waits until no group is too far behind.
    async fn wait_for_groups(&self) -> anyhow::Result<()> {
        // Checking every time would cost more than sending.
        if self.sent % 64 != 0 && self.longest < MAX_BYTES_AHEAD / MAX_AHEAD {
            return Ok(());
        }
        let most = MAX_AHEAD.min(MAX_BYTES_AHEAD / self.longest.max(1)).max(1);
        let mut progress = (u64::MAX, Instant::now());
        loop {
            let slowest = Stage::ALL
                .into_iter()
                .map(|stage| (self.fleet.behind(stage), stage))
                .max_by_key(|(behind, _)| *behind);
            let Some((behind, stage)) = slowest.filter(|(behind, _)| *behind >= most) else {
                return Ok(());
            };
            if behind < progress.0 {
                progress = (behind, Instant::now());
            } else if progress.1.elapsed() > STALL_TIMEOUT {
                bail!(
                    "the group {} has handled nothing for {STALL_TIMEOUT:?}",
                    stage.name()
                );
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until everything is stored or has failed.
    async fn close(self) -> anyhow::Result<()> {
        drop(self.receipts);
        self.raw.close().await?;
        self.dead.close().await?;
        Ok(())
    }
}

/// Reads the receipts, in the order of sending. No group is expected to handle a record that was not stored, and
/// such a record fails the run at the end.
async fn confirm(fleet: Arc<Fleet>, mut sent: mpsc::Receiver<Sent>) -> anyhow::Result<()> {
    let mut result = Ok(());
    while let Some(sent) = sent.recv().await {
        if let Err(error) = sent.receipt.await {
            let log: &SentLog = match sent.bad {
                true => &fleet.bad,
                false => &fleet.reports,
            };
            log.withdraw(&sent.lane, sent.seq);
            result = result.and(Err(error).context("a record was not stored"));
        }
    }
    result
}

/// Reads the input on a dedicated thread, because reading blocks. The thread ends with the input, or
/// one batch after the receiver is dropped.
pub(crate) fn read(input: Input) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Vec<Line>>>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            if let Err(error) = input.read(|batch| sender.blocking_send(Ok(batch)).is_ok()) {
                // After a stop, the receiver is gone.
                let _ = sender.blocking_send(Err(error));
            }
        })
        .context("cannot start the thread that reads the input")?;
    Ok(receiver)
}
