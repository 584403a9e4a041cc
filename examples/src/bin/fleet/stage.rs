//! The consumer groups, and how a member of each joins.

use std::sync::Arc;
use std::time::Duration;

use millstream::{ConsumerGroup, Result};

use crate::fleet::{DEAD, ENTITIES, Fleet, NOTIFICATIONS, PROCESSED, RAW};
use crate::members::Member;
use crate::{analytics, cleaner, dashboard, dead_letters, entities, inbox, notifications};

/// One consumer group, from the source down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Cleaner,
    Entities,
    Notifications,
    Analytics,
    Dashboard,
    Inbox,
    DeadLetters,
}

impl Stage {
    /// All groups, each after its upstream group.
    pub(crate) const ALL: [Self; 7] = [
        Self::Cleaner,
        Self::Entities,
        Self::Notifications,
        Self::Analytics,
        Self::Dashboard,
        Self::Inbox,
        Self::DeadLetters,
    ];

    /// Returns the group's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cleaner => "cleaner",
            Self::Entities => "entities",
            Self::Notifications => "notifications",
            Self::Analytics => "analytics",
            Self::Dashboard => "dashboard",
            Self::Inbox => "inbox",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// Returns the stream that it reads.
    pub(crate) const fn stream(self) -> &'static str {
        match self {
            Self::Cleaner => RAW,
            Self::Entities | Self::Notifications | Self::Analytics => PROCESSED,
            Self::Dashboard => ENTITIES,
            Self::Inbox => NOTIFICATIONS,
            Self::DeadLetters => DEAD,
        }
    }

    /// Returns the pipeline that publishes to its stream: records that a crash repeats there are redelivered
    /// here.
    pub(crate) const fn follows(self) -> Option<Self> {
        match self {
            Self::Cleaner | Self::DeadLetters => None,
            Self::Entities | Self::Notifications | Self::Analytics => Some(Self::Cleaner),
            Self::Dashboard => Some(Self::Entities),
            Self::Inbox => Some(Self::Notifications),
        }
    }

    /// Joins the group as an additional member.
    pub(crate) async fn join(self, fleet: Arc<Fleet>, member: &str) -> Result<Member> {
        let group = self.group(&fleet, member);
        match self {
            Self::Cleaner => cleaner::join(fleet, group).await,
            Self::Entities => entities::join(fleet, group).await,
            Self::Notifications => notifications::join(fleet, group).await,
            Self::Analytics => Ok(analytics::join(fleet, group)),
            Self::Dashboard => Ok(dashboard::join(fleet, group)),
            Self::Inbox => inbox::join(fleet, group).await,
            Self::DeadLetters => Ok(dead_letters::join(fleet, group)),
        }
    }

    fn group(self, fleet: &Fleet, member: &str) -> ConsumerGroup {
        fleet
            .client
            .group(self.name())
            .stream(self.stream())
            .member(member)
            .concurrency(64)
            // Often enough that the displayed lag is current, and that a crash repeats little.
            .checkpoint_interval(Duration::from_millis(200))
    }
}
