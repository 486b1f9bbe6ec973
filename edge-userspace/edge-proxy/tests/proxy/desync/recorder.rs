//! An endpoint that reads requests as strictly as the RFC allows, and remembers them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::RawBackend;

/// A request, or what came instead of one.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// A whole request.
    Request {
        method: String,
        target: String,
        fields: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Bytes that are no request.
    Broken(String),
}

/// Answers each request with 200 and its target in `x-target`.
pub(crate) struct Recorder {
    backend: RawBackend,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let backend = RawBackend::start(move |stream, _| serve(stream, &record));
        Self { backend, seen }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// What came since it was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// The stream ended, which may be in the middle of a request that was cut.
struct Ended;

fn serve(stream: TcpStream, record: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let answer = match request(&mut reader) {
            Err(Ended) => return,
            Ok(Ok(request)) => {
                let answer = answer(&request);
                record.lock().unwrap().push(request);
                answer
            }
            Ok(Err(broken)) => {
                record.lock().unwrap().push(Seen::Broken(broken));
                return;
            }
        };
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(request: &Seen) -> String {
    let Seen::Request { method, target, .. } = request else {
        return String::new();
    };
    let body = if method == "HEAD" { "" } else { "ok" };
    format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-target: {target}\r\n\r\n{body}")
}

fn request(reader: &mut BufReader<TcpStream>) -> Result<Result<Seen, String>, Ended> {
    let first = line(reader)?;
    let words: Vec<_> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words.as_slice() else {
        return Ok(Err(format!("no request line: {first:?}")));
    };
    if !method
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_lowercase())
    {
        return Ok(Err(format!("no method: {first:?}")));
    }
    let fields = match fields(reader)? {
        Ok(fields) => fields,
        Err(broken) => return Ok(Err(broken)),
    };
    let body = match body(reader, &fields)? {
        Ok(body) => body,
        Err(broken) => return Ok(Err(broken)),
    };
    Ok(Ok(Seen::Request {
        method: (*method).to_owned(),
        target: (*target).to_owned(),
        fields,
        body,
    }))
}

/// A line that ends with CR LF, and has neither of the two inside.
fn line(reader: &mut BufReader<TcpStream>) -> Result<String, Ended> {
    let mut bytes = Vec::new();
    match reader.read_until(b'\n', &mut bytes) {
        Ok(_) if bytes.ends_with(b"\r\n") => {}
        Ok(0) | Err(_) => return Err(Ended),
        Ok(_) if bytes.ends_with(b"\n") => return Ok("a bare LF".to_owned()),
        Ok(_) => return Err(Ended),
    }
    bytes.truncate(bytes.len() - 2);
    match bytes.contains(&b'\r') {
        true => Ok("a bare CR".to_owned()),
        false => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

fn fields(reader: &mut BufReader<TcpStream>) -> Result<Result<Vec<(String, String)>, String>, Ended> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(Ok(fields));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Ok(Err(format!("no field: {line:?}")));
        };
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_text = |c: char| c == '\t' || (!c.is_ascii_control());
        if name.is_empty() || !name.bytes().all(is_token) || !value.chars().all(is_text) {
            return Ok(Err(format!("no field: {line:?}")));
        }
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// The body as exactly one field says.
fn body(
    reader: &mut BufReader<TcpStream>,
    fields: &[(String, String)],
) -> Result<Result<Vec<u8>, String>, Ended> {
    let of = |name: &str| -> Vec<_> {
        let lines = fields.iter().filter(|(own, _)| own == name);
        lines.map(|(_, value)| value.as_str()).collect()
    };
    if of("host").len() != 1 {
        return Ok(Err(format!("Hosts: {:?}", of("host"))));
    }
    match (
        of("content-length").as_slice(),
        of("transfer-encoding").as_slice(),
    ) {
        ([], []) => Ok(Ok(Vec::new())),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let mut body = vec![0; length.parse().map_err(|_| Ended)?];
            reader.read_exact(&mut body).map_err(|_| Ended)?;
            Ok(Ok(body))
        }
        ([], ["chunked"]) => chunks(reader),
        framing => Ok(Err(format!("framing: {framing:?}"))),
    }
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Result<Result<Vec<u8>, String>, Ended> {
    let mut body = Vec::new();
    loop {
        let size = line(reader)?;
        let Ok(length) = usize::from_str_radix(&size, 16) else {
            return Ok(Err(format!("no chunk size: {size:?}")));
        };
        if length == 0 {
            return Ok(fields(reader)?.map(|_| body));
        }
        let begin = body.len();
        body.resize(begin + length + 2, 0);
        reader.read_exact(&mut body[begin..]).map_err(|_| Ended)?;
        if !body.ends_with(b"\r\n") {
            return Ok(Err("a chunk without its end".to_owned()));
        }
        body.truncate(begin + length);
    }
}
