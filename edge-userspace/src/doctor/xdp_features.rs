//! Asks the kernel which XDP features a network device has, over the generic netlink family `netdev`
//! (`Documentation/netlink/specs/netdev.yaml`, Linux 6.3). Asking changes nothing, while attaching a program to see
//! whether it works resets the rings of some network cards.

use std::fmt;
use std::io;

use rtnetlink::sys::{Socket, protocols::NETLINK_GENERIC};

/// Bits of `enum netdev_xdp_act` (`include/uapi/linux/netdev.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XdpFeatures(u64);

/// `NETDEV_XDP_ACT_*` with the names that `ip` and the kernel's tools use.
const NAMES: [(u64, &str); 7] = [
    (1, "basic"),
    (1 << 1, "redirect"),
    (1 << 2, "ndo-xmit"),
    (1 << 3, "xsk-zerocopy"),
    (1 << 4, "hw-offload"),
    (1 << 5, "rx-sg"),
    (1 << 6, "ndo-xmit-sg"),
];

impl XdpFeatures {
    /// Whether programs run in the driver.
    pub(super) fn native(self) -> bool {
        self.0 & 1 != 0
    }
}

impl fmt::Display for XdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(" "))
    }
}

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// Length of the netlink header and of the generic netlink header behind it.
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;

/// Features of the interface with this index; `None` where the kernel has no `netdev` family.
///
/// # Errors
/// When the interface is unknown or the kernel does not answer.
pub(super) fn of_interface(index: u32) -> io::Result<Option<XdpFeatures>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let query = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = match ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &query) {
        Ok(reply) => find(&reply, CTRL_ATTR_FAMILY_ID)
            .and_then(|value| value.try_into().ok())
            .map(u16::from_ne_bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(family) = family else { return Ok(None) };
    let reply = ask(
        &socket,
        family,
        NETDEV_CMD_DEV_GET,
        &attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()),
    )?;
    let bits = find(&reply, NETDEV_A_DEV_XDP_FEATURES).and_then(|value| value.try_into().ok());
    Ok(bits.map(|bits| XdpFeatures(u64::from_ne_bytes(bits))))
}

/// Sends one request and returns the attributes of its answer.
fn ask(socket: &Socket, kind: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = NLMSG_HEADER + GENL_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port are not looked at: the socket has one question open at a time.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message, 0)?;
    let (reply, _) = socket.recv_from_full()?;
    answer(&reply)
}

/// The attributes of a reply, or the error that it carries (`struct nlmsgerr`).
fn answer(reply: &[u8]) -> io::Result<Vec<u8>> {
    let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind: [u8; 2] = reply
        .get(4..6)
        .and_then(|kind| kind.try_into().ok())
        .ok_or_else(truncated)?;
    if u16::from_ne_bytes(kind) == NLMSG_ERROR {
        let code: [u8; 4] = reply
            .get(16..20)
            .and_then(|code| code.try_into().ok())
            .ok_or_else(truncated)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    reply
        .get(NLMSG_HEADER + GENL_HEADER..)
        .map(<[u8]>::to_vec)
        .ok_or_else(truncated)
}

/// One `struct nlattr` with its value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_cut_ones_are_not_read() {
        let mut bytes = attribute(7, b"abcde");
        bytes.extend(attribute(3, &5_u64.to_ne_bytes()));
        assert_eq!(find(&bytes, 3), Some(5_u64.to_ne_bytes().as_slice()));
        assert_eq!(find(&bytes, 7), Some(b"abcde".as_slice()));
        assert_eq!(find(&bytes, 9), None);
        for length in 0..bytes.len() {
            assert_eq!(find(&bytes[..length], 3), None, "cut to {length} bytes");
        }
    }

    #[test]
    fn an_error_reply_becomes_its_error() {
        let mut reply = vec![0; 20];
        reply[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        reply[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(answer(&reply).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(answer(&reply[..5]).is_err());
    }

    #[test]
    fn the_loopback_answers_without_native_xdp() {
        let features = of_interface(1).unwrap();
        assert!(features.is_none_or(|features| !features.native()), "{features:?}");
    }
}
