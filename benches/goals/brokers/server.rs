//! A broker's process: found, started on a free port, ended.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A broker's process, and a folder for what it insists on writing. Both go with it.
pub(super) struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// `arguments` gets the port and the folder.
    pub(super) fn start(
        program: &str,
        arguments: impl FnOnce(u16, &str) -> Vec<String>,
    ) -> io::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("siftbus-bench-{port}"));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(program);
        command.args(arguments(port, &folder.to_string_lossy())).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => Ok(Server { child, port, folder }),
            Err(error) => {
                std::fs::remove_dir(&folder)?;
                Err(if error.kind() == io::ErrorKind::NotFound { not_found() } else { error })
            }
        }
    }

    /// Waits until it answers.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                    return Ok(stream);
                }
                Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "not found")
}

pub(super) fn unexpected(what: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("an answer that was not expected: {what}"))
}
