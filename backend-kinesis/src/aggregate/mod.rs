//! The format of the Kinesis Producer Library.
