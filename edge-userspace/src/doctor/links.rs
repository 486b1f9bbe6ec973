//! The network devices of this network namespace, by netlink: /sys shows those of the namespace that it was mounted in.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Name.
    pub(super) name: String,
    /// The kernel's number for it.
    pub(super) index: u32,
    /// Whether it is set up (`IFF_UP`).
    pub(super) up: bool,
    /// Whether it is a loopback.
    pub(super) loopback: bool,
    /// Largest packet, in bytes.
    pub(super) mtu: u32,
}

/// Every device, by index.
///
/// # Errors
/// When netlink cannot be opened or asked.
pub(super) async fn all() -> anyhow::Result<Vec<Link>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    Ok(messages.iter().filter_map(link).collect())
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mtu = 0;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        }
        if let LinkAttribute::Mtu(value) = attribute {
            mtu = *value;
        }
    }
    let header = &message.header;
    Some(Link {
        name: name?,
        index: header.index,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu,
    })
}
