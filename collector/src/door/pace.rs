//! Request bodies that must come on: a peer that sends a byte now and then holds no place at a door for long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Every body may take this long, however small.
const GRACE: Duration = Duration::from_secs(20);
/// And then a second for so many bytes: far below the slowest link that a server has.
const RATE: u64 = 16 << 10;

/// The body came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub struct TooSlow;

/// A body with a deadline that moves with what has come.
pub struct Paced {
    inner: Body,
    since: Instant,
    received: u64,
    grace: Duration,
    rate: u64,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// From now on.
    pub fn new(inner: Body) -> Self {
        Self::with(inner, GRACE, RATE)
    }

    fn with(inner: Body, grace: Duration, rate: u64) -> Self {
        Self {
            inner,
            since: Instant::now(),
            received: 0,
            grace,
            rate,
            alarm: None,
        }
    }

    fn deadline(&self) -> Instant {
        self.since
            + self.grace
            + Duration::from_millis(self.received.saturating_mul(1_000) / self.rate)
    }
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let late = || Poll::Ready(Some(Err(axum::Error::new(TooSlow))));
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.received = self
                    .received
                    .saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                if Instant::now() > self.deadline() {
                    return late();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => {
                let deadline = self.deadline();
                let alarm = self
                    .alarm
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if alarm.deadline() != deadline {
                    alarm.as_mut().reset(deadline);
                }
                match alarm.as_mut().poll(cx) {
                    Poll::Ready(()) => late(),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::door::{BodyError, read_body};

    async fn read(body: Body) -> Result<Bytes, BodyError> {
        let request = http::Request::new(Body::new(Paced::with(
            body,
            Duration::from_millis(200),
            10_000,
        )));
        read_body(request, 1 << 30).await
    }

    fn drops(pause: Duration, size: usize, count: usize) -> Body {
        Body::from_stream(futures_util::stream::unfold(0, move |sent| async move {
            if sent == count {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((
                Ok::<_, std::io::Error>(Bytes::from(vec![b' '; size])),
                sent + 1,
            ))
        }))
    }

    #[tokio::test]
    async fn drops_and_stalls_are_cut_off_and_steady_bodies_are_not() {
        let stalled =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(read(stalled).await, Err(BodyError::Slow)));
        let drop_by_drop = drops(Duration::from_millis(10), 1, 1_000);
        assert!(matches!(read(drop_by_drop).await, Err(BodyError::Slow)));
        let steady = drops(Duration::from_millis(40), 4_000, 20);
        assert_eq!(read(steady).await.unwrap().len(), 80_000);
        let small = drops(Duration::from_millis(10), 1, 3);
        assert_eq!(read(small).await.unwrap().len(), 3);
    }
}
