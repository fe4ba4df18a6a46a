//! The official Pub/Sub emulator over its REST interface, one connection kept alive.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ATTRIBUTES, Broker, Server, unexpected};
use crate::cycle::BATCH;

pub(super) struct Emulator {
    stream: BufReader<TcpStream>,
    /// The body of a publish.
    publish: String,
    _server: Server,
}

/// Where the Google Cloud SDK puts it, below the folder of the SDK.
const PROGRAM: &str = "platform/pubsub-emulator/bin/cloud-pubsub-emulator";
const TOPIC: &str = "/v1/projects/bench/topics/t";
const SUBSCRIPTION: &str = "/v1/projects/bench/subscriptions/s";

impl Emulator {
    pub(super) fn start() -> io::Result<Self> {
        let program = find().ok_or_else(|| io::Error::other("not installed"))?;
        let server = Server::start(&program.to_string_lossy(), |port, _| {
            vec!["--host=127.0.0.1".to_owned(), format!("--port={port}")]
        })?;
        let attributes = ATTRIBUTES.map(|(key, value)| format!("{key:?}:{value:?}")).join(",");
        // Sixteen bytes in base64.
        let one = format!(r#"{{"data":"eHh4eHh4eHh4eHh4eHh4eA==","attributes":{{{attributes}}}}}"#);
        let publish = format!("{{\"messages\":[{}]}}", vec![one; BATCH].join(","));
        let stream = BufReader::new(server.connect()?);
        let mut this = Self { stream, publish, _server: server };
        this.create_topic()?;
        this.call("PUT", SUBSCRIPTION, r#"{"topic":"projects/bench/topics/t"}"#)?;
        Ok(this)
    }

    /// It takes connections a while before it takes calls.
    fn create_topic(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match self.call("PUT", TOPIC, "{}") {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(100));
                    self.stream = BufReader::new(self._server.connect()?);
                }
            }
        }
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> io::Result<Value> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let request = head + body;
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| unexpected(&line))?;
            }
            is_chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let body = if is_chunked { self.chunks()? } else { self.bytes(length)? };
        if !status.contains(" 200 ") {
            return Err(unexpected(status + " " + &String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(&line, 16).map_err(|_| unexpected(&line))?;
            body.extend(self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(unexpected("the end of the connection"));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Broker for Emulator {
    fn cycle(&mut self) -> io::Result<()> {
        let publish = std::mem::take(&mut self.publish);
        self.call("POST", &format!("{TOPIC}:publish"), &publish)?;
        self.publish = publish;
        let mut left = BATCH;
        while left > 0 {
            let body = format!("{{\"maxMessages\":{left}}}");
            let pulled = self.call("POST", &format!("{SUBSCRIPTION}:pull"), &body)?;
            let received = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
            let ids: Vec<_> = received.iter().map(|message| message["ackId"].to_string()).collect();
            left -= ids.len();
            let body = format!("{{\"ackIds\":[{}]}}", ids.join(","));
            self.call("POST", &format!("{SUBSCRIPTION}:acknowledge"), &body)?;
        }
        Ok(())
    }
}

/// The program, beside `gcloud` or in a usual place.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&path)
        .map(|folder| folder.join("gcloud"))
        .filter_map(|gcloud| gcloud.canonicalize().ok())
        .filter_map(|gcloud| Some(gcloud.parent()?.parent()?.to_owned()));
    let usual = ["/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk"].map(PathBuf::from);
    beside.chain(usual).map(|sdk| sdk.join(PROGRAM)).find(|program| program.exists())
}
