//! The transport against servers that the tests write.

mod certificates;
mod proxies;
