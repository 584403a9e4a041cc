//! Fails requests that make no progress.

use std::error::Error as StdError;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The largest part of a request that is passed on at once. A slow network takes several, and each is progress.
const PART: usize = 64 << 10;

/// Nothing was sent or received for this time.
#[derive(Debug)]
pub(crate) struct Stalled(Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing was sent or received for {:?}", self.0)
    }
}

impl StdError for Stalled {}

/// The progress of one request.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    stall: Duration,
    last: Arc<Mutex<Instant>>,
}

impl Progress {
    pub(super) fn new(stall: Duration) -> Self {
        Self {
            stall,
            last: Arc::new(Mutex::new(Instant::now())),
        }
    }

    fn made(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.stall
    }

    /// Waits for a response as long as there is progress.
    pub(super) async fn watch<T>(&self, response: impl Future<Output = T>) -> Result<T, Stalled> {
        let mut response = pin!(response);
        loop {
            let deadline = self.deadline();
            match select(response.as_mut(), pin!(sleep_until(deadline))).await {
                Either::Left((response, _)) => {
                    self.made();
                    return Ok(response);
                }
                Either::Right(_) if self.deadline() > deadline => {}
                Either::Right(_) => return Err(Stalled(self.stall)),
            }
        }
    }
}

/// The body of a request, in parts.
pub(super) struct Upload {
    body: SdkBody,
    part: Bytes,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(body: SdkBody, progress: Progress) -> Self {
        Self {
            body,
            part: Bytes::new(),
            progress,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.part.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.part = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.progress.made();
        let size = self.part.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.part.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.part.is_empty() && Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.part.len() as u64;
        let rest = Body::size_hint(&self.body);
        let mut size = SizeHint::new();
        size.set_lower(rest.lower() + left);
        if let Some(upper) = rest.upper() {
            size.set_upper(upper + left);
        }
        size
    }
}

/// The body of a response.
pub(super) struct Download {
    body: Incoming,
    progress: Progress,
    /// Is created when the body is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(super) fn new(body: Incoming, progress: Progress) -> Self {
        Self {
            body,
            progress,
            timer: None,
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.progress.made();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        loop {
            let deadline = this.progress.deadline();
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() == deadline {
                let stalled = Stalled(this.progress.stall);
                return Poll::Ready(Some(Err(stalled.into())));
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
