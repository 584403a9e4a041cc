//! The transport against servers that the tests write.

mod certificates;
mod pings;
mod proxies;
