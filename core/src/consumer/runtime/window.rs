//! Key order and the contiguous watermark of one partition, with index arithmetic.
//!
//! Records get numbers in stored order, without gaps. A number is *started* when its record goes to
//! the handler, and *settled* when it must not be delivered again. Two guarantees are implemented
//! here:
//!
//! * a key has one started record at a time, and its records start in order (C2);
//! * [`watermark`](Window::watermark) never passes a number that is not settled (C4).
//!
//! A record whose handler is ready at once costs a push and a pop of 16 bytes. The map of keys is
//! used only while a handler is pending or a record waits for its retry.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use foldhash::fast::FixedState;

use super::spare_memory::SpareMemory;

#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The numbers from `base` on.
    entries: VecDeque<WindowEntry>,
    /// All numbers below are settled.
    base: u64,
    /// The first number that was not considered yet.
    cursor: u64,
    /// The first number above all that were ever started.
    unstarted: u64,
    /// Numbers whose key has become free, in that order.
    freed: VecDeque<u64>,
    /// The busy keys, each with the last number that runs or waits for it.
    busy: HashMap<u64, u64, FixedState>,
    /// How many numbers are started and neither settled nor abandoned.
    running: usize,
    /// Set by a drain: only numbers below it may still start.
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowEntry {
    /// The hash of the key. Keys with the same hash wait for each other.
    key: u64,
    /// The distance to the next number that waits for this key; 0 if none does.
    next: u32,
    state: EntryState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    /// Not started, or abandoned.
    Waiting,
    /// Started; its first poll is still running, and its key is not marked busy.
    Started,
    /// Started; its key is busy.
    Holding,
    Settled,
}

/// The hash of a record without a key. It waits for no other record, and none waits for it.
pub(crate) const NO_KEY: u64 = 0;

impl Window {
    /// Appends a record by the hash of its key.
    pub(crate) fn push(&mut self, key: u64) {
        self.entries.push_back(WindowEntry {
            key,
            next: 0,
            state: EntryState::Waiting,
        });
    }

    /// Prepares for more records.
    pub(crate) fn reserve(&mut self, records: usize, spare: &mut SpareMemory<WindowEntry>) {
        spare.lend(&mut self.entries);
        self.entries.reserve(records);
    }

    /// Returns the memory of a window in which all numbers are settled.
    pub(crate) fn return_memory(&mut self, spare: &mut SpareMemory<WindowEntry>) {
        spare.take_back(&mut self.entries);
    }

    /// Returns whether a number that was received is settled.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        number < self.base
            || self.entries[(number - self.base) as usize].state == EntryState::Settled
    }

    /// Returns how many numbers there are from the watermark on.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the first number that is not settled.
    pub(crate) fn watermark(&self) -> u64 {
        self.base
    }

    /// Returns the first number after the last settled one, which a failpoint uses as the watermark.
    pub(crate) fn past_settled(&self) -> u64 {
        let last = self
            .entries
            .iter()
            .rposition(|entry| entry.state == EntryState::Settled);
        self.base + last.map_or(0, |index| index as u64 + 1)
    }

    /// Starts the next eligible record, if any, and returns its number. The caller must call
    /// [`settle`](Self::settle) or [`hold`](Self::hold) before it starts another.
    pub(crate) fn start(&mut self) -> Option<u64> {
        while let Some(number) = self.freed.pop_front() {
            if self.limit.is_none_or(|limit| number < limit) {
                self.entry(number).state = EntryState::Holding;
                return Some(self.started(number));
            }
        }
        if self.limit.is_some() {
            return None;
        }
        let end = self.base + self.entries.len() as u64;
        while self.cursor < end {
            let number = self.cursor;
            self.cursor += 1;
            if self.waits(number) {
                continue;
            }
            self.entry(number).state = EntryState::Started;
            return Some(self.started(number));
        }
        None
    }

    /// Starts the first unsettled number, if later numbers were considered before it: their output
    /// can be published only after it. While the partition drains, starts any number that the drain
    /// must finish.
    ///
    /// Numbers are considered in order. One that was passed over and does not run waits for its key,
    /// which is free when all numbers before it are settled.
    pub(crate) fn start_first(&mut self) -> Option<u64> {
        if self.limit.is_some() {
            return self.start();
        }
        let place = self.freed.iter().position(|number| *number == self.base)?;
        let number = self.freed.remove(place)?;
        self.entry(number).state = EntryState::Holding;
        Some(self.started(number))
    }

    /// Returns whether [`start`](Self::start) would start the first unsettled number, and no number
    /// behind it was considered.
    pub(crate) fn has_next_at_watermark(&self) -> bool {
        self.limit.is_none() && self.cursor == self.base && !self.entries.is_empty()
    }

    /// Returns whether [`start_first`](Self::start_first) would start a number.
    pub(crate) fn has_first(&self) -> bool {
        match self.limit {
            Some(_) => self.has_startable(),
            None => self.freed.contains(&self.base),
        }
    }

    /// Returns the next numbers for a batch handler, at most `most`. `None` while a batch is with the
    /// handler or the partition drains.
    pub(crate) fn next_run(&self, most: usize) -> Option<Range<u64>> {
        let end = self.base + self.entries.len() as u64;
        let run = self.cursor..end.min(self.cursor.saturating_add(most as u64));
        (self.running == 0 && self.limit.is_none() && !run.is_empty()).then_some(run)
    }

    /// Starts a prefix of the range that [`next_run`](Self::next_run) returned.
    pub(crate) fn start_run(&mut self, run: Range<u64>) -> Range<u64> {
        for number in run.clone() {
            self.entry(number).state = EntryState::Started;
            self.started(number);
        }
        self.cursor = run.end;
        run
    }

    /// Marks the key of a started number busy: later records of the key wait from now on.
    pub(crate) fn hold(&mut self, number: u64) {
        let entry = self.entry(number);
        if entry.state == EntryState::Started && entry.key != NO_KEY {
            entry.state = EntryState::Holding;
            let key = entry.key;
            self.busy.insert(key, number);
        }
    }

    /// Settles a started number, and frees its key for the next one.
    pub(crate) fn settle(&mut self, number: u64) {
        let entry = self.entry(number);
        let WindowEntry { key, next, state } = *entry;
        entry.state = EntryState::Settled;
        self.running -= 1;
        if state == EntryState::Holding {
            if next > 0 {
                self.freed.push_back(number + u64::from(next));
            } else {
                self.busy.remove(&key);
            }
        }
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.state == EntryState::Settled)
        {
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// Abandons a started number: it stays unsettled, and its key stays busy.
    pub(crate) fn abandon(&mut self, number: u64) {
        self.hold(number);
        self.entry(number).state = EntryState::Waiting;
        self.running -= 1;
    }

    /// Begins a drain. Numbers before the last started one are still handled, so that no settled
    /// record is delivered again; no number after it starts.
    pub(crate) fn drain(&mut self) {
        self.limit.get_or_insert(self.unstarted);
    }

    /// Ends a drain that took too long: no number starts any more.
    pub(crate) fn abort_drain(&mut self) {
        self.limit = Some(0);
    }

    /// Returns whether a number may start now.
    pub(crate) fn has_startable(&self) -> bool {
        match self.limit {
            Some(limit) => self.freed.iter().any(|number| *number < limit),
            None => !self.freed.is_empty() || self.cursor < self.base + self.entries.len() as u64,
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    fn started(&mut self, number: u64) -> u64 {
        self.running += 1;
        self.unstarted = self.unstarted.max(number + 1);
        number
    }

    /// Queues a number behind the last one of its key, if that key is busy. Returns whether it was queued.
    fn waits(&mut self, number: u64) -> bool {
        let key = self.entry(number).key;
        if self.busy.is_empty() || key == NO_KEY || failpoint!(OrderLostOnRetry) {
            return false;
        }
        let Some(tail) = self.busy.get_mut(&key) else {
            return false;
        };
        let before = std::mem::replace(tail, number);
        self.entry(before).next =
            u32::try_from(number - before).expect("a window holds at most 10,000,000 records");
        true
    }

    fn entry(&mut self, number: u64) -> &mut WindowEntry {
        &mut self.entries[(number - self.base) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(keys: &[u64]) -> Window {
        let mut window = Window::default();
        keys.iter().for_each(|key| window.push(*key));
        window
    }

    #[test]
    fn a_busy_key_waits_and_others_go_on() {
        let mut window = window(&[7, 7, 8, 7]);
        assert_eq!(window.start(), Some(0));
        window.hold(0);
        assert_eq!(window.start(), Some(2));
        window.hold(2);
        assert_eq!(window.start(), None);
        window.settle(0);
        assert_eq!(window.start(), Some(1));
        assert_eq!(window.start(), None);
        window.settle(1);
        assert_eq!(window.start(), Some(3));
    }

    #[test]
    fn the_watermark_stops_before_the_first_unsettled() {
        let mut window = window(&[1, 2, 3]);
        for number in 0..3 {
            assert_eq!(window.start(), Some(number));
            window.hold(number);
        }
        window.settle(2);
        window.settle(1);
        assert_eq!(window.watermark(), 0);
        window.settle(0);
        assert_eq!(window.watermark(), 3);
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn records_without_a_key_do_not_wait() {
        let mut window = window(&[NO_KEY, NO_KEY]);
        assert_eq!(window.start(), Some(0));
        window.hold(0);
        assert_eq!(window.start(), Some(1));
    }

    #[test]
    fn a_drain_carries_through_what_lies_before_the_last_started() {
        let mut window = window(&[7, 7, 8, 7, 9]);
        assert_eq!(window.start(), Some(0));
        window.hold(0);
        assert_eq!(window.start(), Some(2));
        window.hold(2);
        window.drain();
        assert!(!window.has_startable());
        window.settle(0);
        assert_eq!(window.start(), Some(1));
        window.settle(1);
        window.settle(2);
        assert_eq!(window.start(), None, "3 and 4 lie after the last started");
        assert_eq!((window.running(), window.watermark()), (0, 3));
    }

    #[test]
    fn an_abandoned_number_holds_the_watermark_and_its_key() {
        let mut window = window(&[7, 8, 7]);
        assert_eq!(window.start(), Some(0));
        window.abandon(0);
        assert_eq!(window.start(), Some(1));
        window.settle(1);
        assert_eq!(window.start(), None);
        assert_eq!((window.running(), window.watermark()), (0, 0));
    }

    #[test]
    fn runs_come_one_at_a_time() {
        let mut window = window(&[7, 7, 8]);
        assert_eq!(window.next_run(2), Some(0..2));
        window.start_run(0..2);
        assert_eq!(window.next_run(2), None);
        window.settle(0);
        window.settle(1);
        assert_eq!(window.next_run(2), Some(2..3));
    }

    /// The operations of a window's user, with a choice among the possible ones.
    #[derive(Debug, Clone)]
    enum Step {
        Push(u64),
        Start { pends: bool, first: bool },
        Settle(usize),
        Abandon(usize),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..4).prop_map(Step::Push),
            4 => any::<(bool, bool)>().prop_map(|(pends, first)| Step::Start { pends, first }),
            4 => any::<usize>().prop_map(Step::Settle),
            1 => any::<usize>().prop_map(Step::Abandon).no_shrink(),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        /// Compares with a plain list of settled numbers: the watermark is contiguous, a key runs once at
        /// a time and in order, a drain leaves no hole, and a hole can always be closed.
        #[test]
        fn keeps_its_promises(steps in prop::collection::vec(step(), 0..200)) {
            let mut window = Window::default();
            let mut keys = Vec::new();
            let mut settled = Vec::new();
            let mut running: Vec<u64> = Vec::new();
            let mut abandoned = Vec::new();
            let mut drained = false;
            for step in steps {
                match step {
                    Step::Push(key) if !drained => {
                        window.push(key);
                        keys.push(key);
                        settled.push(false);
                    }
                    Step::Start { pends, first } => {
                        let started = match first {
                            true => window.start_first(),
                            false => window.start(),
                        };
                        let Some(number) = started else { continue };
                        prop_assert!(!first || drained || number == window.watermark());
                        let key = keys[number as usize];
                        if key != NO_KEY {
                            let earlier = (0..number).filter(|n| keys[*n as usize] == key);
                            prop_assert!(earlier.clone().all(|n| settled[n as usize]), "{number} overtakes");
                        }
                        if pends {
                            window.hold(number);
                            running.push(number);
                        } else {
                            window.settle(number);
                            settled[number as usize] = true;
                        }
                    }
                    Step::Settle(choice) if !running.is_empty() => {
                        let number = running.swap_remove(choice % running.len());
                        window.settle(number);
                        settled[number as usize] = true;
                    }
                    Step::Abandon(choice) if !running.is_empty() => {
                        let number = running.swap_remove(choice % running.len());
                        window.abandon(number);
                        abandoned.push(number);
                    }
                    Step::Drain => {
                        window.drain();
                        drained = true;
                    }
                    Step::Push(_) | Step::Settle(_) | Step::Abandon(_) => {}
                }
                let contiguous = settled.iter().take_while(|settled| **settled).count();
                prop_assert_eq!(window.watermark(), contiguous as u64);
                prop_assert_eq!(window.running(), running.len());
                if settled[contiguous..].contains(&true) && running.is_empty() && abandoned.is_empty() {
                    prop_assert!(window.has_first(), "what is settled waits forever");
                }
            }
            // Completes everything that may still start.
            loop {
                while let Some(number) = window.start() {
                    window.hold(number);
                    running.push(number);
                }
                let Some(number) = running.pop() else { break };
                window.settle(number);
                settled[number as usize] = true;
            }
            prop_assert!(!window.has_startable());
            let last = settled.iter().rposition(|settled| *settled).map_or(0, |last| last + 1);
            if abandoned.is_empty() {
                prop_assert_eq!(window.watermark(), last as u64, "a settled number would come again");
                prop_assert!(drained || window.len() == 0, "something was forgotten");
            }
        }
    }
}
