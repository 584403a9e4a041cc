#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod birth;
mod checkpoints;
mod client;
mod complaint;
mod config;
mod consumer;
mod context;
mod ends;
mod error;
#[cfg(feature = "msk-iam")]
mod msk;
mod native;
mod offsets;
mod oldest;
mod passthrough;
mod patience;
mod places;
mod producer;
mod progress;
mod reset;
mod security;
mod streams;
mod token;
mod topics;

pub use backend::Kafka;
pub use config::{
    Compression, Config, Consumer, Credentials, MskIam, Producer, Protocol, Sasl, Secret, Security,
    Tls, Topics,
};
pub use token::{Token, TokenSource};
