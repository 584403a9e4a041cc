use std::time::{Duration, Instant, SystemTime};

use conformance::kafka::Broker;
use millstream_core::{Client, ErrorKind, Start, StreamSpec};
use rdkafka::Offset;

use crate::raw_client::{self, Member, OffsetClient};
use crate::{connect, impatient, start};

/// Groups with each rebalance protocol.
const PROTOCOLS: [&str; 2] = ["classic", "consumer"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_moved() {
    let (broker, client) = start().await;
    what_is_unknown_is_not_found(&client).await;
    for protocol in PROTOCOLS {
        let fixture = ResetFixture::new(&broker, &client, protocol).await;
        a_group_without_members_is_moved(&fixture).await;
        members_are_asked_and_obeyed_requests_are_removed(&fixture).await;
        of_two_requests_the_later_one_wins(&fixture).await;
        members_that_do_not_obey_are_told_and_the_request_stands(&fixture).await;
        a_group_whose_members_leave_is_moved_then(&fixture).await;
    }
}

async fn what_is_unknown_is_not_found(client: &Client) {
    let spec = StreamSpec::new("known");
    client.streams().create(spec).await.expect("it is new");
    let group = client.group("nobody");
    for stream in ["known", "nowhere"] {
        let unknown = group.reset(stream, Start::Earliest).await;
        let unknown = unknown.expect_err("it is not there");
        assert_eq!(
            (unknown.kind(), unknown.group(), unknown.stream()),
            (ErrorKind::NotFound, Some("nobody"), Some(stream))
        );
    }
}

/// A topic of 3 partitions with 4 records of an hour ago, followed by 6 current ones; and a separate group.
struct ResetFixture {
    bootstrap: String,
    client: Client,
    protocol: &'static str,
    name: String,
    /// The group, and the group that holds its requests.
    main: OffsetClient,
    side: OffsetClient,
}

const LENGTH: i64 = 10;

fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3_600)
}

impl ResetFixture {
    async fn new(broker: &Broker, client: &Client, protocol: &'static str) -> Self {
        let (bootstrap, name) = (broker.bootstrap(), format!("moved-{protocol}"));
        let spec = StreamSpec::new(&*name).partitions(3);
        client.streams().create(spec).await.expect("it is new");
        for partition in 0..3 {
            raw_client::send(&bootstrap, &name, partition, 4, an_hour_ago());
            raw_client::send(&bootstrap, &name, partition, 6, SystemTime::now());
        }
        let main = OffsetClient::new(&bootstrap, &name);
        let side = OffsetClient::new(&bootstrap, &format!("{name}.millstream-reset"));
        // The last members of a group determine its type.
        drop(Member::join(&bootstrap, &name, protocol, &name, 3));
        main.commit(&name, &[(0, 5), (1, 5), (2, 5)], "millstream epoch=1");
        Self {
            bootstrap,
            client: client.clone(),
            protocol,
            name,
            main,
            side,
        }
    }

    async fn reset(&self, to: Start) {
        let moved = self.client.group(&*self.name).reset(&self.name, to).await;
        moved.expect("it is moved");
    }

    fn join(&self) -> Member {
        Member::join(&self.bootstrap, &self.name, self.protocol, &self.name, 3)
    }

    fn offsets(&self) -> [i64; 3] {
        [0, 1, 2].map(|partition| self.main.offset(&self.name, partition).0)
    }

    /// Returns the stored requests: partition, offset, number.
    fn requests(&self) -> Vec<(i32, i64, u64)> {
        let requests = (0..3).map(|partition| (partition, self.side.offset(&self.name, partition)));
        let asked = requests.filter_map(|(partition, (offset, number))| {
            (offset >= 0).then_some((partition, offset, number))
        });
        asked.collect()
    }

    /// Acts like a member, which applies the requests to its partitions, until `done` returns true.
    fn obey(&self, member: &Member, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < raw_client::TIMEOUT, "nobody is content");
            for (partition, offset, number) in self.requests() {
                if number > self.main.offset(&self.name, partition).1 {
                    let note = format!("millstream reset={number}");
                    member.commit(&self.name, &[(partition, offset)], &note);
                }
            }
        }
    }
}

impl OffsetClient {
    /// Returns the next offset, and the number of the reset that is stored with it; -1 and 0 if there is none.
    fn offset(&self, topic: &str, partition: i32) -> (i64, u64) {
        let (offset, note) = self.committed(topic, partition);
        let number = note.split("reset=").nth(1).and_then(|n| n.parse().ok());
        match offset {
            Offset::Offset(offset) => (offset, number.unwrap_or(0)),
            _ => (-1, 0),
        }
    }
}

async fn a_group_without_members_is_moved(fixture: &ResetFixture) {
    let begun = SystemTime::now();
    fixture.reset(Start::Latest).await;
    assert_eq!(fixture.offsets(), [LENGTH; 3]);
    fixture.reset(Start::Earliest).await;
    assert_eq!(fixture.offsets(), [0; 3]);
    let between = begun - Duration::from_secs(600);
    fixture.reset(Start::At(between)).await;
    assert_eq!(fixture.offsets(), [4; 3]);
    let never = begun + Duration::from_secs(600);
    fixture.reset(Start::At(never)).await;
    assert_eq!(fixture.offsets(), [LENGTH; 3]);
    fixture.reset(Start::At(SystemTime::UNIX_EPOCH)).await;
    assert_eq!(fixture.offsets(), [0; 3]);
    assert_eq!(fixture.requests(), []);
}

async fn members_are_asked_and_obeyed_requests_are_removed(fixture: &ResetFixture) {
    let member = fixture.join();
    for (to, expected) in [(Start::Latest, LENGTH), (Start::Earliest, 0)] {
        let reset = tokio::spawn({
            let (group, stream) = (fixture.client.group(&*fixture.name), fixture.name.clone());
            async move { group.reset(&stream, to).await }
        });
        fixture.obey(&member, || reset.is_finished());
        reset.await.expect("no panic").expect("it is moved");
        assert_eq!(fixture.offsets(), [expected; 3]);
        assert_eq!(fixture.requests(), []);
    }
}

async fn of_two_requests_the_later_one_wins(fixture: &ResetFixture) {
    let member = fixture.join();
    let begin = |to| {
        let (group, stream) = (fixture.client.group(&*fixture.name), fixture.name.clone());
        tokio::spawn(async move { group.reset(&stream, to).await })
    };
    let first = begin(Start::Earliest);
    // It is stored before the second request.
    let begun = Instant::now();
    while fixture.requests().len() < 3 {
        assert!(begun.elapsed() < raw_client::TIMEOUT && !first.is_finished());
    }
    let asked = fixture.requests();
    let second = begin(Start::Latest);
    let begun = Instant::now();
    while fixture.requests() == asked {
        assert!(begun.elapsed() < raw_client::TIMEOUT && !second.is_finished());
    }
    fixture.obey(&member, || first.is_finished() && second.is_finished());
    first
        .await
        .expect("no panic")
        .expect("a later one includes it");
    second.await.expect("no panic").expect("it is moved");
    assert_eq!(fixture.offsets(), [LENGTH; 3]);
    assert_eq!(fixture.requests(), []);
}

async fn members_that_do_not_obey_are_told_and_the_request_stands(fixture: &ResetFixture) {
    let member = fixture.join();
    let client = connect(impatient(&fixture.bootstrap)).await;
    let refused = client.group(&*fixture.name);
    let refused = refused.reset(&fixture.name, Start::Earliest).await;
    let refused = refused.expect_err("nobody obeys");
    assert_eq!(
        (refused.kind(), refused.group(), refused.stream()),
        (
            ErrorKind::Timeout,
            Some(&*fixture.name),
            Some(&*fixture.name)
        )
    );
    assert!(refused.message().contains("request stands"), "{refused}");
    assert_eq!(fixture.requests().len(), 3);
    assert_eq!(fixture.offsets(), [LENGTH; 3]);
    fixture.obey(&member, || fixture.offsets() == [0; 3]);
}

async fn a_group_whose_members_leave_is_moved_then(fixture: &ResetFixture) {
    let member = fixture.join();
    let reset = tokio::spawn({
        let (group, stream) = (fixture.client.group(&*fixture.name), fixture.name.clone());
        async move { group.reset(&stream, Start::Latest).await }
    });
    let begun = Instant::now();
    // One partition has moved when the member leaves.
    while fixture.offsets()[1] != LENGTH {
        assert!(begun.elapsed() < raw_client::TIMEOUT && !reset.is_finished());
        for (partition, offset, number) in fixture.requests() {
            if partition == 1 && number > fixture.main.offset(&fixture.name, 1).1 {
                let note = format!("millstream reset={number}");
                member.commit(&fixture.name, &[(1, offset)], &note);
            }
        }
    }
    assert_eq!(fixture.offsets(), [0, LENGTH, 0]);
    drop(member);
    reset.await.expect("no panic").expect("it is moved");
    assert_eq!(fixture.offsets(), [LENGTH; 3]);
    // And so is the request that the earlier case left there.
    assert_eq!(fixture.requests(), []);
}
