//! How an application names a stream: by its name, or by its ARN.
//!
//! The name of a stream of another account means nothing here: its ARN does. Whatever the application wrote is the
//! stream's name in partitions, receipts, events and errors, and only requests and lease keys take it apart.
//!
//! Rejected: the bare name in partitions, too. Streams of two accounts may have the same name, and a partition that is handed
//! back (a split, a stored checkpoint) would lead to the wrong one.

use millstream_core::driver;

/// The maximum length of a name that [Kinesis accepts].
///
/// [Kinesis accepts]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html
pub(crate) const NAME_LONGEST: usize = 128;

/// The number of digits of an account.
const ACCOUNT_DIGITS: usize = 12;

/// An ARN of a stream: `arn:partition:kinesis:region:account:stream/name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Arn<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account) = (parts.next()?, parts.next()?);
        let name = parts.next()?.strip_prefix("stream/")?;
        let is_of_stream = arn == "arn" && service == "kinesis";
        let is_whole = [region, account, name].iter().all(|part| !part.is_empty());
        (is_of_stream && is_whole).then_some(Self {
            region,
            account,
            name,
        })
    }
}

/// Returns the name and the ARN of a request for a stream. One of them is set: a request with both fails if they
/// contradict each other.
pub(crate) fn address(stream: &str) -> (Option<String>, Option<String>) {
    match is_arn(stream) {
        true => (None, arn(stream)),
        false => (Some(stream.to_owned()), None),
    }
}

/// Returns the ARN of a request whose iterator identifies the stream. From another account it must have both.
pub(crate) fn arn(stream: &str) -> Option<String> {
    is_arn(stream).then(|| stream.to_owned())
}

/// No name contains a colon.
fn is_arn(stream: &str) -> bool {
    stream.starts_with("arn:")
}

/// Checks the name of a stream, for a connection to this region.
///
/// # Errors
/// The rule, as [`check_stream_name`](driver::Backend::check_stream_name) returns it.
pub(crate) fn check_name(stream: &str, region: &str) -> Result<(), String> {
    if !is_arn(stream) {
        return match is_name(stream) {
            true => Ok(()),
            false => Err(format!(
                "use 1 to {NAME_LONGEST} of A-Z a-z 0-9 . _ -, or the ARN of a stream"
            )),
        };
    }
    let is_account = |account: &str| {
        account.len() == ACCOUNT_DIGITS && account.bytes().all(|byte| byte.is_ascii_digit())
    };
    match Arn::parse(stream) {
        Some(arn) if is_account(arn.account) && is_name(arn.name) => match arn.region == region {
            true => Ok(()),
            false => Err(format!(
                "it is in the region {}, and this connection is to {region}: connect to the region of the stream",
                arn.region
            )),
        },
        _ => Err(
            "the ARN of a stream is arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME, with an account of 12 digits"
                .to_owned(),
        ),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_LONGEST && driver::check_stream_name(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/s";

    #[test]
    fn a_request_has_either_the_name_or_the_arn() {
        assert_eq!(address("s"), (Some("s".to_owned()), None));
        assert_eq!(address(ARN), (None, Some(ARN.to_owned())));
        assert_eq!((arn("s"), arn(ARN)), (None, Some(ARN.to_owned())));
    }

    #[test]
    fn names_and_arns_of_the_region_are_accepted() {
        let longest = "s".repeat(NAME_LONGEST);
        let china = "arn:aws-cn:kinesis:eu-west-1:123456789012:stream/a.b_c-d";
        for name in ["s", &longest, ARN, china] {
            assert_eq!(check_name(name, "eu-west-1"), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        let too_long = "s".repeat(NAME_LONGEST + 1);
        for name in [
            "",
            ".",
            "a b",
            "a/b",
            &too_long,
            "arn:",
            "arn:aws:kinesis:eu-west-1:123456789012",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/a/b",
            "arn:aws:kinesis:eu-west-1:12345678901:stream/s",
            "arn:aws:kinesis:eu-west-1::stream/s",
            "arn:aws:kinesis::123456789012:stream/s",
            "arn:aws:dynamodb:eu-west-1:123456789012:stream/s",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/s/consumer/c:1",
        ] {
            assert!(check_name(name, "eu-west-1").is_err(), "{name}");
        }
    }

    #[test]
    fn an_arn_of_another_region_is_refused_with_both_regions() {
        let rule = check_name(ARN, "us-east-1").unwrap_err();
        for region in ["eu-west-1", "us-east-1"] {
            assert!(rule.contains(region), "{rule}");
        }
    }
}
