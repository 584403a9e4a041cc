#![doc = include_str!("../README.md")]

mod backend;
mod background;
#[cfg(test)]
mod captured_log;
mod cluster;
mod config;
mod connection;
mod consumer;
mod error;
mod group;
mod login;
mod native;
mod offsets;
mod producer;
mod transactions;

pub use backend::Kafka;
pub use config::{
    Compression, Config, Consumer, Credentials, MskIam, Producer, Protocol, Sasl, Secret, Security,
    Tls, Topics,
};
pub use login::token::{Token, TokenSource};
