//! NATS over its wire protocol: JetStream with a stream in memory and a durable consumer, and the
//! core, which keeps and acknowledges nothing.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{ATTRIBUTES, Broker, Delivers, PAYLOAD, Server, unexpected};
use crate::cycle::BATCH;

const INBOX: &str = "_INBOX.bench";

pub(super) struct JetStream {
    connection: Connection,
    _server: Server,
}

/// A publisher and a subscriber, each with a connection.
pub(super) struct Core {
    publisher: Connection,
    subscriber: Connection,
    _server: Server,
}

struct Connection(BufReader<TcpStream>);

/// A message, or an answer, that came.
struct Came {
    reply: String,
    body: Vec<u8>,
}

fn serve(more: &[&str]) -> io::Result<Server> {
    Server::start("nats-server", |port, folder| {
        let port = port.to_string();
        let arguments = ["-a", "127.0.0.1", "-p", &port, "-sd", folder];
        arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    })
}

/// `count` publishes to `subject`, which are answered in the inbox if `reply` is set.
fn publishes(subject: &str, reply: &str, count: usize) -> String {
    let mut headers = "NATS/1.0\r\n".to_owned();
    for (key, value) in ATTRIBUTES {
        let _ = write!(headers, "{key}: {value}\r\n");
    }
    headers.push_str("\r\n");
    let (head, total) = (headers.len(), headers.len() + PAYLOAD.len());
    format!("HPUB {subject} {reply} {head} {total}\r\n{headers}{PAYLOAD}\r\n").repeat(count)
}

impl JetStream {
    pub(super) fn start() -> io::Result<Self> {
        let server = serve(&["-js"])?;
        let connection = Connection::open(&server, INBOX)?;
        let mut this = Self { connection, _server: server };
        this.ask(
            "$JS.API.STREAM.CREATE.S",
            r#"{"name":"S","subjects":["s"],"storage":"memory","retention":"workqueue"}"#,
        )?;
        this.ask(
            "$JS.API.CONSUMER.DURABLE.CREATE.S.C",
            r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#,
        )?;
        Ok(this)
    }

    /// A request to the server, which has to succeed.
    fn ask(&mut self, subject: &str, body: &str) -> io::Result<()> {
        self.connection.send(&format!("PUB {subject} {INBOX} {}\r\n{body}\r\n", body.len()))?;
        let answer = String::from_utf8_lossy(&self.connection.receive()?.body).into_owned();
        if answer.contains("\"error\"") { Err(unexpected(answer)) } else { Ok(()) }
    }
}

impl Core {
    pub(super) fn start() -> io::Result<Self> {
        let server = serve(&[])?;
        let subscriber = Connection::open(&server, "s")?;
        let publisher = Connection::open(&server, INBOX)?;
        Ok(Self { publisher, subscriber, _server: server })
    }
}

impl Connection {
    /// Connects and subscribes to one subject, and waits until that is done.
    fn open(server: &Server, subject: &str) -> io::Result<Self> {
        let mut this = Self(BufReader::new(server.connect()?));
        this.line()?;
        this.send("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n")?;
        this.send(&format!("SUB {subject} 1\r\nPING\r\n"))?;
        loop {
            match this.line()?.trim_end() {
                "PONG" => return Ok(this),
                "PING" => this.send("PONG\r\n")?,
                other => return Err(unexpected(other)),
            }
        }
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(unexpected("the end of the connection"));
        }
        Ok(line)
    }

    /// `MSG subject sid [reply] bytes`, or `HMSG … head bytes`.
    fn receive(&mut self) -> io::Result<Came> {
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let reply = match words.as_slice() {
                ["PING"] => {
                    self.send("PONG\r\n")?;
                    continue;
                }
                ["MSG", _, _, reply, _] | ["HMSG", _, _, reply, _, _] => (*reply).to_owned(),
                ["MSG", _, _, _] | ["HMSG", _, _, _, _] => String::new(),
                _ => return Err(unexpected(line)),
            };
            let bytes = words.last().and_then(|bytes| bytes.parse::<usize>().ok());
            let mut body = vec![0; bytes.ok_or_else(|| unexpected(&line))? + 2];
            self.0.read_exact(&mut body)?;
            return Ok(Came { reply, body });
        }
    }
}

impl Broker for JetStream {
    fn cycle(&mut self) -> io::Result<()> {
        let Self { connection, .. } = self;
        connection.send(&publishes("s", INBOX, BATCH))?;
        for _ in 0..BATCH {
            connection.receive()?;
        }
        let body = format!("{{\"batch\":{BATCH}}}");
        let next = "$JS.API.CONSUMER.MSG.NEXT.S.C";
        connection.send(&format!("PUB {next} {INBOX} {}\r\n{body}\r\n", body.len()))?;
        let mut acks = String::new();
        for _ in 0..BATCH {
            let came = connection.receive()?;
            if came.reply.is_empty() {
                return Err(unexpected(String::from_utf8_lossy(&came.body)));
            }
            // Each is confirmed, as ours are.
            let _ = write!(acks, "PUB {} {INBOX} 4\r\n+ACK\r\n", came.reply);
        }
        connection.send(&acks)?;
        for _ in 0..BATCH {
            connection.receive()?;
        }
        Ok(())
    }
}

impl Delivers for Core {
    fn deliver(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.publisher.send(&publishes("s", "", 1))?;
        self.subscriber.receive()?;
        Ok(start.elapsed())
    }
}
