use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls a call until it is ready, or drops it at its `awaits`-th wait and returns `None`.
pub(super) async fn dropped_at<F: Future>(awaits: usize, call: F) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut waited = 0;
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            waited += 1;
            match waited >= awaits {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        }
    })
    .await
}
