//! The printed metrics, and the jobs that they are computed from.

use std::borrow::Cow;
use std::time::Duration;

use crate::job::{Job, Library, Link, PutClient, Side};
use crate::membership;
use crate::metric::{self, Metric};
use crate::requests::WAYS;

const PUT: Job = put(PutClient::Kpl, true, Link::Local);
const PUT_LOOP: Job = put(PutClient::Loop, true, Link::Local);
const PUT_OFF: Job = put(PutClient::Off, true, Link::Local);
const PUT_JAVA: Job = Job::PutJava;
const PUT_DISTANT: Job = put(PutClient::Kpl, true, Link::Distant);
const PUT_AWS_LIKE: Job = put(PutClient::Kpl, true, Link::AwsLike);
const PUT_AWS_LIKE_OFF: Job = put(PutClient::Off, true, Link::AwsLike);
const PUT_AWS_LIKE_LOOP: Job = put(PutClient::Loop, true, Link::AwsLike);
const FREE: Job = put(PutClient::Kpl, false, Link::Local);
const FREE_LOOP: Job = put(PutClient::Loop, false, Link::Local);
const FREE_OFF: Job = put(PutClient::Off, false, Link::Local);
const FREE_AWS_LIKE: Job = put(PutClient::Kpl, false, Link::AwsLike);
const FREE_AWS_LIKE_LOOP: Job = put(PutClient::Loop, false, Link::AwsLike);
const FREE_AWS_LIKE_OFF: Job = put(PutClient::Off, false, Link::AwsLike);
const FAN_OUT: Job = fan_out(Side::Ours, Link::Local);
const FAN_OUT_RAW: Job = fan_out(Side::Raw, Link::Local);
const FAN_OUT_AWS_LIKE: Job = fan_out(Side::Ours, Link::AwsLike);
const FAN_OUT_AWS_LIKE_RAW: Job = fan_out(Side::Raw, Link::AwsLike);

const fn put(by: PutClient, limited: bool, link: Link) -> Job {
    Job::Put { by, limited, link }
}

const fn fan_out(by: Side, link: Link) -> Job {
    Job::FanOut { by, link }
}

fn value(
    name: impl Into<Cow<'static, str>>,
    unit: &'static str,
    job: Job,
    what: impl Into<Cow<'static, str>>,
) -> Metric {
    metric::value(name.into(), unit, job, what.into())
}

fn ratio(name: impl Into<Cow<'static, str>>, over: Job, under: Job, what: &'static str) -> Metric {
    metric::ratio(name.into(), over, under, what.into())
}

#[rustfmt::skip]
pub(crate) fn all() -> Vec<Metric> {
    let mut metrics = vec![
        value("kinesis_put_share_of_limit", "ratio", PUT, "share").aim("at least 0.95"),
        value("kinesis_put_share_refused", "ratio", PUT, "refused").aim("below 0.01"),
        value("kinesis_put", "records/s", PUT, "rate"),
        ratio("kinesis_put_records_vs_loop", PUT, PUT_LOOP, "rate").aim("at least 8"),
        value("kinesis_put_loop", "records/s", PUT_LOOP, "rate"),
        value("kinesis_put_loop_share_refused", "ratio", PUT_LOOP, "refused"),
        ratio("kinesis_put_records_vs_kpl", PUT, PUT_JAVA, "rate"),
        value("kinesis_put_kpl", "records/s", PUT_JAVA, "rate"),
        value("kinesis_put_kpl_share_refused", "ratio", PUT_JAVA, "refused"),
        ratio("kinesis_put_off_records_vs_loop", PUT_OFF, PUT_LOOP, "rate"),
        value("kinesis_put_off_share_refused", "ratio", PUT_OFF, "refused"),
        ratio("kinesis_put_cpu_vs_loop", FREE, FREE_LOOP, "cpu"),
        ratio("kinesis_put_off_cpu_vs_loop", FREE_OFF, FREE_LOOP, "cpu").aim("at most 1.5"),
        ratio("kinesis_put_cpu_vs_kpl", PUT, PUT_JAVA, "cpu"),
        value("kinesis_put_cpu", "ns/record", FREE, "cpu"),
        value("kinesis_put_off_cpu", "ns/record", FREE_OFF, "cpu"),
        value("kinesis_put_loop_cpu", "ns/record", FREE_LOOP, "cpu"),
        value("kinesis_put_limited_cpu", "ns/record", PUT, "cpu"),
        value("kinesis_put_kpl_cpu", "ns/record", PUT_JAVA, "cpu"),

        value("kinesis_distant_put_share_of_limit", "ratio", PUT_DISTANT, "share").aim("at least 0.8"),
        value("kinesis_distant_put_share_refused", "ratio", PUT_DISTANT, "refused").aim("below 0.01"),
        value("kinesis_distant_put", "records/s", PUT_DISTANT, "rate"),

        value("kinesis_aws_like_put_share_of_limit", "ratio", PUT_AWS_LIKE, "share").aim("at least 0.95"),
        value("kinesis_aws_like_put_share_refused", "ratio", PUT_AWS_LIKE, "refused").aim("below 0.01"),
        ratio("kinesis_aws_like_put_records_vs_loop", PUT_AWS_LIKE, PUT_AWS_LIKE_LOOP, "rate").aim("at least 8"),
        ratio("kinesis_aws_like_put_off_records_vs_loop", PUT_AWS_LIKE_OFF, PUT_AWS_LIKE_LOOP, "rate"),
        ratio("kinesis_aws_like_put_cpu_vs_loop", FREE_AWS_LIKE, FREE_AWS_LIKE_LOOP, "cpu"),
        ratio("kinesis_aws_like_put_off_cpu_vs_loop", FREE_AWS_LIKE_OFF, FREE_AWS_LIKE_LOOP, "cpu").aim("at most 1.5"),

        value("kinesis_consume_share_of_limit", "ratio", Job::Poll, "share").aim("at least 0.95"),
        value("kinesis_consume", "records/s", Job::Poll, "rate"),
        value("kinesis_consume_cpu", "ns/record", Job::Poll, "cpu"),

        ratio("kinesis_fan_out_latency_p50_vs_raw", FAN_OUT, FAN_OUT_RAW, "p50").aim("at most 1.1"),
        ratio("kinesis_fan_out_latency_p99_vs_raw", FAN_OUT, FAN_OUT_RAW, "p99").aim("at most 1.1"),
        value("kinesis_fan_out_latency_p50", "ms", FAN_OUT, "p50"),
        value("kinesis_fan_out_latency_p99", "ms", FAN_OUT, "p99"),
        value("kinesis_fan_out_latency_p50_raw", "ms", FAN_OUT_RAW, "p50"),
        value("kinesis_fan_out_latency_p99_raw", "ms", FAN_OUT_RAW, "p99"),

        ratio("kinesis_aws_like_fan_out_latency_p50_vs_raw", FAN_OUT_AWS_LIKE, FAN_OUT_AWS_LIKE_RAW, "p50").aim("at most 1.1"),
        ratio("kinesis_aws_like_fan_out_latency_p99_vs_raw", FAN_OUT_AWS_LIKE, FAN_OUT_AWS_LIKE_RAW, "p99").aim("at most 1.1"),

        value("kinesis_takeover_s", "s", Job::Takeover, "takeover").aim("at most 3.5"),
        value("kinesis_takeover_requests_per_lease_minute", "requests", Job::Takeover, "requests"),
        value("kinesis_handover_s", "s", Job::Takeover, "handover").aim("below 1"),
    ];
    for failover in [3, 10] {
        metrics.extend(requests(failover));
    }
    metrics.extend(memberships());
    metrics
}

fn memberships() -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (retrieval, _) in membership::RETRIEVALS {
        for phase in membership::PHASES {
            let (over, unit) = match phase {
                "hour" => (
                    format!("_from_{}s", membership::COUNTED.as_secs()),
                    "requests/h",
                ),
                _ => (String::new(), "requests"),
            };
            for operation in membership::OPERATIONS.iter().chain([&membership::OTHERS]) {
                let name = format!("kinesis_membership_{retrieval}_{phase}{over}_{operation}");
                let what = membership::name(retrieval, phase, operation);
                metrics.push(value(name, unit, Job::Membership, what));
            }
        }
    }
    metrics
}

fn requests(failover: u64) -> Vec<Metric> {
    let job = |by| {
        let failover = Duration::from_secs(failover);
        Job::Requests { by, failover }
    };
    let others = [("kcl2", Library::Kcl2), ("kcl3", Library::Kcl3)];
    let mut metrics = Vec::new();
    for (way, ..) in WAYS {
        let name = format!("kinesis_requests_per_lease_minute_{way}_{failover}s");
        let unit = "requests";
        for (other, by) in others {
            let ratio = ratio(
                format!("{name}_vs_{other}"),
                job(Library::Ours),
                job(by),
                way,
            );
            metrics.push(ratio.aim("below 1"));
            metrics.push(value(format!("{name}_{other}"), unit, job(by), way));
        }
        metrics.push(value(name, unit, job(Library::Ours), way));
    }
    metrics
}
