//! A stream whose peer must read.
//!
//! Heads and bodies are read within a time; this bounds the other direction. It owns one clock per
//! connection, which runs only while a write waits and starts again with each byte that the peer
//! takes, and tells when everything is written. It must never judge a connection on which nothing is being
//! written.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::idle::Connection;

/// Fails a write that makes no progress for too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    doing: Arc<Connection>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Duration, doing: Arc<Connection>) -> Self {
        Self {
            stream,
            patience,
            doing,
            waiting: None,
        }
    }

    fn judge<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("peer took nothing for {} ms", patience.as_millis()),
            ))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once it has nothing left to write.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.doing.written();
        }
        self.judge(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::StatusCode;
    use http_body_util::Full;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::answers::{hold, plain};
    use super::super::idle::Open;
    use super::super::room::Rooms;
    use super::*;

    const ANSWER_BYTES: usize = 100_000;
    /// The machine may be busy; unbounded is what must fail.
    const WITHIN: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_peer_that_takes_nothing_fails_the_write_and_one_that_takes_little_does_not() {
        let patience = Duration::from_secs(2);
        let (stream, mut peer) = duplex(10);
        let open = Open::default();
        let entry = open.enter();
        let mut patient = Patient::new(stream, patience, Arc::clone(&entry.connection));
        let slow = tokio::spawn(async move {
            let mut taken = [0; 10];
            for _ in 0..5 {
                tokio::time::sleep(patience / 4).await;
                peer.read_exact(&mut taken).await.unwrap();
            }
            peer
        });
        // Longer in all than the peer may take nothing.
        patient.write_all(&[7; 60]).await.unwrap();
        let _peer = slow.await.unwrap();
        let write = tokio::time::timeout(WITHIN, patient.write_all(&[7; 60])).await;
        let failed = write.expect("it waits without end").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answers_room_is_taken_until_its_last_byte_is_sent() {
        let rooms = Rooms::new(1 << 20);
        let all = rooms.free_bytes();
        let (stream, mut client) = duplex(1000);
        let served = tokio::spawn({
            let rooms = rooms.clone();
            async move {
                let service = service_fn(|_| async {
                    let mut room = rooms.enter();
                    let mut answer = room.collect(1 << 20);
                    answer.add(&vec![b' '; ANSWER_BYTES]).unwrap();
                    let answer = answer.finish();
                    let answer = hold(plain(StatusCode::OK, answer), room);
                    Ok::<_, Infallible>(answer.map(Full::<Bytes>::new))
                });
                let open = Open::default();
                let doing = Arc::clone(&open.enter().connection);
                let stream = Patient::new(stream, Duration::from_secs(60), doing);
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            }
        });
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut half = vec![0; ANSWER_BYTES / 2];
        client.read_exact(&mut half).await.unwrap();
        assert!(all - rooms.free_bytes() >= ANSWER_BYTES as u64);
        client.read_to_end(&mut half).await.unwrap();
        served.await.unwrap().unwrap();
        assert_eq!(rooms.free_bytes(), all);
    }
}
