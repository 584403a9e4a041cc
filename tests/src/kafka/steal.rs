//! Revokes a partition from its owner without the owner's cooperation.

use std::io;
use std::time::Duration;

use bytes::Buf;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerProtocolAssignment,
    DescribeGroupsRequest, GroupId, LeaveGroupRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::time::{Instant, sleep};

use super::wire_request::send_request;

/// The timeout: a group may still be assigning its partitions.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Evicts the owner of a partition from its group, as the broker does with a silent member.
///
/// # Panics
/// If it has no owner for 20 s.
pub(super) async fn steal(port: u16, group: &str, topic: &str, partition: i32) {
    let group = GroupId(StrBytes::from_string(group.to_owned()));
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        if put_out(port, &group, topic, partition)
            .await
            .unwrap_or(false)
        {
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
    panic!("nobody in group {group:?} owns partition {partition} of {topic}");
}

/// Evicts the owner. Returns whether there was one.
async fn put_out(port: u16, group: &GroupId, topic: &str, partition: i32) -> io::Result<bool> {
    if let Some(member) = owner_by_broker(port, group, topic, partition).await? {
        // The epoch with which a member leaves.
        const LEAVES: i32 = -1;
        let leave = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group.clone())
            .with_member_id(member)
            .with_member_epoch(LEAVES)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None);
        let left = send_request(port, 0, &leave).await?;
        return Ok(left.error_code == 0);
    }
    if let Some(member) = owner_by_leader(port, group, topic, partition).await? {
        let member = MemberIdentity::default().with_member_id(member);
        let leave = LeaveGroupRequest::default()
            .with_group_id(group.clone())
            .with_members(vec![member]);
        let left = send_request(port, 3, &leave).await?;
        let all = left.members.iter().map(|member| member.error_code);
        return Ok(all.chain([left.error_code]).all(|error| error == 0));
    }
    Ok(false)
}

/// Returns the owner in a group whose partitions the broker assigns.
async fn owner_by_broker(
    port: u16,
    group: &GroupId,
    topic: &str,
    partition: i32,
) -> io::Result<Option<StrBytes>> {
    let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone()]);
    let described = send_request(port, 0, &describe).await?;
    let members = described.groups.into_iter().flat_map(|group| group.members);
    let mut owners = members.filter(|member| {
        let mut owned = member.assignment.topic_partitions.iter();
        owned.any(|of| &*of.topic_name.0 == topic && of.partitions.contains(&partition))
    });
    Ok(owners.next().map(|owner| owner.member_id))
}

/// Returns the owner in a group whose partitions one of the members assigns.
async fn owner_by_leader(
    port: u16,
    group: &GroupId,
    topic: &str,
    partition: i32,
) -> io::Result<Option<StrBytes>> {
    let describe = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
    let described = send_request(port, 5, &describe).await?;
    let group = described.groups.into_iter().find(|group| {
        // Before that, the members do not know their partitions.
        group.error_code == 0 && &*group.group_state == "Stable"
    });
    let mut members = group.into_iter().flat_map(|group| group.members);
    Ok(members.find_map(|member| {
        let mut assignment = member.member_assignment;
        let version = assignment.try_get_i16().ok()?;
        let assignment = ConsumerProtocolAssignment::decode(&mut assignment, version).ok()?;
        let mut owned = assignment.assigned_partitions.iter();
        let is_owner = owned.any(|of| &*of.topic.0 == topic && of.partitions.contains(&partition));
        is_owner.then_some(member.member_id)
    }))
}
