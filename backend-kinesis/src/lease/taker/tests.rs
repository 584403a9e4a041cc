use super::*;

struct Fleet(Vec<Candidate>);

impl Fleet {
    fn of(owners: &[(&str, usize)]) -> Self {
        let mut leases = Vec::new();
        for (owner, count) in owners {
            for _ in 0..*count {
                leases.push(Candidate {
                    key: format!("{:03}", leases.len()).into(),
                    owner: Some(*owner)
                        .filter(|owner| !owner.is_empty())
                        .map(Into::into),
                    requester: None,
                    expired: false,
                    very_old: false,
                    can_be_requested: owner.starts_with("rust"),
                });
            }
        }
        Self(leases)
    }

    fn with(mut self, owner: &str, change: impl Fn(&mut Candidate)) -> Self {
        let of_owner = |lease: &&mut Candidate| lease.owner.as_deref().unwrap_or("") == owner;
        self.0.iter_mut().filter(of_owner).for_each(change);
        self
    }

    fn decide(&self, most: usize) -> Decision {
        let situation = Situation {
            me: "me",
            most,
            may_steal: true,
            claim: Claim::Share,
        };
        decide(&situation, &self.0, &mut fastrand::Rng::with_seed(1))
    }

    fn sizes(&self) -> (usize, usize, usize) {
        let decision = self.decide(usize::MAX);
        (
            decision.take.len(),
            decision.request.len(),
            decision.steal.len(),
        )
    }
}

#[test]
fn s01_unowned_leases_are_taken_by_one_worker() {
    assert_eq!(Fleet::of(&[("", 1)]).sizes(), (1, 0, 0));
    assert_eq!(Fleet::of(&[("", 7)]).sizes(), (7, 0, 0));
    assert_eq!(Fleet::of(&[]).sizes(), (0, 0, 0));
}

#[test]
fn s05_no_more_is_taken_than_the_share_of_a_worker() {
    assert_eq!(Fleet::of(&[("a", 2), ("", 3)]).sizes(), (3, 0, 0));
    assert_eq!(Fleet::of(&[("a", 1), ("", 6)]).sizes(), (4, 0, 0));
    assert_eq!(Fleet::of(&[("a", 1), ("b", 1), ("", 5)]).sizes(), (3, 0, 0));
}

#[test]
fn s06_with_more_workers_than_leases_the_target_is_one() {
    let fleet = Fleet::of(&[("a", 1), ("b", 1), ("", 1)]);
    assert_eq!(fleet.sizes(), (1, 0, 0));
    let fleet = Fleet::of(&[("a", 1), ("b", 1)]);
    assert_eq!(fleet.sizes(), (0, 0, 0));
}

#[test]
fn s07_very_old_leases_are_taken_beyond_the_target_up_to_the_bound() {
    let forsake = |lease: &mut Candidate| lease.very_old = true;
    let fleet = Fleet::of(&[("a", 2), ("me", 2), ("", 4)]).with("", forsake);
    assert_eq!(fleet.sizes(), (4, 0, 0));
    assert_eq!(fleet.decide(3).take.len(), 1);
    assert_eq!(fleet.decide(1).take.len(), 0);
}

#[test]
fn s08_leases_that_are_merely_free_obey_the_target() {
    let fleet = Fleet::of(&[("a", 2), ("me", 2), ("", 4)]);
    assert_eq!(fleet.sizes(), (2, 0, 0));
}

#[test]
fn s09_the_target_is_bounded_and_the_spillover_told() {
    let decision = Fleet::of(&[("", 10)]).decide(3);
    assert_eq!((decision.take.len(), decision.spillover), (3, 7));
    let decision = Fleet::of(&[("a", 10)]).decide(0);
    assert_eq!((decision.steal.len(), decision.spillover), (0, 5));
}

#[test]
fn s10_one_lease_is_stolen_at_a_time_from_a_java_worker() {
    assert_eq!(Fleet::of(&[("java", 10)]).sizes(), (0, 0, 1));
    let situation = Situation {
        me: "me",
        most: usize::MAX,
        may_steal: false,
        claim: Claim::Share,
    };
    let leases = Fleet::of(&[("java", 10)]).0;
    let decision = decide(&situation, &leases, &mut fastrand::Rng::with_seed(1));
    assert_eq!(decision, Decision::default());
}

#[test]
fn as_many_as_balance_needs_are_asked_of_members_that_understand_it() {
    assert_eq!(Fleet::of(&[("rust", 10)]).sizes(), (0, 5, 0));
    let fleet = Fleet::of(&[("rust1", 4), ("rust2", 4), ("rust3", 4)]);
    let requested = fleet.decide(usize::MAX).request;
    assert_eq!(requested.len(), 3);
    for owner in ["rust1", "rust2", "rust3"] {
        let of_owner = |lease: &&Candidate| lease.owner.as_deref() == Some(owner);
        let keys: Vec<_> = fleet.0.iter().filter(of_owner).map(|l| &l.key).collect();
        assert_eq!(requested.iter().filter(|key| keys.contains(key)).count(), 1);
    }
}

#[test]
fn a_mixed_fleet_is_robbed_once_and_asked_for_the_rest() {
    assert_eq!(Fleet::of(&[("java", 6), ("rust", 6)]).sizes(), (0, 2, 1));
}

#[test]
fn s11_nobody_is_robbed_of_its_share_by_one_that_lacks_one() {
    assert_eq!(Fleet::of(&[("a", 3), ("me", 2)]).sizes(), (0, 0, 0));
    assert_eq!(Fleet::of(&[("a", 2), ("b", 2)]).sizes(), (0, 0, 1));
    assert_eq!(Fleet::of(&[("rust1", 2), ("rust2", 2)]).sizes(), (0, 1, 0));
    assert_eq!(
        Fleet::of(&[("rust1", 2), ("b", 1), ("me", 1)]).sizes(),
        (0, 0, 0)
    );
}

#[test]
fn s12_nothing_is_stolen_while_a_lease_is_free() {
    let fleet = Fleet::of(&[("a", 9), ("", 1)]);
    assert_eq!(fleet.sizes(), (1, 0, 0));
    let expire = |lease: &mut Candidate| lease.expired = true;
    let fleet = Fleet::of(&[("a", 9), ("b", 1)]).with("b", expire);
    assert_eq!(fleet.sizes(), (1, 0, 0));
}

#[test]
fn s16_expired_leases_make_nobody_a_worker() {
    let expire = |lease: &mut Candidate| lease.expired = true;
    let fleet = Fleet::of(&[("dead", 4), ("a", 4)]).with("dead", expire);
    assert_eq!(fleet.sizes(), (4, 0, 0));
}

#[test]
fn leases_that_others_ask_for_are_theirs() {
    let request = |lease: &mut Candidate| lease.requester = Some("other".into());
    // With `me` there are four workers for eight, because `rust1` gives all to `other`.
    let fleet = Fleet::of(&[("rust1", 3), ("rust2", 3), ("rust3", 2)]).with("rust1", request);
    assert_eq!(fleet.sizes(), (0, 1, 0));
}

#[test]
fn every_fleet_comes_to_rest_in_balance() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let workers: Vec<Arc<str>> = (0..random.usize(1..6))
            .map(|n| format!("{}{n}", ["java", "rust"][n % 2]).into())
            .collect();
        let mut leases = Fleet::of(&[("", random.usize(1..25))]).0;
        for lease in &mut leases {
            lease.owner = random
                .bool()
                .then(|| random.choice(&workers).unwrap().clone());
        }
        let mut calm = 0;
        let mut steps = 0;
        while calm < workers.len() {
            steps += 1;
            assert!(steps < 1_000, "{leases:?}");
            let me = &workers[steps % workers.len()];
            let situation = Situation {
                me,
                most: usize::MAX,
                may_steal: true,
                claim: [Claim::Few, Claim::Share][steps % 2],
            };
            for lease in &mut leases {
                let owner = lease.owner.as_ref();
                lease.can_be_requested = owner.is_some_and(|owner| owner.starts_with("rust"));
            }
            let decision = decide(&situation, &leases, &mut random);
            let keys = [decision.take, decision.request, decision.steal].concat();
            calm = if keys.is_empty() { calm + 1 } else { 0 };
            for lease in leases.iter_mut().filter(|lease| keys.contains(&lease.key)) {
                lease.owner = Some(me.clone());
            }
        }
        let count = |id: &Arc<str>| {
            leases
                .iter()
                .filter(|l| l.owner.as_ref() == Some(id))
                .count()
        };
        let counts: Vec<usize> = workers.iter().map(count).collect();
        let most = counts.iter().max().unwrap();
        assert!(
            *most <= leases.len().div_ceil(workers.len()).max(1),
            "{counts:?}"
        );
    }
}

#[test]
fn a_member_that_nobody_sees_takes_a_few_in_an_order_of_its_own() {
    let leases = Fleet::of(&[("", 500)]).0;
    let decide = |me: &str, claim| {
        let situation = Situation {
            me,
            most: usize::MAX,
            may_steal: true,
            claim,
        };
        decide(&situation, &leases, &mut fastrand::Rng::new())
    };
    let mut taken = std::collections::BTreeSet::new();
    for member in 0..50 {
        let decision = decide(&format!("rust{member}"), Claim::Few);
        assert_eq!((decision.take.len(), decision.lacking), (FEW, 500 - FEW));
        taken.extend(decision.take);
    }
    let refused = 50 * FEW - taken.len();
    assert!(refused < 60, "{refused} attempts would be refused");
    let decision = decide("me", Claim::Nothing);
    assert_eq!((decision.take.len(), decision.lacking), (0, 500));
    // No other member is known.
    assert_eq!(decide("me", Claim::Share).take.len(), 500, "all of them");
}

#[test]
fn members_that_know_each_other_do_not_try_the_same_leases() {
    let members: Vec<String> = (0..50).map(|member| format!("rust{member}")).collect();
    let mut owners: Vec<(&str, usize)> = members.iter().map(|id| (&**id, 4)).collect();
    // This one has its share, and a Java worker takes leases in its own time.
    owners.extend([("rust50", 20), ("java", 4), ("", 376)]);
    let leases = Fleet::of(&owners).0;
    let mut taken = std::collections::BTreeSet::new();
    for me in &members {
        let situation = Situation {
            me,
            most: usize::MAX,
            may_steal: true,
            claim: Claim::Share,
        };
        let decision = decide(&situation, &leases, &mut fastrand::Rng::new());
        assert!(decision.take.len() <= 8, "{me} takes more than its share");
        for key in decision.take {
            assert!(taken.insert(key.clone()), "{key} is tried twice");
        }
    }
    assert!(taken.len() > 250, "only {} are taken", taken.len());
}
