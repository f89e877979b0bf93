//! The netfilter queues that programs read.

use crate::event::NetfilterQueue;
use crate::host::netns::{Netns, NetnsError, in_netns};

/// The queues of a namespace that have a reader; `None` where they may not be read. Without the module that hands packets to
/// programs there are none.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn queues(netns: &Netns) -> Result<Option<Vec<NetfilterQueue>>, NetnsError> {
    let read = || match std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(text) => Some(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Vec::new()),
        Err(error) => {
            log::debug!("netfilter queues of namespace {}: {error}", netns.id());
            None
        }
    };
    in_netns(netns, read)
}

/// `queue_number peer_portid queue_total copy_mode copy_range queue_dropped user_dropped id_sequence 1`
fn parse(text: &str) -> Vec<NetfilterQueue> {
    let line = |line: &str| {
        let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        let [number, reader, waiting, _, _, dropped, unread, ..] = *fields.as_slice() else { return None };
        Some(NetfilterQueue {
            number: u16::try_from(number).ok()?,
            reader: u32::try_from(reader).ok()?,
            waiting,
            dropped,
            unread,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_reader() {
        let text = "    0   6145  1024 2 65531    17     3     1041  1\n    7  31337     0 2 65531     0     0        0  1\n";
        let queues = parse(text);
        assert_eq!(
            queues.first(),
            Some(&NetfilterQueue { number: 0, reader: 6145, waiting: 1024, dropped: 17, unread: 3 })
        );
        assert_eq!(queues.len(), 2);
        assert!(parse("").is_empty() && parse("x y\n").is_empty());
    }
}
