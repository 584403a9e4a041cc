//! Draws a script from a seed.
//!
//! A seed first draws which kinds of disruption it has at all. So a calm fleet with only rolling
//! restarts, where nothing may be repeated, is as frequent as one with all kinds of faults at
//! once.

use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use millstream_core::{ErrorKind, OnDataLoss, Start};
use millstream_memory::Imitation;

use super::script::*;

/// Draws the script of a seed.
pub(super) fn script(seed: u64) -> Script {
    let mut dice = Generator(Rng::with_seed(seed));
    let session_timeout = dice.millis(500..=10_000);
    let streams = dice.streams();
    let records_per_second = dice.chance(0.1).then(|| dice.0.u64(50..500));
    let record_bytes = dice.chance(0.2).then(|| dice.pick(&[1_000, 2_000, 10_000]));
    let like = match dice.chance(0.3) {
        true => dice.pick(&[Some(Imitation::Kafka), Some(Imitation::Kinesis)]),
        false => None,
    };
    let producers = dice.producers(&streams);
    let length = producers
        .iter()
        .map(ProducerPlan::length)
        .max()
        .unwrap_or_default();
    let mut groups = dice.groups(&streams, length, session_timeout, like);
    let mut disruptions = dice.disruptions(&streams, &groups, length, session_timeout, like);
    let restart = dice.chance(0.1).then(|| dice.0.bool());
    // With a separate generator, so that the rest of each script stays the same.
    let mut refusals = Generator(Rng::with_seed(seed ^ 0x5eed_0f5e_f05a_15e5));
    for group in &mut groups {
        if matches!(group.style, Style::Pipeline { once: true, .. }) {
            group.handler.refused = refusals.pick(&[0.0, 0.01, 0.05, 0.3]);
        }
    }
    let retention = dice.chance(0.08).then(|| dice.pick(&[1, 500, 3_000]));
    if retention.is_some() {
        for group in &mut groups {
            group.on_data_loss = dice.pick(&[OnDataLoss::Skip, OnDataLoss::Skip, OnDataLoss::Fail]);
            // Dead letters would be trimmed, too.
            if group.final_action == FinalAction::DeadLetter {
                group.final_action = FinalAction::Skip;
            }
        }
    }
    let mut recreations = Generator(Rng::with_seed(seed ^ 0x0dd5_7e4a_05a6_a1e5));
    // With retention, a removed record could also have been in either stream.
    if retention.is_none() && recreations.chance(0.2) {
        let recreated = recreations.recreations(&streams, length, session_timeout);
        disruptions.extend(recreated);
        disruptions.sort_by_key(|(at, _)| *at);
    }
    Script {
        seed,
        session_timeout,
        records_per_second,
        record_bytes,
        like,
        retention,
        streams,
        producers,
        groups,
        restart,
        disruptions,
    }
}

impl ProducerPlan {
    /// Returns about how long the script sends.
    fn length(&self) -> Duration {
        self.gap * (2 * self.records / (self.burst + 1)) as u32
    }
}

/// Returns the latest time of a disruption. Some happen after the last record was sent, while
/// members only catch up.
fn last_disruption(length: Duration) -> Duration {
    (length + length / 3).max(Duration::from_secs(1))
}

struct Generator(Rng);

impl Generator {
    fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())].clone()
    }

    fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }

    /// Draws a duration from a thousandth of `most` to `most`, on a logarithmic scale.
    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(10f64.powf(-3.0 * self.0.f64()))
    }

    fn streams(&mut self) -> Vec<StreamPlan> {
        let count = self.pick(&[1, 1, 2, 3]);
        (0..count)
            .map(|number| StreamPlan {
                name: format!("stream-{number}"),
                partitions: self.pick(&[1, 1, 2, 2, 3, 4, 6, 8]),
            })
            .collect()
    }

    fn producers(&mut self, streams: &[StreamPlan]) -> Vec<ProducerPlan> {
        let count = streams.len().max(self.pick(&[1, 2, 3]));
        let records = self.0.u64(100..500) / count as u64;
        (0..count)
            .map(|number| ProducerPlan {
                stream: streams[number % streams.len()].name.clone(),
                records,
                keys: self.pick(&[1, 2, 3, 5, 10, 30, 100, 1_000_000]),
                skewed: self.0.bool(),
                keyless: self.pick(&[0.0, 0.0, 0.1, 0.5]),
                tombstones: self.pick(&[0.0, 0.0, 0.1, 0.5]),
                odd: self.pick(&[0.0, 0.0, 0.05, 0.3]),
                burst: self.pick(&[1, 3, 10, 50]),
                gap: self.millis(5..=300),
                in_flight: self.pick(&[1, 5, 50, 10_000]),
                in_flight_bytes: self.pick(&[1, 200, 1 << 20, 1 << 20]),
                timeout: self.pick(&[2, 120, 120, 120]) * Duration::from_secs(1),
                close_timeout: self.pick(&[1, 500, 30_000, 30_000]) * MILLI,
                send_timeout: self.pick(&[None, None, None, Some(MILLI), Some(50 * MILLI)]),
                unread: self.pick(&[0.0, 0.0, 0.0, 0.1, 0.9, 1.0]),
                flushing: self.pick(&[0.0, 0.0, 0.1, 0.5]),
                runs: self.pick(&[1, 1, 2, 5]),
                ending: self.pick(&[
                    Ending::Close,
                    Ending::Close,
                    Ending::CloseInFlight,
                    Ending::Drop,
                ]),
            })
            .collect()
    }

    fn groups(
        &mut self,
        streams: &[StreamPlan],
        length: Duration,
        session_timeout: Duration,
        like: Option<Imitation>,
    ) -> Vec<GroupPlan> {
        let count = self.pick(&[1, 1, 2, 2, 3]);
        let mut groups: Vec<GroupPlan> = (0..count)
            .map(|number| self.group(number, streams, length, session_timeout))
            .collect();
        if self.chance(0.25) {
            groups[0].style = Style::Pipeline {
                to: PIPELINE_OUTPUT.into(),
                once: self.chance(0.7) && like != Some(Imitation::Kinesis),
            };
            let mut reader = self.group(count, streams, length, session_timeout);
            reader.streams = vec![PIPELINE_OUTPUT.into()];
            reader.start = Start::Earliest;
            groups.push(reader);
        }
        groups
    }

    fn group(
        &mut self,
        number: usize,
        streams: &[StreamPlan],
        length: Duration,
        session_timeout: Duration,
    ) -> GroupPlan {
        let mut read: Vec<String> = streams.iter().map(|stream| stream.name.clone()).collect();
        self.0.shuffle(&mut read);
        read.truncate(self.0.usize(1..=streams.len()));
        let final_action = self.pick(&[
            FinalAction::DeadLetter,
            FinalAction::DeadLetter,
            FinalAction::Skip,
            FinalAction::Stop,
        ]);
        let members = self.pick(&[1, 2, 2, 3, 4, 5]);
        GroupPlan {
            name: format!("group-{number}"),
            streams: read,
            start: self.pick(&[Start::Earliest, Start::Earliest, Start::Latest]),
            begins: self.pick(&[Duration::ZERO, Duration::ZERO, length / 4]),
            members,
            style: match self.0.u8(..10) {
                0..6 => Style::Each,
                6..8 => Style::Batches(self.pick(&[1, 3, 10, 50])),
                _ => Style::Pull(self.pick(&[1, 2, 4, 8])),
            },
            concurrency: self.pick(&[1, 2, 4, 8, 16]),
            window: self.pick(&[1, 2, 5, 20, 100, 10_000]),
            buffer_bytes: self.pick(&[1, 200, 2_000, 1 << 20, 1 << 20]),
            fetch: self.pick(&[1, 1, 3, 10, 100, 1_000]),
            checkpoint_interval: match self.chance(0.1) {
                // Only settled records and leaving members store progress.
                true => LONG_INTERVAL,
                false => self.up_to(Duration::from_secs(5)).max(MILLI),
            },
            checkpoint_records: self.pick(&[1, 5, 50, 10_000]),
            drain: match self.chance(0.85) {
                true => LONG_DRAIN,
                false => self.pick(&[0, 1, 10, 100, 500]) * MILLI,
            },
            attempts: self.pick(&[1, 2, 3, 5]),
            backoff: match self.0.bool() {
                true => Backoff::Fixed(self.millis(0..=300)),
                false => Backoff::Exponential(self.millis(1..=100), self.millis(100..=1_000)),
            },
            final_action,
            on_data_loss: OnDataLoss::Skip,
            handler: self.handler(final_action, session_timeout),
            watch: self.millis(20..=500),
        }
    }

    fn handler(&mut self, final_action: FinalAction, session_timeout: Duration) -> HandlerPlan {
        let poison = self.pick(&[0.0, 0.01, 0.05]);
        HandlerPlan {
            pausing: self.pick(&[0.0, 0.1, 0.5, 1.0]),
            pause: self.up_to(Duration::from_secs(1)).max(MILLI),
            stuck: match session_timeout < Duration::from_secs(3) {
                true => self.pick(&[0.0, 0.0, 0.0, 0.01]),
                false => 0.0,
            },
            stuck_keys: self.pick(&[0, 0, 0, 1, 3]),
            key_stuck_for: self.up_to(Duration::from_secs(600)),
            failing: self.pick(&[0.0, 0.02, 0.1, 0.3]),
            failures: self.0.u32(1..=4),
            panicking: self.pick(&[0.0, 0.3, 1.0]),
            classified: self.pick(&[0.0, 0.3, 1.0]),
            poison: match final_action {
                FinalAction::DeadLetter | FinalAction::Skip => poison,
                // It would stop every member that joins.
                FinalAction::Stop => 0.0,
            },
            refused: 0.0,
        }
    }

    fn disruptions(
        &mut self,
        streams: &[StreamPlan],
        groups: &[GroupPlan],
        length: Duration,
        session_timeout: Duration,
        like: Option<Imitation>,
    ) -> Vec<(Duration, Disruption)> {
        let kinds = self.kinds(like);
        let count = self.pick(&[0, 2, 5, 10, 20]);
        let last = last_disruption(length);
        let mut times: Vec<Duration> = (0..count).map(|_| last.mul_f64(self.0.f64())).collect();
        times.sort();
        times
            .into_iter()
            .map(|at| {
                let kind = self.pick(&kinds);
                let group = self.0.usize(..groups.len());
                let stream = self.0.usize(..streams.len());
                (at, self.disruption(kind, group, stream, session_timeout))
            })
            .collect()
    }

    /// Draws the kinds of disruption that this seed has. Restarts and reshards are not faults, and any
    /// seed may have them.
    fn kinds(&mut self, like: Option<Imitation>) -> Vec<Kind> {
        use Kind::*;

        const GENTLE: [Kind; 9] = [
            Replace,
            Replace,
            Join,
            Leave,
            Pause,
            Split,
            Merge,
            LoseCheckpoints,
            DelaySends,
        ];
        const RUDE: [Kind; 10] = [
            Crash,
            Crash,
            Disconnect,
            Freeze,
            Freeze,
            Steal,
            FailSends,
            FailFor,
            TimeOutSends,
            Reset,
        ];
        let calm = self.chance(0.3);
        let mut kinds = Vec::new();
        for kind in GENTLE {
            if self.chance(0.6) {
                kinds.push(kind);
            }
        }
        for kind in RUDE {
            if !calm && self.chance(0.4) {
                kinds.push(kind);
            }
        }
        // After it, little is known of the order of keys, so it is rare.
        if self.chance(0.1) {
            kinds.push(AddPartitions);
        }
        kinds.retain(|kind| match like {
            Some(Imitation::Kafka) => !matches!(kind, Split | Merge),
            Some(Imitation::Kinesis) => !matches!(kind, AddPartitions),
            _ => true,
        });
        if kinds.is_empty() {
            kinds.push(Replace);
        }
        kinds
    }

    fn disruption(
        &mut self,
        kind: Kind,
        group: usize,
        stream: usize,
        session_timeout: Duration,
    ) -> Disruption {
        let pick = self.0.usize(..1_000);
        match kind {
            Kind::Replace => Disruption::Replace {
                group,
                pick,
                overlap: self.0.bool(),
            },
            Kind::Join => Disruption::Join { group },
            Kind::Leave => Disruption::Leave { group, pick },
            Kind::Crash => Disruption::Crash {
                group,
                pick,
                back_after: self.up_to(session_timeout * 2),
            },
            Kind::Disconnect => Disruption::Disconnect { group, pick },
            Kind::Freeze => Disruption::Freeze {
                group,
                pick,
                lasts: session_timeout.mul_f64(self.pick(&[0.3, 1.5, 3.0])),
            },
            Kind::Steal => Disruption::Steal { group, pick },
            Kind::Pause => Disruption::Pause {
                group,
                pick,
                partition: self.0.bool(),
                lasts: self.up_to(Duration::from_secs(20)).max(MILLI),
            },
            Kind::FailSends => Disruption::FailSends {
                sends: self.0.u64(1..=20),
                kind: self.send_failure(),
            },
            Kind::FailFor => Disruption::FailFor {
                // The longest exceed the retries of a producer.
                lasts: match self.chance(0.1) {
                    true => self.millis(100_000..=300_000),
                    false => self.millis(10..=3_000),
                },
                kind: self.send_failure(),
            },
            Kind::DelaySends => Disruption::DelaySends {
                sends: self.0.u64(1..=20),
                delay: self.millis(1..=1_000),
            },
            Kind::TimeOutSends => Disruption::TimeOutSends {
                sends: self.0.u64(1..=5),
            },
            Kind::LoseCheckpoints => Disruption::LoseCheckpoints {
                checkpoints: self.0.u64(1..=5),
                stored: self.0.bool(),
            },
            Kind::Split => Disruption::Split { stream, pick },
            Kind::Merge => Disruption::Merge {
                stream,
                pick,
                other: self.0.usize(..1_000),
            },
            Kind::AddPartitions => Disruption::AddPartitions {
                stream,
                more: self.0.usize(1..=3),
            },
            Kind::Reset => Disruption::Reset {
                group,
                pick,
                to: match self.0.u8(..3) {
                    0 => ResetTo::Earliest,
                    1 => ResetTo::Latest,
                    _ => ResetTo::Ago(self.millis(0..=5_000)),
                },
            },
        }
    }

    /// Draws which streams are deleted and recreated.
    fn recreations(
        &mut self,
        streams: &[StreamPlan],
        length: Duration,
        session_timeout: Duration,
    ) -> Vec<(Duration, Disruption)> {
        let count = self.pick(&[1, 1, 2, 4]);
        (0..count)
            .map(|_| {
                let recreate = Disruption::Recreate {
                    stream: self.0.usize(..streams.len()),
                    partitions: self.pick(&[1, 1, 2, 3, 4, 8]),
                    absent: match self.0.u8(..3) {
                        0 => Duration::ZERO,
                        1 => self.up_to(Duration::from_secs(1)),
                        _ => self.up_to(session_timeout * 2),
                    },
                    stopped: self.chance(0.3),
                };
                (last_disruption(length).mul_f64(self.0.f64()), recreate)
            })
            .collect()
    }

    fn send_failure(&mut self) -> ErrorKind {
        self.pick(&[ErrorKind::Throttled, ErrorKind::Unavailable])
    }
}

const MILLI: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Replace,
    Join,
    Leave,
    Crash,
    Disconnect,
    Freeze,
    Steal,
    Pause,
    FailSends,
    FailFor,
    DelaySends,
    TimeOutSends,
    LoseCheckpoints,
    Split,
    Merge,
    AddPartitions,
    Reset,
}
