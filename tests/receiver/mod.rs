//! A receiver of pushes on the loopback address, with answers by a script.
//!
//! It speaks just enough HTTP/1.1 to be correct, and to be wrong on purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_rustls::TlsAcceptor;

/// A request as it came: its connection's number, first line, headers and body.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The payload of a wrapped message.
    pub(crate) fn data(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        use base64::Engine;
        let data = body["message"]["data"].as_str().unwrap();
        let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        String::from_utf8(data).unwrap()
    }
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes; the connection stays.
    Text(String),
    /// These bytes, and the end of the connection.
    Last(String),
    /// These bytes, and then nothing more.
    Hang(String),
    /// An acknowledgement, once the test lets it go.
    When(Arc<Semaphore>),
}

impl Answer {
    pub(crate) fn status(code: u16) -> Answer {
        Answer::Text(format!("HTTP/1.1 {code} A\r\ncontent-length: 0\r\n\r\n"))
    }

    pub(crate) fn close() -> Answer {
        Answer::Last(String::new())
    }

    pub(crate) fn silence() -> Answer {
        Answer::Hang(String::new())
    }
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) seen: UnboundedReceiver<Seen>,
    script: Script,
    listener: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: UnboundedSender<Seen>,
}

impl Receiver {
    /// Answers with `answers` in turn, then with 204.
    pub(crate) async fn new(answers: impl IntoIterator<Item = Answer>) -> Receiver {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    /// Behind TLS.
    pub(crate) async fn behind_tls(acceptor: TlsAcceptor) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start(listener, VecDeque::new(), Some(acceptor))
    }

    pub(crate) fn on(listener: TcpListener, answers: impl IntoIterator<Item = Answer>) -> Receiver {
        Self::start(listener, answers.into_iter().collect(), None)
    }

    fn start(
        listener: TcpListener,
        answers: VecDeque<Answer>,
        tls: Option<TlsAcceptor>,
    ) -> Receiver {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/push?key=1", listener.local_addr().unwrap());
        let (send, seen) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers));
        let script = Script { answers, seen: send };
        let serving = script.clone();
        let listener = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (serving, tls) = (serving.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serving.serve(stream, connection).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serving.serve(stream, connection).await;
                            }
                        }
                    }
                });
            }
        });
        Receiver { url, seen, script, listener }
    }

    /// Adds an answer to the script.
    pub(crate) fn answer(&self, answer: Answer) {
        self.script.answers.lock().unwrap().push_back(answer);
    }

    pub(crate) async fn next(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// Closes the port and every connection; answers what had come, and was not looked at.
    pub(crate) async fn die(mut self) -> Vec<Seen> {
        self.listener.abort();
        let _ = self.listener.await;
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

impl Script {
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut stream: S,
        connection: usize,
    ) {
        while let Some(request) = read(&mut stream, connection).await {
            let next = self.answers.lock().unwrap().pop_front();
            let _ = self.seen.send(request);
            let answer = next.unwrap_or_else(|| Answer::Text("HTTP/1.1 204 A\r\n\r\n".into()));
            let (text, goes_on) = match answer {
                Answer::Text(text) => (text, true),
                Answer::Last(text) => (text, false),
                Answer::Hang(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                    // Until the other side has enough.
                    let _ = stream.read_u8().await;
                    return;
                }
                Answer::When(let_go) => {
                    let_go.acquire().await.unwrap().forget();
                    ("HTTP/1.1 200 A\r\ncontent-length: 0\r\n\r\n".into(), true)
                }
            };
            if stream.write_all(text.as_bytes()).await.is_err() || !goes_on {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> =
        headers.map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { connection, line, headers, body })
}
