#![doc = include_str!("../README.md")]

mod aggregate;
mod backend;
mod causes;
#[cfg(test)]
mod child_process;
mod config;
mod connection;
mod consumer;
mod credit;
mod error;
#[cfg(test)]
mod fake_service;
mod http;
mod lag_interval;
mod lease;
#[cfg(test)]
mod log_lines;
mod producer;
mod retrieval;
mod sdk_config;
mod stream;
mod streams;
#[cfg(test)]
mod test_certificate;

pub use backend::Kinesis;
pub use config::{
    Aggregation, Config, Consumer, Credentials, ForeignAggregates, HeaderPolicy, LeaseKeys, Leases,
    Producer, Rate, Retrieval, Secret, StreamMode, Streams,
};
