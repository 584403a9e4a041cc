//! Panics in the errors of handlers and in drivers.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{DeadLetter, Delivery, Epoch, ErrorKind, OnExhausted, Record, Retry};

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition};

/// An error whose text cannot be had.
#[derive(Debug)]
struct Speechless;

impl fmt::Display for Speechless {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("there is no text"))
    }
}

impl std::error::Error for Speechless {}

/// An error whose cause cannot be had.
#[derive(Debug)]
struct Groundless;

impl fmt::Display for Groundless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("groundless")
    }
}

impl std::error::Error for Groundless {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::panic::resume_unwind(Box::new("there is no cause"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_ends_nothing_but_its_record() {
    ends_nothing_but_its_record(|| Speechless).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_source_panics_ends_nothing_but_its_record() {
    ends_nothing_but_its_record(|| Groundless).await;
}

async fn ends_nothing_but_its_record<E>(error: fn() -> E)
where
    E: std::error::Error + Send + Sync + 'static,
{
    for exhausted in [OnExhausted::Skip, DeadLetter::stream("dead").into()] {
        let script = Script::new();
        let retry = Retry::fixed(Duration::from_secs(1)).attempts(2);
        let handler = move |delivery: Delivery| async move {
            match &delivery.payload()[..] {
                b"0" => Err(error()),
                _ => Ok(()),
            }
        };
        let run = group(&script)
            .on_failure(retry.then(exhausted))
            .run(handler, pending());
        tokio::spawn(run);
        script.assign("0", 1);
        script.records("0", 1, 0, "aa");
        script.until_called(checkpoint("0", 1)).await;
    }
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none())
        .run(move |_| async move { Err(error()) }, pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(script.steps(), [Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_ends_the_member_in_order() {
    let methods = [
        "next",
        "checkpoint",
        "publish",
        "release",
        "complete",
        "leave",
        "pause",
        "resume",
    ];
    for method in methods {
        let (script, desk) = (Script::new(), Desk::default());
        let (control, run) = match method {
            "publish" => {
                let results = script.client.producer("results").open().await.unwrap();
                let transform = |_| async { Ok::<_, String>([Record::new("result")]) };
                let run = group(&script).transform_to(&results, transform, pending());
                (run.handle(), tokio::spawn(run))
            }
            _ => desk.run(group(&script)),
        };
        script.assign("0", 1);
        script.panic_in(method);
        script.records("0", 1, 0, "a");
        match method {
            "next" => script.records("0", 1, 1, "a"),
            "release" => script.revoke("0", 1, Duration::from_secs(10)),
            "complete" => script.emit(Event::Ended {
                partition: partition("0"),
                epoch: Epoch(1),
            }),
            "pause" => control.pause_all(),
            "resume" => {
                control.pause_all();
                script.until_called(Call::Pause("0".into())).await;
                control.resume_all();
            }
            "leave" => control.shutdown(),
            _ => {}
        }
        let ended = run.await.unwrap_or_else(|_| panic!("{method} unwinds"));
        let error = ended.unwrap_err();
        assert!(error.message().contains("panicked"), "{method}: {error}");
        assert_eq!(
            script.steps().contains(&Call::Leave),
            method != "leave",
            "{method}"
        );
    }
}
