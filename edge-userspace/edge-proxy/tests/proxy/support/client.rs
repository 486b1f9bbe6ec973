//! A client that writes what the test says, byte by byte, and reads responses strictly.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection, over which requests are written as text.
pub(crate) struct Client<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

/// A response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In the order they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The value of the only header line of that name.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter().filter(|(own, _)| own == name);
        let first = lines.next().map(|(_, value)| value.as_str());
        assert!(
            lines.next().is_none(),
            "{name} stands more than once: {:?}",
            self.headers
        );
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What the describing backend says of a part of the request, all lines of it joined by `|`.
    pub(crate) fn told(&self, part: &str) -> String {
        let lines = self.text().lines().filter_map(|line| line.split_once(": "));
        let values: Vec<_> = lines
            .filter(|(name, _)| *name == part)
            .map(|(_, value)| value)
            .collect();
        values.join("|")
    }
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self::over(stream)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// What it goes over.
    pub(crate) fn stream_ref(&self) -> &S {
        self.stream.get_ref()
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Reads a request's head as a server.
    pub(crate) fn read_request_head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            head += &line;
            head.push('\n');
        }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// GET with the given Host and path, on this connection.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> io::Result<Reply> {
        self.write(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
        self.read("GET")
    }

    /// The next response, to a request with the given method; 1xx ones come first and are returned as such.
    pub(crate) fn read(&mut self, method: &str) -> io::Result<Reply> {
        let mut reply = self.read_head()?;
        let has_body = method != "HEAD" && reply.status >= 200 && !matches!(reply.status, 204 | 304);
        if has_body {
            reply.body = self.body(reply.header("content-length"), reply.header("transfer-encoding"))?;
        }
        Ok(reply)
    }

    /// The next response without its body.
    pub(crate) fn read_head(&mut self) -> io::Result<Reply> {
        let mut reply = Reply::default();
        let line = self.line()?;
        // The answer to HTTP/1.0 says HTTP/1.0.
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status.and_then(|status| status.parse().ok());
        reply.status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            reply.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(reply)
    }

    /// So many bytes of what comes next.
    pub(crate) fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let without_end = line.strip_suffix(b"\r\n");
        without_end
            .map(|line| line.iter().map(|byte| char::from(*byte)).collect())
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn body(&mut self, length: Option<&str>, coding: Option<&str>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match (length, coding) {
            (Some(length), None) => {
                body.resize(length.parse().map_err(io::Error::other)?, 0);
                self.stream.read_exact(&mut body)?;
            }
            (None, Some("chunked")) => loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
                let begin = body.len();
                body.resize(begin + size, 0);
                self.stream.read_exact(&mut body[begin..])?;
                if !self.line()?.is_empty() {
                    return Err(io::Error::other("a chunk overran its size"));
                }
                if size == 0 {
                    break;
                }
            },
            framing => return Err(io::Error::other(format!("unexpected framing {framing:?}"))),
        }
        Ok(body)
    }

    /// All that comes until the end.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Whether the connection ends here, without another byte.
    pub(crate) fn is_at_end(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end, too; only a wait without end is not.
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset && rest.is_empty(),
        }
    }
}

/// One GET over a connection of its own.
#[track_caller]
pub(crate) fn get(port: u16, host: &str, path: &str) -> Reply {
    Client::connect(port).get(host, path).unwrap()
}
