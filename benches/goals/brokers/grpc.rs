//! As much of gRPC and protocol buffers as it takes to speak to a broker at its best: one HTTP/2
//! connection, unary calls and streams, and messages written and read field by field.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;

pub(super) struct Client {
    sender: SendRequest<Bytes>,
    host: String,
}

/// A call whose two ends stay open.
pub(super) struct Stream {
    requests: SendStream<Bytes>,
    /// The answer begins when its first message comes.
    answer: Option<ResponseFuture>,
    replies: Option<Replies>,
}

/// The messages that come back, cut at their length prefixes.
struct Replies {
    body: RecvStream,
    buffer: BytesMut,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Client {
    /// Needs to be called on the runtime that the connection lives on.
    pub(super) async fn connect(stream: std::net::TcpStream) -> io::Result<Self> {
        let host = stream.peer_addr()?.to_string();
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
        let (sender, connection) = builder.handshake(stream).await.map_err(failed)?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, host })
    }

    async fn begin(&self, method: &str) -> io::Result<(ResponseFuture, SendStream<Bytes>)> {
        let request = http::Request::post(format!("http://{}/{method}", self.host))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(failed)?;
        let mut sender = self.sender.clone().ready().await.map_err(failed)?;
        sender.send_request(request, false).map_err(failed)
    }

    /// A call with one request and one answer.
    pub(super) async fn call(&self, method: &str, request: &[u8]) -> io::Result<Bytes> {
        let (answer, mut requests) = self.begin(method).await?;
        requests.send_data(framed(request), true).map_err(failed)?;
        let mut replies = Replies::of(answer).await?;
        let Some(reply) = replies.next().await? else {
            return Err(failed(format!("{method}: no answer")));
        };
        if let Some(trailers) = replies.body.trailers().await.map_err(failed)? {
            check(&trailers)?;
        }
        Ok(reply)
    }

    /// A call whose two ends stay open.
    pub(super) async fn open(&self, method: &str, request: &[u8]) -> io::Result<Stream> {
        let (answer, mut requests) = self.begin(method).await?;
        requests.send_data(framed(request), false).map_err(failed)?;
        Ok(Stream { requests, answer: Some(answer), replies: None })
    }
}

impl Stream {
    pub(super) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.requests.send_data(framed(request), false).map_err(failed)
    }

    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        if let Some(answer) = self.answer.take() {
            self.replies = Some(Replies::of(answer).await?);
        }
        let replies = self.replies.as_mut().ok_or_else(|| failed("the stream has failed"))?;
        replies.next().await?.ok_or_else(|| failed("the stream has ended"))
    }
}

impl Replies {
    async fn of(answer: ResponseFuture) -> io::Result<Self> {
        let response = answer.await.map_err(failed)?;
        check(response.headers())?;
        Ok(Self { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<5>() {
                let [_, length @ ..] = *prefix;
                let length = 5 + u32::from_be_bytes(length) as usize;
                if self.buffer.len() >= length {
                    return Ok(Some(self.buffer.split_to(length).freeze().slice(5..)));
                }
            }
            let Some(data) = self.body.data().await else { return Ok(None) };
            let data = data.map_err(failed)?;
            self.body.flow_control().release_capacity(data.len()).map_err(failed)?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

fn check(headers: &http::HeaderMap) -> io::Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            let text = headers.get("grpc-message").unwrap_or(status);
            Err(failed(text.to_str().unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// Adds a field with a length: text, bytes or a message.
pub(super) fn put(message: &mut Vec<u8>, number: u64, value: impl AsRef<[u8]>) {
    put_varint(message, number << 3 | 2);
    put_varint(message, value.as_ref().len() as u64);
    message.extend_from_slice(value.as_ref());
}

/// Adds a field that is a number.
pub(super) fn put_number(message: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(message, number << 3);
    put_varint(message, value);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// All fields of that number which have a length.
pub(super) fn fields(mut message: &[u8], number: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message);
        let length = match tag & 7 {
            0 => {
                take_varint(&mut message);
                continue;
            }
            1 => 8,
            2 => take_varint(&mut message) as usize,
            _ => 4,
        };
        let (value, rest) = message.split_at(length);
        if tag == number << 3 | 2 {
            found.push(value);
        }
        message = rest;
    }
    found
}

fn take_varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for (nth, byte) in message.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            *message = &message[nth + 1..];
            break;
        }
    }
    value
}
