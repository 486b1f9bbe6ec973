//! The server name of a TLS connection that is not ended here: looked at, and left in the socket.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;

/// Largest ClientHello that is waited for. With post-quantum key shares they are about 2 KiB.
const MAX_HELLO: usize = 16 * 1024;

/// Pause before a look for the rest of a ClientHello that came in pieces.
const PAUSE: Duration = Duration::from_millis(5);

/// The name that the client asks for (RFC 6066 section 3). The caller bounds the time.
///
/// # Errors
/// When the client sends something else, too much, or nothing more.
pub(crate) async fn server_name(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut seen = vec![0; 4096];
    let mut last = 0;
    loop {
        let length = stream.peek(&mut seen).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if length == last {
            // What is there is there to read, so that waiting for readiness would not wait.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        last = length;
        if let Some(name) = parse(&seen[..length])? {
            return Ok(name);
        }
        if length == seen.len() {
            if length >= MAX_HELLO {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the ClientHello is too large",
                ));
            }
            seen.resize(length * 2, 0);
        }
    }
}

/// `None` when there is more to come.
fn parse(mut bytes: &[u8]) -> io::Result<Option<Option<String>>> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(accepted.client_hello().server_name().map(str::to_owned))),
            Ok(None) => {}
            Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
    Ok(None)
}
