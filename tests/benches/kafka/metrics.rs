//! The printed metrics, and the jobs that they are computed from.

use std::borrow::Cow;

use crate::job::{Chain, Consumer, Flush, Job, Producer, Protocol, Side};
use crate::metric::{self, Metric};
use crate::produce::LINGER_MS;

const fn value(name: &'static str, unit: &'static str, job: Job, what: &'static str) -> Metric {
    metric::value(Cow::Borrowed(name), unit, job, Cow::Borrowed(what))
}

const fn ratio(name: &'static str, over: Job, under: Job, what: &'static str) -> Metric {
    metric::ratio(Cow::Borrowed(name), over, under, Cow::Borrowed(what))
}

const fn consume(by: Consumer, bytes: usize) -> Job {
    consume_far(by, bytes, 0)
}

const fn consume_far(by: Consumer, bytes: usize, round_trip_ms: u32) -> Job {
    Job::Consume {
        by,
        bytes,
        round_trip_ms,
    }
}

const OURS: Job = consume(Consumer::Ours, 512);
const KEYED: Job = consume(Consumer::OursKeyed, 512);
const STREAM: Job = consume(Consumer::Stream, 512);
const DEFAULTS: Job = consume(Consumer::StreamAtDefaults, 512);
const BARE: Job = consume(Consumer::StreamBare, 512);
const OURS_100: Job = consume(Consumer::Ours, 100);
const STREAM_100: Job = consume(Consumer::Stream, 100);
const DEFAULTS_100: Job = consume(Consumer::StreamAtDefaults, 100);
const BARE_100: Job = consume(Consumer::StreamBare, 100);
const OURS_FAR: Job = consume_far(Consumer::Ours, 512, 10);
const STREAM_FAR: Job = consume_far(Consumer::Stream, 512, 10);
const PRODUCE_RTT5: Job = produce_far(Producer::Ours, LINGER_MS, 5);
const OFF_RTT5: Job = produce_far(Producer::OursUnthrottled, LINGER_MS, 5);
const FUTURE_RTT5: Job = produce_far(Producer::Future, LINGER_MS, 5);
const PRODUCE_RTT10: Job = produce_far(Producer::Ours, LINGER_MS, 10);
const OFF_RTT10: Job = produce_far(Producer::OursUnthrottled, LINGER_MS, 10);
const FUTURE_RTT10: Job = produce_far(Producer::Future, LINGER_MS, 10);
const OFF: Job = produce(Producer::OursUnthrottled);
const PRODUCE: Job = produce(Producer::Ours);
const FUTURE: Job = produce(Producer::Future);
const UNORDERED: Job = produce(Producer::FutureUnordered);
const CHAIN: Job = Job::Chain(Chain::Ours);
const CHAIN_LOOP: Job = Job::Chain(Chain::Loop(Flush::ByCommit));
const CHAIN_POLLING: Job = Job::Chain(Chain::Loop(Flush::ByPolling));
const LATENCY: Job = latency(Side::Ours, LINGER_MS);
const LATENCY_RAW: Job = latency(Side::Raw, LINGER_MS);
const LATENCY_0: Job = latency(Side::Ours, 0);
const LATENCY_0_RAW: Job = latency(Side::Raw, 0);
const REBALANCE: Job = rebalance(Side::Ours, Protocol::Cooperative);
const REBALANCE_RAW: Job = rebalance(Side::Raw, Protocol::Cooperative);
const KIP_848: Job = rebalance(Side::Ours, Protocol::Consumer);
const KIP_848_RAW: Job = rebalance(Side::Raw, Protocol::Consumer);

const fn produce(by: Producer) -> Job {
    produce_far(by, LINGER_MS, 0)
}

const fn produce_far(by: Producer, linger_ms: u32, round_trip_ms: u32) -> Job {
    Job::Produce {
        by,
        linger_ms,
        round_trip_ms,
    }
}

const fn latency(by: Side, linger_ms: u32) -> Job {
    Job::Latency { by, linger_ms }
}

const fn rebalance(by: Side, protocol: Protocol) -> Job {
    Job::Rebalance { by, protocol }
}

#[rustfmt::skip]
pub(crate) const METRICS: &[Metric] = &[
    ratio("kafka_consume_vs_stream_consumer", OURS, STREAM, "rate").aim("at least 1.0"),
    ratio("kafka_consume_cpu_vs_stream_consumer", OURS, STREAM, "cpu").aim("at most 0.9"),
    ratio("kafka_consume_vs_stream_consumer_bare", OURS, BARE, "rate"),
    ratio("kafka_consume_cpu_vs_stream_consumer_bare", OURS, BARE, "cpu"),
    ratio("kafka_consume_vs_stream_consumer_at_defaults", OURS, DEFAULTS, "rate"),
    ratio("kafka_consume_cpu_vs_stream_consumer_at_defaults", OURS, DEFAULTS, "cpu"),
    value("kafka_consume", "records/s", OURS, "rate"),
    value("kafka_consume_cpu", "ns/record", OURS, "cpu"),
    value("kafka_consume_stream_consumer", "records/s", STREAM, "rate"),
    value("kafka_consume_stream_consumer_cpu", "ns/record", STREAM, "cpu"),

    ratio("kafka_consume_vs_stream_consumer_100b", OURS_100, STREAM_100, "rate").aim("at least 1.2"),
    ratio("kafka_consume_cpu_vs_stream_consumer_100b", OURS_100, STREAM_100, "cpu").aim("at most 0.7"),
    ratio("kafka_consume_vs_stream_consumer_100b_bare", OURS_100, BARE_100, "rate"),
    ratio("kafka_consume_cpu_vs_stream_consumer_100b_bare", OURS_100, BARE_100, "cpu"),
    ratio("kafka_consume_vs_stream_consumer_100b_at_defaults", OURS_100, DEFAULTS_100, "rate"),
    ratio("kafka_consume_cpu_vs_stream_consumer_100b_at_defaults", OURS_100, DEFAULTS_100, "cpu"),
    value("kafka_consume_100b", "records/s", OURS_100, "rate"),
    value("kafka_consume_cpu_100b", "ns/record", OURS_100, "cpu"),
    value("kafka_consume_stream_consumer_100b", "records/s", STREAM_100, "rate"),
    value("kafka_consume_stream_consumer_cpu_100b", "ns/record", STREAM_100, "cpu"),

    ratio("kafka_consume_keyed_vs_stream_consumer", KEYED, STREAM, "rate").aim("at least 0.95"),
    ratio("kafka_consume_keyed_cpu_vs_stream_consumer", KEYED, STREAM, "cpu").aim("at most 1.0"),

    ratio("kafka_consume_rtt10_vs_stream_consumer", OURS_FAR, STREAM_FAR, "rate").aim("at least 1.0"),
    ratio("kafka_consume_rtt10_cpu_vs_stream_consumer", OURS_FAR, STREAM_FAR, "cpu"),

    ratio("kafka_throttle_vs_off", PRODUCE, OFF, "rate"),
    ratio("kafka_throttle_cpu_vs_off", PRODUCE, OFF, "cpu"),
    ratio("kafka_throttle_rtt5_vs_off", PRODUCE_RTT5, OFF_RTT5, "rate"),
    ratio("kafka_throttle_rtt5_cpu_vs_off", PRODUCE_RTT5, OFF_RTT5, "cpu"),
    ratio("kafka_throttle_rtt10_vs_off", PRODUCE_RTT10, OFF_RTT10, "rate"),
    ratio("kafka_throttle_rtt10_cpu_vs_off", PRODUCE_RTT10, OFF_RTT10, "cpu"),
    ratio("kafka_produce_rtt5_vs_future_producer", PRODUCE_RTT5, FUTURE_RTT5, "rate"),
    ratio("kafka_produce_rtt5_cpu_vs_future_producer", PRODUCE_RTT5, FUTURE_RTT5, "cpu"),
    ratio("kafka_produce_rtt10_vs_future_producer", PRODUCE_RTT10, FUTURE_RTT10, "rate"),
    ratio("kafka_produce_rtt10_cpu_vs_future_producer", PRODUCE_RTT10, FUTURE_RTT10, "cpu"),
    ratio("kafka_produce_vs_future_producer", PRODUCE, FUTURE, "rate").aim("at least 1.15"),
    ratio("kafka_produce_cpu_vs_future_producer", PRODUCE, FUTURE, "cpu").aim("at most 0.8"),
    ratio("kafka_produce_vs_future_producer_unordered", PRODUCE, UNORDERED, "rate"),
    ratio("kafka_produce_cpu_vs_future_producer_unordered", PRODUCE, UNORDERED, "cpu"),
    value("kafka_produce", "records/s", PRODUCE, "rate"),
    value("kafka_produce_cpu", "ns/record", PRODUCE, "cpu"),
    value("kafka_produce_future_producer", "records/s", FUTURE, "rate"),
    value("kafka_produce_future_producer_cpu", "ns/record", FUTURE, "cpu"),

    ratio("kafka_chain_vs_raw_loop", CHAIN, CHAIN_LOOP, "rate").aim("at least 1.0"),
    ratio("kafka_chain_cpu_vs_raw_loop", CHAIN, CHAIN_LOOP, "cpu"),
    ratio("kafka_chain_vs_raw_loop_polling", CHAIN, CHAIN_POLLING, "rate").aim("at least 1.0"),
    ratio("kafka_chain_cpu_vs_raw_loop_polling", CHAIN, CHAIN_POLLING, "cpu"),
    value("kafka_chain", "records/s", CHAIN, "rate"),
    value("kafka_chain_cpu", "ns/record", CHAIN, "cpu"),
    value("kafka_chain_transaction", "records", CHAIN, "transaction"),
    value("kafka_chain_raw_loop", "records/s", CHAIN_LOOP, "rate"),
    value("kafka_chain_raw_loop_cpu", "ns/record", CHAIN_LOOP, "cpu"),
    value("kafka_chain_raw_loop_transaction", "records", CHAIN_LOOP, "transaction"),
    value("kafka_chain_raw_loop_polling", "records/s", CHAIN_POLLING, "rate"),
    value("kafka_chain_raw_loop_polling_cpu", "ns/record", CHAIN_POLLING, "cpu"),
    value("kafka_chain_raw_loop_polling_transaction", "records", CHAIN_POLLING, "transaction"),

    ratio("kafka_latency_p50_vs_raw", LATENCY, LATENCY_RAW, "p50"),
    ratio("kafka_latency_p99_vs_raw", LATENCY, LATENCY_RAW, "p99").aim("at most 1.1"),
    ratio("kafka_latency_p999_vs_raw", LATENCY, LATENCY_RAW, "p999"),
    value("kafka_latency_p50", "ms", LATENCY, "p50"),
    value("kafka_latency_p99", "ms", LATENCY, "p99"),
    value("kafka_latency_p999", "ms", LATENCY, "p999"),
    value("kafka_latency_p50_raw", "ms", LATENCY_RAW, "p50"),
    value("kafka_latency_p99_raw", "ms", LATENCY_RAW, "p99"),
    value("kafka_latency_p999_raw", "ms", LATENCY_RAW, "p999"),
    ratio("kafka_latency_linger_0_p50_vs_raw", LATENCY_0, LATENCY_0_RAW, "p50"),
    ratio("kafka_latency_linger_0_p99_vs_raw", LATENCY_0, LATENCY_0_RAW, "p99"),
    ratio("kafka_latency_linger_0_p999_vs_raw", LATENCY_0, LATENCY_0_RAW, "p999"),
    value("kafka_latency_linger_0_p50", "ms", LATENCY_0, "p50"),
    value("kafka_latency_linger_0_p99", "ms", LATENCY_0, "p99"),
    value("kafka_latency_linger_0_p50_raw", "ms", LATENCY_0_RAW, "p50"),
    value("kafka_latency_linger_0_p99_raw", "ms", LATENCY_0_RAW, "p99"),

    value("kafka_rebalance_leave_ms", "ms", REBALANCE, "leave").aim("below 500"),
    value("kafka_rebalance_join_ms", "ms", REBALANCE, "join").aim("below 500"),
    value("kafka_rebalance_kill_ms", "ms", REBALANCE, "kill"),
    value("kafka_rebalance_unmoved_ms", "ms", REBALANCE, "unmoved").aim("no stall"),
    value("kafka_rebalance_leave_ms_raw", "ms", REBALANCE_RAW, "leave"),
    value("kafka_rebalance_join_ms_raw", "ms", REBALANCE_RAW, "join"),
    value("kafka_rebalance_kill_ms_raw", "ms", REBALANCE_RAW, "kill"),
    value("kafka_rebalance_unmoved_ms_raw", "ms", REBALANCE_RAW, "unmoved"),
    value("kafka_rebalance_kip_848_leave_ms", "ms", KIP_848, "leave"),
    value("kafka_rebalance_kip_848_join_ms", "ms", KIP_848, "join"),
    value("kafka_rebalance_kip_848_kill_ms", "ms", KIP_848, "kill"),
    value("kafka_rebalance_kip_848_unmoved_ms", "ms", KIP_848, "unmoved"),
    value("kafka_rebalance_kip_848_leave_ms_raw", "ms", KIP_848_RAW, "leave"),
    value("kafka_rebalance_kip_848_join_ms_raw", "ms", KIP_848_RAW, "join"),
    value("kafka_rebalance_kip_848_kill_ms_raw", "ms", KIP_848_RAW, "kill"),
    value("kafka_rebalance_kip_848_unmoved_ms_raw", "ms", KIP_848_RAW, "unmoved"),
];
