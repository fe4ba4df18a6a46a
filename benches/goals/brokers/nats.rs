//! NATS JetStream with a stream in memory and a durable consumer, over its wire protocol.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::{ATTRIBUTES, Broker, Server, unexpected};
use crate::cycle::BATCH;

pub(super) struct JetStream {
    stream: BufReader<TcpStream>,
    /// A batch of publishes, ready to be sent.
    publish: String,
    _server: Server,
}

/// A message, or an answer, that came.
struct Came {
    reply: String,
    body: Vec<u8>,
}

const INBOX: &str = "_INBOX.bench";

impl JetStream {
    pub(super) fn start() -> io::Result<Self> {
        let server = Server::start("nats-server", |port, folder| {
            let port = port.to_string();
            ["-a", "127.0.0.1", "-p", &port, "-js", "-sd", folder].map(str::to_owned).to_vec()
        })?;
        let mut headers = "NATS/1.0\r\n".to_owned();
        for (key, value) in ATTRIBUTES {
            let _ = write!(headers, "{key}: {value}\r\n");
        }
        headers.push_str("\r\n");
        let (head, total) = (headers.len(), headers.len() + 16);
        let payload = "x".repeat(16);
        let one = format!("HPUB s {INBOX} {head} {total}\r\n{headers}{payload}\r\n");
        let stream = BufReader::new(server.connect()?);
        let mut this = Self { stream, publish: one.repeat(BATCH), _server: server };
        this.line()?;
        this.send("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n")?;
        this.send(&format!("SUB {INBOX} 1\r\n"))?;
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
        self.send(&format!("PUB {subject} {INBOX} {}\r\n{body}\r\n", body.len()))?;
        let answer = String::from_utf8_lossy(&self.receive()?.body).into_owned();
        if answer.contains("\"error\"") { Err(unexpected(answer)) } else { Ok(()) }
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
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
            self.stream.read_exact(&mut body)?;
            return Ok(Came { reply, body });
        }
    }
}

impl Broker for JetStream {
    fn cycle(&mut self) -> io::Result<()> {
        let publish = std::mem::take(&mut self.publish);
        self.send(&publish)?;
        self.publish = publish;
        for _ in 0..BATCH {
            self.receive()?;
        }
        let body = format!("{{\"batch\":{BATCH}}}");
        let next = "$JS.API.CONSUMER.MSG.NEXT.S.C";
        self.send(&format!("PUB {next} {INBOX} {}\r\n{body}\r\n", body.len()))?;
        let mut acks = String::new();
        for _ in 0..BATCH {
            let came = self.receive()?;
            if came.reply.is_empty() {
                return Err(unexpected(String::from_utf8_lossy(&came.body)));
            }
            // Each is confirmed, as ours are.
            let _ = write!(acks, "PUB {} {INBOX} 4\r\n+ACK\r\n", came.reply);
        }
        self.send(&acks)?;
        for _ in 0..BATCH {
            self.receive()?;
        }
        Ok(())
    }
}
