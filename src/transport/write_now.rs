//! A write past what the runtime knows of a socket.
//!
//! Knows no HTTP and no frames. Linux calls a socket writable again once a third of its buffer is free, which may be a
//! megabyte: until then a client that reads slowly looks like one that reads nothing. A write itself is taken as soon as
//! the client has acknowledged anything, so whoever is about to give a client up tries one first.

use std::{
    io::{self, IoSlice},
    task::Poll,
};

use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

/// A stream that can be written to although it is not known to be ready.
pub(super) trait WriteNow {
    /// Hands on as much of `bytes` as there is room for at this moment; pending, and nothing wakes, where that is
    /// nothing.
    fn write_now(&self, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// The same for the first of these that is not empty.
    fn write_first_now(&self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write_now(bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf))
    }
}

impl WriteNow for TcpStream {
    fn write_now(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match SockRef::from(self).send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

/// What lies below an upgraded stream cannot be reached.
impl<T> WriteNow for TokioIo<T> {
    fn write_now(&self, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

#[cfg(test)]
impl WriteNow for tokio::io::DuplexStream {
    fn write_now(&self, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
pub(super) mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    /// A stream that takes no more, whose buffer holds megabytes, and its reader.
    pub(in super::super) async fn full() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (far, (near, _)) = (far.unwrap(), near.unwrap());
        SockRef::from(&near).set_send_buffer_size(4 << 20).unwrap();
        SockRef::from(&far).set_recv_buffer_size(64 << 10).unwrap();
        fill(&near).await;
        (near, far)
    }

    /// Writes until nothing is taken any more, also not past the runtime.
    async fn fill(near: &TcpStream) {
        near.writable().await.unwrap();
        loop {
            if near.write_now(&[7; 16 << 10]).is_pending() {
                assert!(near.try_write(&[7]).is_err(), "the runtime knows now that it is full");
                return;
            }
        }
    }

    /// Reads until a write past the runtime would be taken, and says how much that was.
    pub(in super::super) async fn read_a_little(far: &mut TcpStream, mut taken: impl AsyncFnMut() -> bool) -> usize {
        let (mut read, mut scratch) = (0, vec![0; 4 << 10]);
        loop {
            read += far.read(&mut scratch).await.unwrap();
            tokio::task::yield_now().await;
            if taken().await {
                return read;
            }
        }
    }

    #[tokio::test]
    async fn what_the_reader_has_taken_can_be_written_long_before_the_system_calls_the_stream_writable() {
        let (near, mut far) = full().await;
        let read = read_a_little(&mut far, async || near.write_now(&[7]).is_ready()).await;
        assert!(read < 512 << 10, "{read}");
        let known = near.try_write(&[7]);
        assert_eq!(known.unwrap_err().kind(), io::ErrorKind::WouldBlock, "the runtime knows of no room");
    }
}
