use std::time::{Duration, Instant, SystemTime};

use conformance::kafka::Broker;
use millstream_core::{Client, ErrorKind, Start, StreamSpec};
use rdkafka::Offset;

use crate::other::{self, Member, Onlooker};
use crate::{connect, impatient, start};

/// Broker-side groups and those of the members themselves.
const PROTOCOLS: [&str; 2] = ["classic", "consumer"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_moved() {
    let (broker, client) = start().await;
    what_is_unknown_is_not_found(&client).await;
    for protocol in PROTOCOLS {
        let scene = Scene::new(&broker, &client, protocol).await;
        a_group_without_members_is_moved(&scene).await;
        members_are_asked_and_obeyed_requests_are_removed(&scene).await;
        of_two_requests_the_later_one_wins(&scene).await;
        members_that_do_not_obey_are_told_and_the_request_stands(&scene).await;
        a_group_whose_members_leave_is_moved_then(&scene).await;
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

/// A topic of 3 partitions: 4 records of an hour ago, and then 6 of now; and a group of its own.
struct Scene {
    bootstrap: String,
    client: Client,
    protocol: &'static str,
    name: String,
    /// The group, and where requests to it stand.
    main: Onlooker,
    side: Onlooker,
}

const LENGTH: i64 = 10;

fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3_600)
}

impl Scene {
    async fn new(broker: &Broker, client: &Client, protocol: &'static str) -> Self {
        let (bootstrap, name) = (broker.bootstrap(), format!("moved-{protocol}"));
        let spec = StreamSpec::new(&*name).partitions(3);
        client.streams().create(spec).await.expect("it is new");
        for partition in 0..3 {
            other::send(&bootstrap, &name, partition, 4, an_hour_ago());
            other::send(&bootstrap, &name, partition, 6, SystemTime::now());
        }
        let main = Onlooker::new(&bootstrap, &name);
        let side = Onlooker::new(&bootstrap, &format!("{name}.millstream-reset"));
        // A group is of the kind of its last members.
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

    /// The requests that stand: partition, offset, number.
    fn requests(&self) -> Vec<(i32, i64, u64)> {
        let requests = (0..3).map(|partition| (partition, self.side.offset(&self.name, partition)));
        let asked = requests.filter_map(|(partition, (offset, number))| {
            (offset >= 0).then_some((partition, offset, number))
        });
        asked.collect()
    }

    /// Does as a member does, until all partitions have obeyed what is wanted by `done`.
    fn obey(&self, member: &Member, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < other::PATIENCE, "nobody is content");
            for (partition, offset, number) in self.requests() {
                if number > self.main.offset(&self.name, partition).1 {
                    let note = format!("millstream reset={number}");
                    member.commit(&self.name, &[(partition, offset)], &note);
                }
            }
        }
    }
}

impl Onlooker {
    /// The next offset, and the number of the reset that stands there; -1 and 0 where there is none.
    fn offset(&self, topic: &str, partition: i32) -> (i64, u64) {
        let (offset, note) = self.committed(topic, partition);
        let number = note.split("reset=").nth(1).and_then(|n| n.parse().ok());
        match offset {
            Offset::Offset(offset) => (offset, number.unwrap_or(0)),
            _ => (-1, 0),
        }
    }
}

async fn a_group_without_members_is_moved(scene: &Scene) {
    let begun = SystemTime::now();
    scene.reset(Start::Latest).await;
    assert_eq!(scene.offsets(), [LENGTH; 3]);
    scene.reset(Start::Earliest).await;
    assert_eq!(scene.offsets(), [0; 3]);
    let between = begun - Duration::from_secs(600);
    scene.reset(Start::At(between)).await;
    assert_eq!(scene.offsets(), [4; 3]);
    let never = begun + Duration::from_secs(600);
    scene.reset(Start::At(never)).await;
    assert_eq!(scene.offsets(), [LENGTH; 3]);
    scene.reset(Start::At(SystemTime::UNIX_EPOCH)).await;
    assert_eq!(scene.offsets(), [0; 3]);
    assert_eq!(scene.requests(), []);
}

async fn members_are_asked_and_obeyed_requests_are_removed(scene: &Scene) {
    let member = scene.join();
    for (to, expected) in [(Start::Latest, LENGTH), (Start::Earliest, 0)] {
        let reset = tokio::spawn({
            let (group, stream) = (scene.client.group(&*scene.name), scene.name.clone());
            async move { group.reset(&stream, to).await }
        });
        scene.obey(&member, || reset.is_finished());
        reset.await.expect("no panic").expect("it is moved");
        assert_eq!(scene.offsets(), [expected; 3]);
        assert_eq!(scene.requests(), []);
    }
}

async fn of_two_requests_the_later_one_wins(scene: &Scene) {
    let member = scene.join();
    let begin = |to| {
        let (group, stream) = (scene.client.group(&*scene.name), scene.name.clone());
        tokio::spawn(async move { group.reset(&stream, to).await })
    };
    let first = begin(Start::Earliest);
    // It stands before the second one is asked for.
    let begun = Instant::now();
    while scene.requests().len() < 3 {
        assert!(begun.elapsed() < other::PATIENCE && !first.is_finished());
    }
    let asked = scene.requests();
    let second = begin(Start::Latest);
    let begun = Instant::now();
    while scene.requests() == asked {
        assert!(begun.elapsed() < other::PATIENCE && !second.is_finished());
    }
    scene.obey(&member, || first.is_finished() && second.is_finished());
    first
        .await
        .expect("no panic")
        .expect("a later one includes it");
    second.await.expect("no panic").expect("it is moved");
    assert_eq!(scene.offsets(), [LENGTH; 3]);
    assert_eq!(scene.requests(), []);
}

async fn members_that_do_not_obey_are_told_and_the_request_stands(scene: &Scene) {
    let member = scene.join();
    let client = connect(impatient(&scene.bootstrap)).await;
    let refused = client.group(&*scene.name);
    let refused = refused.reset(&scene.name, Start::Earliest).await;
    let refused = refused.expect_err("nobody obeys");
    assert_eq!(
        (refused.kind(), refused.group(), refused.stream()),
        (ErrorKind::Timeout, Some(&*scene.name), Some(&*scene.name))
    );
    assert!(refused.message().contains("request stands"), "{refused}");
    assert_eq!(scene.requests().len(), 3);
    assert_eq!(scene.offsets(), [LENGTH; 3]);
    scene.obey(&member, || scene.offsets() == [0; 3]);
}

async fn a_group_whose_members_leave_is_moved_then(scene: &Scene) {
    let member = scene.join();
    let reset = tokio::spawn({
        let (group, stream) = (scene.client.group(&*scene.name), scene.name.clone());
        async move { group.reset(&stream, Start::Latest).await }
    });
    let begun = Instant::now();
    // One partition has moved when the member goes.
    while scene.offsets()[1] != LENGTH {
        assert!(begun.elapsed() < other::PATIENCE && !reset.is_finished());
        for (partition, offset, number) in scene.requests() {
            if partition == 1 && number > scene.main.offset(&scene.name, 1).1 {
                let note = format!("millstream reset={number}");
                member.commit(&scene.name, &[(1, offset)], &note);
            }
        }
    }
    assert_eq!(scene.offsets(), [0, LENGTH, 0]);
    drop(member);
    reset.await.expect("no panic").expect("it is moved");
    assert_eq!(scene.offsets(), [LENGTH; 3]);
    // And so is the request that the earlier case left there.
    assert_eq!(scene.requests(), []);
}
