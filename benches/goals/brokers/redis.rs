//! Redis Streams: `XADD`, `XREADGROUP`, `XACK` over its wire protocol.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::{ATTRIBUTES, Broker, PAYLOAD, Server, unexpected};
use crate::cycle::BATCH;

pub(super) struct Streams {
    stream: BufReader<TcpStream>,
    /// A batch of `XADD`, ready to be sent.
    publish: String,
    _server: Server,
}

#[derive(Debug)]
enum Reply {
    Text(String),
    Nothing,
    Number(i64),
    Many(Vec<Reply>),
}

impl Streams {
    pub(super) fn start() -> io::Result<Self> {
        let server = Server::start("redis-server", |port, folder| {
            let port = port.to_string();
            let arguments = ["--port", &port, "--save", "", "--appendonly", "no", "--dir", folder];
            arguments.map(str::to_owned).to_vec()
        })?;
        let [(one, first), (two, second)] = ATTRIBUTES;
        // Trimmed now and then, as whoever runs one has to.
        let add =
            ["XADD", "s", "MAXLEN", "~", "10000", "*", "data", PAYLOAD, one, first, two, second];
        let publish = command(&add).repeat(BATCH);
        let mut this = Self { stream: BufReader::new(server.connect()?), publish, _server: server };
        this.send(&command(&["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"]))?;
        this.receive()?;
        Ok(this)
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
            return Err(unexpected("the end of the connection"));
        };
        let count = || rest.parse::<i64>().map_err(|_| unexpected(rest));
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            ":" => Ok(Reply::Number(count()?)),
            "$" | "*" if count()? < 0 => Ok(Reply::Nothing),
            "$" => {
                let mut bytes = vec![0; count()? as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            "*" => {
                (0..count()?).map(|_| self.receive()).collect::<io::Result<_>>().map(Reply::Many)
            }
            _ => Err(unexpected(line)),
        }
    }
}

impl Broker for Streams {
    fn cycle(&mut self) -> io::Result<()> {
        let publish = std::mem::take(&mut self.publish);
        self.send(&publish)?;
        self.publish = publish;
        for _ in 0..BATCH {
            self.receive()?;
        }
        let count = BATCH.to_string();
        let read = ["XREADGROUP", "GROUP", "g", "c", "COUNT", &count, "STREAMS", "s", ">"];
        self.send(&command(&read))?;
        let mut acknowledge = vec!["XACK".to_owned(), "s".to_owned(), "g".to_owned()];
        acknowledge.extend(ids(self.receive()?));
        assert_eq!(acknowledge.len(), 3 + BATCH, "everything was handed out");
        self.send(&command(&acknowledge))?;
        match self.receive()? {
            Reply::Number(acknowledged) if acknowledged == BATCH as i64 => Ok(()),
            other => Err(unexpected(format_args!("{other:?}"))),
        }
    }
}

/// The ids in `[[stream, [[id, fields], …]]]`.
fn ids(reply: Reply) -> Vec<String> {
    let many = |reply| match reply {
        Reply::Many(replies) => replies,
        _ => Vec::new(),
    };
    let streams = many(reply).into_iter().flat_map(many);
    let entries = streams.filter(|part| matches!(part, Reply::Many(_))).flat_map(many);
    let ids = entries.filter_map(|entry| many(entry).into_iter().next());
    ids.filter_map(|id| if let Reply::Text(id) = id { Some(id) } else { None }).collect()
}

fn command(parts: &[impl AsRef<str>]) -> String {
    let mut text = format!("*{}\r\n", parts.len());
    for part in parts.iter().map(AsRef::as_ref) {
        let _ = write!(text, "${}\r\n{part}\r\n", part.len());
    }
    text
}
